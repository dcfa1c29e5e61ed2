"""Warnings name the user's line, through whatever of ours and of NumPy's the call went: Python shows a line's once."""

from __future__ import annotations

import operator
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import shmarray as sa

CALLS: dict[str, Callable[[Any], Any]] = {
    "operator": lambda x: 1 / x,
    "operator in place": lambda x: operator.itruediv(x, 0),
    "ufunc": lambda x: np.log(x),
    "ufunc with out": lambda x: np.divide(1, x, out=x),
    "reduce": lambda x: np.add.reduce(x + 1e308),
    "method": lambda x: (x + 1e308).sum(),
    "function": lambda x: np.sum(x + 1e308),
}


def _where(call: Callable[[], Any]) -> tuple[str, int]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    (one,) = caught
    return one.filename, one.lineno


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_floating_point_warnings_name_the_users_line(call: Callable[[Any], Any]) -> None:
    array = sa.zeros(150_000)
    assert _where(lambda: call(array)) == (__file__, call.__code__.co_firstlineno)


def test_so_does_the_one_about_short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Callable[[Any], Any]] = [
        lambda x: x + 1,
        lambda x: np.concatenate([x, x]),
        lambda x: x.copy(),
    ]
    array = sa.zeros(150_000)
    with sa.config.override(max_nbytes=1_300_000, recycle_nbytes=0):
        for call in calls:
            monkeypatch.setattr(sys.modules["shmarray.array.results"], "_warned", False)
            assert _where(lambda call=call: call(array)) == (__file__, call.__code__.co_firstlineno)
