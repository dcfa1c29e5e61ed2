"""Kernels of scalar functions: broadcasting, layouts, chunks, and the number of lanes."""

from __future__ import annotations

import numpy as np
import pytest

import shmarray as sa
from tests.ops.scalar_kernels import add, axpy, fancy

# ---------------------------------------------------------------------- broadcasting and layouts


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((3, 4), (3, 4)),
        ((3, 1), (1, 4)),
        ((4,), (3, 4)),
        ((), (3, 4)),
        ((1,), (5,)),
        ((), ()),
        ((0,), (1,)),
        ((0, 3), (3,)),
        ((2, 0), (2, 1)),
        ((2, 1, 4, 1), (3, 1, 5)),
        ((1, 1, 1), (1,)),
    ],
)
def test_arguments_broadcast_as_in_numpy(one, other):
    x, y = np.random.default_rng(1).random(one), np.random.default_rng(2).random(other)
    result = axpy(2.0, sa.array(x), sa.array(y))
    expected = 2.0 * x + y
    assert type(result) is (sa.SharedArray if expected.shape else np.float64)
    assert result.shape == expected.shape
    assert np.array_equal(result, expected)


def test_shapes_that_do_not_broadcast_are_refused():
    with pytest.raises(ValueError, match="broadcast"):
        add(sa.ones(3), sa.ones(4))


@pytest.mark.parametrize("n_dims", [1, 5, 20, 40])
def test_any_number_of_dimensions(n_dims):
    x = np.arange(2.0 ** min(n_dims, 5)).reshape((2,) * min(n_dims, 5) + (1,) * (n_dims - min(n_dims, 5)))
    assert np.array_equal(add(sa.array(x), sa.array(x)), 2 * x)
    assert np.array_equal(add(sa.array(x).T, 1.0), x.T + 1)


VIEWS = {
    "transposed": lambda a: a.T,
    "reversed": lambda a: a[::-1, ::-1],
    "stepped": lambda a: a[::2, 1::3],
    "middle": lambda a: a[2:-2, 3:-1],
    "one row": lambda a: a[3:4],
    "backwards rows of a transpose": lambda a: a.T[::-2],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
}


def test_operands_of_any_strides(everywhere):
    x = np.random.default_rng(3).random((12, 14))
    for view, cut in VIEWS.items():
        assert np.array_equal(axpy(3.0, cut(sa.array(x)), cut(sa.array(x))), 3.0 * cut(x) + cut(x)), view


def test_outputs_of_any_strides_change_nothing_beside_them(everywhere):
    x = np.random.default_rng(3).random((12, 14))
    for view, cut in VIEWS.items():
        if view == "broadcast":
            continue
        out, expected = sa.full((12, 14), -1.0), np.full((12, 14), -1.0)
        target = cut(out)
        assert axpy(2.0, cut(sa.array(x)), 1.0, out=target) is target
        cut(expected)[...] = 2.0 * cut(x) + 1.0
        assert np.array_equal(out, expected), view


def test_chunks_of_any_geometry(everywhere):
    x = np.random.default_rng(4).random((12, 14))
    for chunks in (None, 1, 5, (3, 4), (1, 1), (-1, 2), (100, 100), (12, 1)):
        a, out = sa.array(x, chunks=chunks), sa.empty((12, 14), chunks=chunks)
        axpy(2.0, a, a, out=out)
        assert np.array_equal(out, 3 * x), chunks
        assert np.array_equal(axpy(2.0, a.T, a.T, out=sa.empty((14, 12))), 3 * x.T), chunks


def test_an_empty_call(everywhere):
    assert axpy(2.0, sa.empty((0, 5)), 1.0).shape == (0, 5)
    out = sa.empty((0, 5))
    assert axpy(2.0, sa.empty((0, 5)), 1.0, out=out) is out


# ---------------------------------------------------------------------- lanes


@pytest.mark.parametrize("lanes", [1, 5])
def test_results_do_not_depend_on_the_number_of_lanes(lanes, everywhere):
    rng = np.random.default_rng(8)
    x, y = rng.random((2, 64, 33))
    expected = fancy(sa.array(x), sa.array(y)).tobytes()
    with sa.Pool(lanes) as pool:
        for chunks in (1, (10, 7), None):
            assert fancy(sa.array(x, chunks=chunks), sa.array(y), pool=pool).tobytes() == expected
