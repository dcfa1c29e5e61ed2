"""Medians and quantiles of large SharedArrays: NumPy's, to the bit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import shmarray as sa

from .comparison import N, numbers, same


def test_median_and_quantiles():
    for n in (N, N - 1):
        for x in (np.round(numbers("f8")[:n], 2), np.full(n, 2.0), numbers("i8")[:n]):
            a = sa.array(x)
            same(np.median(a), np.median(x))
            for q in (0, 0.25, 1 / 3, 1.0, [0.0, 0.5, 0.999]):
                same(np.quantile(a, q), np.quantile(x, q))
            same(np.percentile(a, [1, 99.9]), np.percentile(x, [1, 99.9]))
    x = numbers("f8", special=True)
    with np.errstate(invalid="ignore"):
        same(np.median(sa.array(x)), np.median(x))
        same(np.quantile(sa.array(x), [0.1, 0.2]), np.quantile(x, [0.1, 0.2]))
    with pytest.raises(ValueError, match="range"):
        np.quantile(a, 1.5)


ROWS, SHORT_ROWS, CUBE = (30, 10_000), (3750, 40), (100, 30, 50)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [(ROWS, "numbers"), (ROWS, "with nan"), (SHORT_ROWS, "equal"), (CUBE, "integers"), (CUBE, "with nan")],
)
def test_along_axes(shape, kind):
    x = numbers("i8" if kind == "integers" else "f8")[: np.prod(shape)].reshape(shape)
    if kind == "with nan":
        x.ravel()[::97] = np.nan
    elif kind == "equal":
        x = np.round(x)
    a = sa.array(x)
    for axis in (0, -1, (0, 1)):
        same(np.median(a, axis), np.median(x, axis))
        same(np.median(a, axis, keepdims=True), np.median(x, axis, keepdims=True))
        q = [0.0, 1 / 3, 0.9]
        same(np.quantile(a, q, axis, keepdims=True), np.quantile(x, q, axis, keepdims=True))
        same(np.percentile(a, 40, axis), np.percentile(x, 40, axis))


def test_single_precision_has_its_own_medians_and_quantiles():
    x = numbers("f4").reshape(300, 1000)
    same(np.median(sa.array(x), 1), np.median(x, 1))
    same(np.nanmedian(sa.array(x), 0), np.nanmedian(x, 0))
    for q in (0, 0.3, np.float64(0.3), [0.1, 0.9]):  # a number of Python's leaves float32 what it is
        for axis in (None, 1):
            same(np.quantile(sa.array(x), q, axis), np.quantile(x, q, axis))
            same(np.nanpercentile(sa.array(x), q, axis), np.nanpercentile(x, q, axis))
    x[7, 7] = np.nan
    for q in (0.3, np.float64(0.3), [0.1, 0.9]):
        for axis in (None, 1):
            same(np.quantile(sa.array(x), q, axis), np.quantile(x, q, axis))


def test_nan_is_left_out():
    x = numbers("f8", special=True)
    x.reshape(30, -1)[3] = 2.0
    a = sa.array(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # infinities that meet
        for axis, shape in ((None, (N,)), (-1, (30, 10_000)), (0, (100, 3000)), ((0, 2), (10, 30, 1000))):
            b, y = a.reshape(shape), x.reshape(shape)
            same(np.nanmedian(b, axis), np.nanmedian(y, axis))
        b, y = a.reshape(30, -1), x.reshape(30, -1)
        same(np.nanquantile(b, [0.2, 0.5], 1), np.nanquantile(y, [0.2, 0.5], 1))
        same(np.nanpercentile(a, 15), np.nanpercentile(x, 15))
    y[5] = np.nan
    b = sa.array(y)
    with pytest.warns(RuntimeWarning, match="All-NaN"):
        assert np.isnan(np.nanmedian(b, 1)[5])


def test_long_rows_go_one_after_another():
    x = np.tile(numbers("f8"), 4).reshape(4, -1)
    x[1, 7:9] = np.nan
    a = sa.array(x)
    same(np.median(a, 1), np.median(x, 1))
    same(np.nanquantile(a, 0.3, 1), np.nanquantile(x, 0.3, 1))


def test_empty_axes_are_numpys():
    a = sa.zeros((200_000, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, two of them
        assert np.isnan(np.median(a, 1)).all()
    out = sa.empty(3)
    x = numbers("f8").reshape(3, -1)
    assert np.median(sa.array(x), 1, out=out) is out
    np.testing.assert_array_equal(out, np.median(x, 1))
