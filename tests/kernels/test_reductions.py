"""Reductions of blocks, and of halves combined, against NumPy and exact sums."""

from __future__ import annotations

import math
import warnings

import numba
import numpy as np
import pytest

from shmarray.kernels import reductions

SIZES = [1, 2, 255, 257, 1023, 1024, 5000, 16384, 40001]
FLOATS = [np.float32, np.float64]
FEW = [np.int32, *FLOATS]  # each costs a compilation
DTYPES = [np.bool_, np.int32, np.uint64, *FLOATS]


def _data(dtype, size, *, nans=False):
    rng = np.random.default_rng(size)
    x = (rng.standard_normal(size) * 40 + 60).clip(0, 120).astype(dtype)
    if nans:
        x[rng.integers(0, size, size // 10 + 1)] = np.nan
    return x


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_integers_are_exact_and_of_floats_close(dtype):
    for size in SIZES:
        x = _data(dtype, size)
        got = reductions.block_sum(x)
        if np.issubdtype(dtype, np.floating):
            exact = math.fsum(x.tolist())
            assert abs(got - exact) <= 4 * np.spacing(abs(exact))
        else:
            assert got == x.sum()


@pytest.mark.parametrize("name", ["sum", "prod"])
def test_large_unsigned_integers_are_not_taken_for_floats(name):
    x = np.array([2**63 + 1, 1], np.uint64)
    block = getattr(reductions, f"block_{name}")
    assert int(block(x)) == int(getattr(x, name)())
    assert isinstance(block(x), int)


def test_sums_lose_no_more_than_pairwise_ones_where_terms_cancel():
    rng = np.random.default_rng(3)
    x = rng.standard_normal(200_000) * 10.0 ** rng.integers(0, 12, 200_000)
    exact = math.fsum(x)
    assert abs(reductions.block_sum(x) - exact) <= max(abs(x.sum() - exact), np.spacing(np.abs(x).sum()))


def test_sums_keep_infinities_nan_and_the_sign_of_zero():
    assert reductions.block_sum(np.array([1.0, np.inf])) == np.inf
    assert np.isnan(reductions.block_sum(np.array([np.inf, -np.inf])))
    assert np.isnan(reductions.block_sum(np.array([1.0, np.nan])))
    assert np.signbit(reductions.block_sum(np.array([-0.0, -0.0])))
    assert not np.signbit(reductions.block_sum(np.array([-0.0, 0.0])))


def test_empty_blocks_give_the_identity():
    empty = np.empty(0)
    assert reductions.block_sum(empty) == 0.0
    assert not np.signbit(reductions.block_sum(empty))
    assert reductions.block_prod(empty) == 1.0
    assert reductions.block_moments(empty) == (0, 0.0, 0.0)
    assert reductions.block_count_nonzero(empty) == 0
    assert not reductions.block_any(empty)
    assert reductions.block_all(empty)


@pytest.mark.parametrize("name", ["min", "max", "nanmin", "nanmax", "argmin", "argmax"])
def test_extrema_of_an_empty_block_are_refused(name):
    with pytest.raises(ValueError, match="empty block"):
        getattr(reductions, f"block_{name}")(np.empty(0))


@pytest.mark.parametrize("dtype", [np.uint64, np.float32])
def test_products_follow_numpy(dtype):
    x = (np.random.default_rng(1).integers(1, 3, 50)).astype(dtype)
    got = reductions.block_prod(x)
    assert got == x.astype(np.float64 if dtype is np.float32 else dtype).prod()


@pytest.mark.parametrize("dtype", FEW)
def test_extrema_and_their_places_are_numpy_s(dtype):
    for size in SIZES:
        x = _data(dtype, size)
        assert reductions.block_min(x) == x.min()
        assert reductions.block_max(x) == x.max()
        if dtype is not np.float32:
            assert reductions.block_argmin(x) == (x.min(), x.argmin())
            assert reductions.block_argmax(x) == (x.max(), x.argmax())


def test_a_nan_anywhere_is_the_extremum_and_the_first_one_has_the_index():
    for size in (5, 1000, 40001):
        for place in {0, size // 2, size - 1}:
            single = _data(np.float32, size)
            single[place] = np.nan
            assert np.isnan([reductions.block_min(single), reductions.block_max(single)]).all()
            x = _data(np.float64, size)
            x[[place, size - 1]] = np.nan
            for name in ("min", "max"):
                assert np.isnan(getattr(reductions, f"block_{name}")(x))
                assert getattr(reductions, f"block_arg{name}")(x)[1] == place
                assert getattr(reductions, f"block_nan{name}")(x) == getattr(np, f"nan{name}")(x)


def test_nan_variants_leave_nan_out():
    single = _data(np.float32, 40001, nans=True)
    np.testing.assert_allclose(reductions.block_nansum(single), np.nansum(single.astype(np.float64)), rtol=1e-14)
    x = _data(np.float64, 40001, nans=True)
    np.testing.assert_allclose(reductions.block_nansum(x), np.nansum(x), rtol=1e-14)
    count, mean, spread = reductions.block_nanmoments(x)
    assert count == np.count_nonzero(~np.isnan(x))
    np.testing.assert_allclose([mean, spread / count], [np.nanmean(x), np.nanvar(x)], rtol=1e-12)
    np.testing.assert_allclose(reductions.block_nanprod(x[:5] / 40), np.nanprod(x[:5] / 40), rtol=1e-6)
    nothing = np.full(3, np.nan)
    assert reductions.block_nanmoments(nothing) == (0, 0.0, 0.0)
    assert np.isnan(reductions.block_nanmin(nothing))


@pytest.mark.parametrize("dtype", FEW)
def test_moments_give_numpy_s_mean_and_variance(dtype):
    for size in SIZES:
        x = _data(dtype, size)
        moments = reductions.block_moments(x)
        wide = x.astype(np.float64)
        assert moments[0] == size
        np.testing.assert_allclose(moments[1], wide.mean(), rtol=1e-14)
        np.testing.assert_allclose(reductions.variance(moments, 0), wide.var(), rtol=1e-12)
    assert np.isnan(reductions.variance((1, 2.0, 0.0), 1))


def test_variance_survives_a_large_offset():
    x = np.random.default_rng(5).standard_normal(50_000) + 1e9
    exact = np.var(x.astype(np.longdouble))
    np.testing.assert_allclose(reductions.variance(reductions.block_moments(x), 0), float(exact), rtol=1e-10)


def test_counting_and_logic():
    for dtype in (np.bool_, np.float64):
        x = _data(dtype, 40001)
        x[::3] = 0
        assert reductions.block_count_nonzero(x) == np.count_nonzero(x)
        assert reductions.block_any(x)
        assert not reductions.block_all(x)
        assert not reductions.block_any(np.zeros(40001, dtype))
        assert reductions.block_all(np.ones(40001, dtype))
    assert reductions.block_all(np.array([np.nan, 1.0]))


def test_sum_of_squares_is_the_square_of_the_norm():
    x = _data(np.float64, 5000)
    np.testing.assert_allclose(reductions.block_sum_of_squares(x), np.linalg.norm(x) ** 2, rtol=1e-13)


def test_strided_and_reversed_blocks_give_the_bits_of_contiguous_ones():
    x = _data(np.float64, 40001)
    for view in (x[::2], x[::-1], x[::-3]):
        copy = np.ascontiguousarray(view)
        assert reductions.block_sum(view) == reductions.block_sum(copy)
        assert reductions.block_argmax(view) == reductions.block_argmax(copy)


@pytest.mark.parametrize("cut", [1, 300, 20000, 40000])
def test_partials_of_two_halves_combine_to_the_whole(cut):
    x = _data(np.float64, 40001)
    left, right = x[:cut], x[cut:]
    for name in ("min", "max", "nanmin", "nanmax", "any", "all"):
        block = getattr(reductions, f"block_{name}")
        combined = getattr(reductions, f"combine_{name}")(block(left), block(right))
        assert combined == block(x)
    for name in ("argmin", "argmax"):
        block = getattr(reductions, f"block_{name}")
        value, index = block(right)
        combined = getattr(reductions, f"combine_{name}")(block(left), (value, index + cut))
        assert combined == block(x)
    total = reductions.combine_sum(reductions.block_sum(left), reductions.block_sum(right))
    np.testing.assert_allclose(total, x.sum(), rtol=1e-14)
    moments = reductions.combine_moments(reductions.block_moments(left), reductions.block_moments(right))
    np.testing.assert_allclose(moments, reductions.block_moments(x), rtol=1e-12)
    nothing = (0, 0.0, 0.0)
    assert reductions.combine_moments(nothing, moments) == moments
    assert reductions.combine_moments(moments, nothing) == moments


def test_equal_extrema_keep_the_left_index_and_nan_wins():
    assert reductions.combine_argmin((1.0, 3), (1.0, 9)) == (1.0, 3)
    assert reductions.combine_argmax((1.0, 3), (1.0, 9)) == (1.0, 3)
    assert reductions.combine_argmin((1.0, 3), (np.nan, 9))[1] == 9
    assert reductions.combine_argmax((np.nan, 3), (np.nan, 9))[1] == 3


def test_blocks_are_callable_from_compiled_code():
    block_sum, combine_sum = reductions.block_sum, reductions.combine_sum

    @numba.njit
    def total(x):
        return combine_sum(block_sum(x[:7]), block_sum(x[7:]))

    assert total(np.arange(20)) == 190


def test_complex_sums_are_numpy_s():
    x = _data(np.float64, 5000) + 1j * _data(np.float64, 5000)[::-1]
    np.testing.assert_allclose(reductions.block_sum(x), x.sum(), rtol=1e-14)


def test_no_warning_escapes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reductions.block_prod(np.full(2000, 10.0))
