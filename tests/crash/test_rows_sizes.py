"""Very many and very large arrays: rows 21 and 22 of the fault table."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import shmarray as sa
from shmarray import registry
from shmarray.segment.mapping import DIRECTORY
from tests.conftest import segment_files


def counts() -> tuple[int, int]:
    """Open descriptors and mappings of this process."""
    with open("/proc/self/maps") as file:
        return len(os.listdir("/proc/self/fd")), sum(1 for _ in file)


def test_row_21_a_hundred_thousand_chunks_and_ten_thousand_arrays_in_turn(
    namespace: str, pool: sa.Pool, request: pytest.FixtureRequest
) -> None:
    """2,000 arrays in turn; 10,000 with `--large`. Each keeps nothing: a descriptor or mapping an array would show."""
    many = sa.zeros(200_000, "i1", chunks=2)

    @sa.elementwise
    def more(x):  # type: ignore[no-untyped-def]
        return x + 1

    more(many, out=many, pool=pool)
    assert np.asarray(many).all()
    del many
    registry.trim()
    before = counts()
    for turn in range(10_000 if request.config.getoption("--large") else 2_000):
        array = sa.empty(3, "i4", name=None if turn % 2 else f"n{turn}")
        array[0] = turn
    del array
    registry.trim()
    fds, maps = counts()
    assert fds <= before[0] + 2  # the namespace's lock
    assert maps <= before[1] + 20
    assert segment_files(namespace) == []


def test_row_21_a_thousand_arrays_at_once(namespace: str) -> None:
    before = counts()
    arrays = [sa.full(2, turn, "i4", name=f"n{turn}") for turn in range(1000)]
    assert len(registry.list()) == 1000
    assert [int(array[1]) for array in arrays] == list(range(1000))
    arrays.clear()
    registry.trim()
    assert counts()[0] <= before[0] + 2
    assert segment_files(namespace) == []


def test_row_22_offsets_past_four_gib(namespace: str, request: pytest.FixtureRequest) -> None:
    """On a file of holes, whose pages are not there before they are touched; `--large` has all of them there."""
    nbytes = 2**32 + 4096
    path = Path(DIRECTORY) / f"{namespace}-holes"
    path.touch(mode=0o600)
    try:
        os.truncate(path, nbytes)
        a = sa.from_raw(path.name, nbytes, "i1")
        places = [0, 2**31, 2**32 - 1, 2**32, nbytes - 1]
        for value, place in enumerate(places, 1):
            a[place] = value
        far = a[2**31 - 1 :: 2**31]  # strides that 32 bits do not hold
        assert far.tolist() == [0, 3]
        second = sa.from_raw(path.name, nbytes, "i1", "r")
        assert [int(second[place]) for place in places] == [1, 2, 3, 4, 5]
        rows = a.reshape(2**20 + 1, 4096)[:: 2**19]
        assert np.asarray(rows.sum(axis=1)).tolist() == [1, 2, 4 + 5]
        del a, far, second, rows
    finally:
        path.unlink()
    if not request.config.getoption("--large"):
        return
    whole = sa.ones(2**32 + 1, "i1")
    assert int(whole.sum(dtype="i8")) == 2**32 + 1
    whole[2**32] = 3
    tail = sa.asarray(whole[2**32 - 1 :])
    assert tail.tolist() == [1, 3]
