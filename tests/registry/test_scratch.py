"""What a scratch says is believed only as far as it fits the files it is about."""

from __future__ import annotations

import random
from contextlib import suppress

import numpy as np
import pytest

from shmarray.chunks import ChunkGrid
from shmarray.registry.scratch import Layout, Window

GRID = ChunkGrid((6, 10), (2, 4))
FILE = ("namespace~x", 1, 2, 3)


def layout():
    return Layout.plan("task", GRID, 0, 4, [(FILE, 0, (80, 8), 8), (None, 472, (-80, -8), 4)])


def test_it_says_what_it_was_told():
    one = layout()
    assert Layout.parse(one.text(), one.nbytes) == one


@pytest.mark.parametrize("strides", [(80, 8), (8, 48), (-80, 8)])
def test_a_chunk_is_copied_to_where_it_belongs_and_nothing_else(strides):
    items = np.zeros(60)
    offset = 400 if strides[0] < 0 else 0
    one = Layout.plan("task", GRID, 0, 4, [(FILE, offset, strides, 8)])
    scratch = np.arange(one.nbytes, dtype=np.uint8)
    (block,) = one.blocks
    inner = block.scratch_strides
    window = Window(3, 9, 1, 2, 0)  # the rows from 2 on
    one.check(block, window, items.nbytes)
    for index in range(3, 9):
        one.copy(block, index, window.begins, scratch.ctypes.data, items.ctypes.data)
    view = np.ndarray(GRID.shape, np.float64, items, offset, strides)
    assert not view[:2].any()
    for row in range(2, 6):
        for column in range(10):
            at = block.scratch_offset + (row - 2) * inner[0] + column * inner[1]
            assert view[row, column].tobytes() == scratch[at : at + 8].tobytes()


def test_whatever_it_says_nothing_outside_of_the_files_is_touched():
    one, choose = layout(), random.Random(0)
    text, segment_nbytes, good = one.text(), 480, 0
    for _ in range(3000):
        damaged = bytearray(text)
        for _ in range(choose.randrange(1, 4)):
            at = choose.randrange(len(damaged))
            damaged[at : at + choose.randrange(3)] = choose.choices(b'0123456789-[],"x.e', k=choose.randrange(3))
        window = Window(choose.randrange(-2, 10), choose.randrange(12), 1, choose.randrange(-4, 8), 0)
        with suppress(ValueError):
            found = Layout.parse(bytes(damaged), one.nbytes)
            found.check_window(window)
            assert len(found.grid) <= one.nbytes - found.states_at
            for block in found.blocks:
                found.check(block, window, segment_nbytes)
                for index in range(window.first, window.stop):
                    shape, there, here = found._places(block, index, window.begins)
                    last = [extent - 1 for extent in shape]
                    corners = np.array(np.meshgrid(*[[0, n] for n in last])).reshape(len(shape), -1).T
                    for start, strides, limit in (
                        (there, block.strides, segment_nbytes),
                        (here, block.scratch_strides, one.nbytes),
                    ):
                        ends = [
                            start + sum(int(c) * s for c, s in zip(corner, strides, strict=True)) for corner in corners
                        ]
                        assert min(ends) >= 0
                        assert max(ends) + block.itemsize <= limit
                        good += 1
    assert good  # some of it still made sense
