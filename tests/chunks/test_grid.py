"""Chunk grids cover every element exactly once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmarray.chunks import ChunkGrid, normalize_chunks

shapes = st.lists(st.integers(0, 12), max_size=4).map(tuple)


@given(st.data(), shapes)
def test_chunks_cover_each_element_once(data, shape):
    chunks = tuple(data.draw(st.integers(1, max(1, extent))) for extent in shape)
    grid = ChunkGrid(shape, chunks)
    seen = np.zeros(shape, int)
    for index, part in enumerate(grid):
        assert part == grid.slices(index)
        seen[part] += 1
    assert (seen == 1).all()


@given(shapes, st.integers(1, 16), st.integers(1, 4096))
def test_default_chunks_are_runs_of_memory_of_the_size_asked(shape, itemsize, chunk_nbytes):
    chunks = normalize_chunks(None, shape, itemsize, chunk_nbytes)
    grid = ChunkGrid(shape, chunks)
    assert math.prod(chunks) * itemsize <= max(chunk_nbytes, itemsize)
    array = np.zeros(shape)
    for part in grid:
        assert array[part].flags.c_contiguous


def test_index_outside_the_grid_is_refused():
    with pytest.raises(IndexError, match="chunk 3 is not in a grid of 3"):
        ChunkGrid((5,), (2,)).slices(3)


@pytest.mark.parametrize(
    ("chunks", "problem"),
    [
        ((0, 1), "at least 1"),
        ((-2, 1), "at least 1"),
        ((1,), "one extent for each of 2"),
    ],
)
def test_bad_chunks_are_refused(chunks, problem):
    with pytest.raises(ValueError, match=problem):
        normalize_chunks(chunks, (4, 4), 8, 100)


@pytest.mark.parametrize("chunks", ["ab", 1.5, (1, None), {1, 2}])
def test_chunks_of_another_type_are_refused(chunks):
    with pytest.raises(TypeError, match="chunks must be an integer or a sequence of integers; got"):
        normalize_chunks(chunks, (4, 4), 8, 100)


def test_chunks_of_an_array_without_dimensions():
    assert normalize_chunks(None, (), 8, 100) == ()
    assert len(ChunkGrid((), ())) == 1
    with pytest.raises(ValueError, match="without dimensions"):
        normalize_chunks(3, (), 8, 100)


def test_grid_beyond_32_bits_counts_in_python_integers():
    grid = ChunkGrid((2**40, 3), (2**20, 3))
    assert len(grid) == 2**20
    assert grid.slices(2**20 - 1)[0] == slice(2**40 - 2**20, 2**40)
