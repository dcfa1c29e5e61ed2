"""Threads that share a transfer: every slice once, errors come back, nothing runs on."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from shmarray.array import transfer
from shmarray.array.transfer import copy_parallel, fill_parallel, run_sliced


@pytest.fixture(params=[1, 4])
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(transfer, "available_cores", lambda: request.param)
    return int(request.param)


def test_every_slice_is_done_once_and_reported(lanes: int) -> None:
    done: list[int] = []
    reported: list[int] = []
    run_sliced(lambda index: done.append(index) or index, 50, done=reported.append)
    assert sorted(done) == sorted(reported) == list(range(50))
    run_sliced(done.append, 0)  # type: ignore[arg-type]


def test_the_first_error_comes_back_and_no_thread_stays(lanes: int) -> None:
    def work(index: int) -> int:
        if index == 3:
            raise OSError("broken")
        return 0

    with pytest.raises(OSError, match="broken"):
        run_sliced(work, 1000)
    assert not [thread for thread in threading.enumerate() if "transfer" in thread.name]


@pytest.mark.parametrize("shape", [(1_000_001,), (3, 500_000), (500_000, 3), (1, 1, 1_000_000), (2, 1000, 700)])
def test_large_copies_and_fills_reach_every_element(shape: tuple[int, ...], lanes: int) -> None:
    source = np.random.default_rng(0).normal(size=shape)
    for target in (np.empty(shape), np.empty(shape[::-1]).T, np.empty(shape, "f4")):
        copy_parallel(target, source)
        assert np.array_equal(target, source.astype(target.dtype))
        fill_parallel(target, 3)
        assert (target == 3).all()
    copy_parallel(target, np.arange(shape[-1]))
    assert np.array_equal(target, np.broadcast_to(np.arange(shape[-1], dtype="f4"), shape))


def test_errstate_holds_in_the_threads(lanes: int) -> None:
    source: np.ndarray[Any, Any] = np.full(1_000_000, np.nan)
    target = np.empty(1_000_000, "i8")
    with np.errstate(invalid="ignore"):
        copy_parallel(target, source)
    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        copy_parallel(target, source)
