"""Joining and ordering dimensions keeps chunks and their numbers."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shmarray.chunks import ChunkGrid
from shmarray.engine.layout import broadcast_strides, simplify


@given(st.data())
def test_each_simplified_chunk_addresses_the_elements_of_the_grids_chunk(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    chunks = tuple(data.draw(st.integers(1, extent)) for extent in shape)
    order = data.draw(st.permutations(range(len(shape))))
    flips = tuple(slice(None, None, data.draw(st.sampled_from([1, -1]))) for _ in shape)
    numbers = np.arange(np.prod(shape)).reshape([shape[axis] for axis in order])
    array = numbers.transpose(np.argsort(order))[flips]
    base = numbers.__array_interface__["data"][0]
    origin = (array.__array_interface__["data"][0] - base) // array.itemsize

    grid = ChunkGrid(shape, chunks)
    space = simplify(grid, [array.strides])
    for index, part in enumerate(grid):
        ranges = []
        for extent, chunk, count, weight in zip(
            space.grid.shape, space.grid.chunks, space.grid.counts, space.weights, strict=True
        ):
            first = index // weight % count * chunk
            ranges.append(range(first, min(extent, first + chunk)))
        offsets = {
            origin + sum(i * stride for i, stride in zip(place, space.strides[0], strict=True)) // array.itemsize
            for place in itertools.product(*ranges)
        }
        assert offsets == set(array[part].ravel().tolist())


def test_contiguous_arrays_of_any_rank_become_one_row():
    a = np.zeros((3, 4, 5))
    space = simplify(ChunkGrid(a.shape, (1, 4, 5)), [a.strides, a.strides])
    assert space.grid == ChunkGrid((60,), (20,))


def test_a_transposed_output_is_walked_along_its_memory():
    a = np.zeros((6, 8)).T
    space = simplify(ChunkGrid(a.shape, (8, 2)), [a.strides])
    assert space.strides[0][-1] == 8


def test_broadcast_strides_as_numpys():
    for shape, to in [((1,), (3,)), ((3, 1), (2, 3, 4)), ((), (2,)), ((1, 1), (1, 5))]:
        array = np.zeros(shape)
        expected = np.broadcast_to(array, to).strides
        ours = broadcast_strides(array.shape, array.strides, to)
        assert [s for s, n in zip(ours, to, strict=True) if n > 1] == [
            s for s, n in zip(expected, to, strict=True) if n > 1
        ]
