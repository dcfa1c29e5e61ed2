"""Running sums and products of large SharedArrays, of all of them and along an axis."""

from __future__ import annotations

import numpy as np
import pytest

import shmarray as sa

from .comparison import N, numbers, same


def test_running_sums_of_integers_are_exact():
    for dtype in ("i4", "u1"):
        x = numbers(dtype)
        same(np.cumsum(sa.array(x)), np.cumsum(x))
    x = numbers("i4")
    same(sa.array(x).cumprod(), x.cumprod())
    same(np.cumsum(sa.array(x).reshape(2, -1)), np.cumsum(x))
    same(np.cumsum(sa.array(x).reshape(2, -1), axis=1), np.cumsum(x.reshape(2, -1), axis=1))
    same(np.diff(sa.array(x)), np.diff(x))
    same(np.diff(sa.array(x).reshape(2, -1), n=2, axis=0), np.diff(x.reshape(2, -1), n=2, axis=0))


def test_running_sums_of_floats_are_as_near_to_the_truth_as_numpys():
    for dtype in ("f8", "f4"):
        x = numbers(dtype)
        exact = np.cumsum(x.astype(np.longdouble))
        result = np.cumsum(sa.array(x))
        assert result.dtype == x.dtype
        assert np.abs(np.asarray(result) - exact).max() <= np.abs(np.cumsum(x) - exact).max()
    x = numbers("f8")
    x[100], x[200_000] = np.inf, np.nan
    result = np.asarray(np.cumsum(sa.array(x)))
    assert np.isinf(result[100:200_000]).all()
    assert np.isnan(result[200_000:]).all()
    assert np.signbit(np.cumsum(sa.array(np.full(N, -0.0)))).all()


SHAPES = {"rows": (300, 1000), "columns": (75_000, 4), "cube": (10, 50, 600), "long rows": (2, N // 2)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_along_axes(shape):
    i, x = numbers("i4").reshape(shape), numbers("f8").reshape(shape)
    for axis in range(-1, len(shape) - 1):
        same(np.cumsum(sa.array(i), axis), np.cumsum(i, axis))
        same(sa.array(i).cumprod(axis), i.cumprod(axis))
        result = np.cumsum(sa.array(x), axis)
        exact = np.cumsum(x.astype(np.longdouble), axis)
        assert np.abs(np.asarray(result) - exact).max() <= np.abs(np.cumsum(x, axis) - exact).max()


def test_what_runs_over_nothing_or_elsewhere_is_numpys():
    same(np.cumsum(sa.zeros((200_000, 0)), 1), np.cumsum(np.zeros((200_000, 0)), 1))
    x = numbers("f8").reshape(500, 600)
    same(np.cumsum(sa.array(x).T, 1), np.cumsum(x.T, 1))
    with pytest.raises(np.exceptions.AxisError):
        np.cumsum(sa.array(x), 2)
