"""`ufunc.reduce` in parts: NumPy's values, the same bits however it is run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import shmarray as sa
from shmarray import engine

_SHAPES = [(300_000,), (500, 600), (3, 200, 500), (300, 400, 3)]


_CASES = [
    (shape, axis)
    for shape in _SHAPES
    for axis in (None, *range(len(shape)), *itertools.combinations(range(len(shape)), 2))
]


@pytest.mark.parametrize(("shape", "axis"), _CASES)
def test_values_are_numpys_and_bits_do_not_depend_on_how_it_runs(shape, axis):
    plain = np.random.default_rng(1).standard_normal(shape)
    array = sa.array(plain)
    for function in (np.max, np.min):
        np.testing.assert_array_equal(function(array, axis=axis), function(plain, axis=axis))
    results = []
    for parallel_nbytes in (0, 1 << 40):
        with sa.config.override(parallel_nbytes=parallel_nbytes):
            results.append((np.sum(array, axis=axis), array.mean(axis=axis, keepdims=True), array.std(axis=axis)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(results[0][0], plain.sum(axis=axis), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(results[0][2], plain.std(axis=axis), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", "f4", "c16", "?"])
def test_dtypes_of_sums_and_products_are_numpys(dtype):
    plain = (np.random.default_rng(2).random(200_000) * 2).astype(dtype)
    array = sa.array(plain)
    for reduce in (np.add.reduce, np.multiply.reduce, np.logical_or.reduce):
        assert reduce(array).dtype == reduce(plain).dtype
    if plain.dtype.kind != "c":
        assert np.add.reduce(array, dtype="f8").dtype == np.float64
    np.testing.assert_allclose(array.sum(dtype="c16"), plain.sum(dtype="c16"))


def test_nan_spreads_and_an_overflow_warns_once():
    array = sa.ones(300_000, dtype="f4")
    array[200_001] = np.nan
    assert np.isnan(array.max())
    array[:] = 3e38
    with pytest.warns(RuntimeWarning, match="overflow encountered in reduce") as caught:
        assert np.isinf(array.sum())
    assert len(caught) == 1
    # Not through `array.sum()`: NumPy (2.4) never lets go of the array when an overridden reduce raises.
    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
        engine.reduce_ufunc(np.add, array.view(np.ndarray), axis=None)


def test_out_takes_the_result_and_initial_goes_to_numpy():
    plain = np.arange(400_000.0).reshape(200, 2000)
    array, out = sa.array(plain), sa.empty(2000)
    assert np.sum(array, axis=0, out=out) is out
    np.testing.assert_array_equal(out, plain.sum(axis=0))
    assert np.sum(array, initial=1.0) == plain.sum(initial=1.0)
    assert np.max(array, where=plain < 100, initial=-1) == 99
