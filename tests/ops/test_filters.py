"""Filters give scipy.ndimage's results, rolling windows NumPy's, at every edge and for any number of workers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import shmarray as sa
from shmarray.ops.networks import selection_network

FIVE = ["reflect", "constant", "nearest", "mirror", "wrap"]
SHAPES = [(1, 1), (3, 2), (37, 41), (50,), (4, 6, 7)]


def same(result, expected, *, rtol=1e-12) -> None:
    assert isinstance(result, sa.SharedArray)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=rtol * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_filters_equal_scipy(shape) -> None:
    for mode in FIVE:
        filters_equal_scipy(shape, {"mode": mode, "cval": 0.5})


def filters_equal_scipy(shape, edges) -> None:
    x = np.random.default_rng(0).random(shape)
    a = sa.array(x)
    ops = sa.ops
    same(ops.gaussian_filter(a, 2, **edges), ndimage.gaussian_filter(x, 2, **edges))
    same(ops.gaussian_filter(a, 0.8, order=1, **edges), ndimage.gaussian_filter(x, 0.8, order=1, **edges))
    same(ops.laplace(a, **edges), ndimage.laplace(x, **edges))
    for size, origin in ((4, -1), (5, 0)):
        more = {**edges, "origin": origin}
        same(ops.uniform_filter(a, size, **more), ndimage.uniform_filter(x, size, **more))
        same(ops.minimum_filter(a, size, **more), ndimage.minimum_filter(x, size, **more))
        same(ops.maximum_filter(a, size, **more), ndimage.maximum_filter(x, size, **more))
    weights = np.random.default_rng(1).standard_normal((3, 4, 5)[: len(shape)])
    for origin in (0, -1):
        more = {**edges, "origin": origin}
        same(ops.correlate(a, weights, **more), ndimage.correlate(x, weights, **more))
        same(ops.convolve(a, weights, **more), ndimage.convolve(x, weights, **more))
    same(ops.median_filter(a, 3, **edges), ndimage.median_filter(x, 3, **edges))
    footprint = np.ones((4, 3, 2)[: len(shape)], bool)
    footprint[(0,) * len(shape)] = False
    # Of one dimension more: for one alone, scipy 1.17's median_filter takes a footprint for a box.
    more = {**edges, "footprint": footprint[None]}
    for name in ("median_filter", "minimum_filter", "maximum_filter"):
        expected = getattr(ndimage, name)(x[None], **more)[0]
        same(getattr(ops, name)(a, footprint=footprint, **edges), expected)


def test_a_setting_for_each_axis() -> None:
    x = np.random.default_rng(2).random((9, 12))
    a = sa.array(x)
    modes = ["wrap", "nearest"]
    for sigma in ((1, 0), (0, 1.5), (2, 0.5), (0, 0)):
        same(sa.ops.gaussian_filter(a, sigma, mode=modes), ndimage.gaussian_filter(x, sigma, mode=modes))
    same(sa.ops.uniform_filter(a, (1, 3), mode=modes), ndimage.uniform_filter(x, (1, 3), mode=modes))
    same(sa.ops.maximum_filter(a, (3, 1), mode=modes), ndimage.maximum_filter(x, (3, 1), mode=modes))
    same(sa.ops.gaussian_filter(a, 1, radius=2), ndimage.gaussian_filter(x, 1, radius=2))


def test_integers_are_cut_as_scipy_cuts_them() -> None:
    x = np.random.default_rng(3).integers(0, 200, (20, 23)).astype(np.uint8)
    a = sa.array(x)
    for result, expected in (
        (sa.ops.gaussian_filter(a, 1.3), ndimage.gaussian_filter(x, 1.3)),
        (sa.ops.uniform_filter(a, 3), ndimage.uniform_filter(x, 3)),
        (sa.ops.minimum_filter(a, 3), ndimage.minimum_filter(x, 3)),
        (sa.ops.correlate(a, np.ones((2, 2)) / 4), ndimage.correlate(x, np.ones((2, 2)) / 4)),
    ):
        np.testing.assert_array_equal(result, expected)
        assert result.dtype == np.uint8
    mask, weights = x > 20, np.full((2, 2), 0.3)  # less than one is False
    np.testing.assert_array_equal(sa.ops.correlate(sa.array(mask), weights), ndimage.correlate(mask, weights))


def test_float32_stays_float32() -> None:
    x = np.random.default_rng(4).random((31, 33), dtype=np.float32)
    same(sa.ops.gaussian_filter(sa.array(x), 3), ndimage.gaussian_filter(x, 3), rtol=3e-7)


def test_layouts_outputs_and_in_place() -> None:
    x = np.random.default_rng(5).random((12, 14))
    expected = ndimage.gaussian_filter(x, 1)
    same(sa.ops.gaussian_filter(x, 1), expected)
    same(sa.ops.gaussian_filter(sa.array(x.T.copy()).T, 1), expected)
    same(sa.ops.gaussian_filter(sa.array(np.repeat(x, 2, axis=1))[:, ::2], 1), expected)
    a = sa.array(x)
    assert sa.ops.gaussian_filter(a, 1, out=a) is a
    same(a, expected)
    out = sa.zeros((14, 12), dtype="float32").T
    assert sa.ops.gaussian_filter(sa.array(x), 1, out=out) is out
    np.testing.assert_array_equal(out, expected.astype("float32"))


def test_the_bits_do_not_depend_on_chunks_or_workers(everywhere, pool) -> None:
    x = sa.array(np.random.default_rng(6).random((60, 50)))
    long = sa.array(np.random.default_rng(6).random(5000))

    def all_of_them(**more) -> bytes:
        ops = sa.ops
        results = [
            ops.gaussian_filter(x, 1.5, **more),
            ops.uniform_filter(x, 7, **more),
            ops.median_filter(x, 3, **more),
            ops.correlate(x, np.ones((3, 3)) / 9, **more),
            *(ops.rolling_sum(long, window, **more) for window in (7, 300)),
            ops.rolling_std(long, 300, **more),
        ]
        return b"".join(result.tobytes() for result in results)

    with sa.config.override(parallel_nbytes=1 << 40):
        alone = all_of_them()
    with sa.pool.Pool(5) as workers, sa.config.override(chunk_nbytes=2000):
        assert all_of_them(pool=pool) == alone
        assert all_of_them(pool=workers) == alone


@pytest.mark.parametrize("axis", [0, -1])
def test_rolling_windows_equal_numpy(axis) -> None:
    x = np.random.default_rng(7).standard_normal((30, 33, 2))[:, :, 0 if axis else slice(None)]
    a = sa.array(x)
    for window in (1, 2, 7, 30):
        views = np.lib.stride_tricks.sliding_window_view(x, window, axis)
        for name in ("sum", "mean", "std", "min", "max"):
            same(getattr(sa.ops, f"rolling_{name}")(a, window, axis=axis), getattr(views, name)(-1))
        if window > 1:
            same(sa.ops.rolling_std(a, window, axis=axis, ddof=1), views.std(-1, ddof=1))


def test_rolling_windows_do_not_spoil_each_other() -> None:
    x = np.ones(100)
    x[40], x[70] = np.nan, 1e300
    sums = sa.ops.rolling_sum(sa.array(x), 8)
    assert np.isnan(sums[33:41]).all()
    np.testing.assert_array_equal(sums[:33], 8)
    np.testing.assert_array_equal(sums[71:], 8)
    least = sa.ops.rolling_min(sa.array(x), 8)
    assert np.isnan(least[33:41]).all()
    assert np.isnan(least).sum() == 8
    noise = np.random.default_rng(8).standard_normal(500)
    np.testing.assert_allclose(
        sa.ops.rolling_std(sa.array(1e9 + noise), 50),
        np.lib.stride_tricks.sliding_window_view(1e9 + noise, 50).std(-1),
        rtol=1e-6,
    )


def test_rolling_over_integers_and_into_an_output() -> None:
    x = np.arange(20, dtype=np.uint8)
    result = sa.ops.rolling_sum(sa.array(x), 3)
    assert result.dtype == np.uint64
    np.testing.assert_array_equal(result, np.arange(18) * 3 + 3)
    out = sa.zeros(18, dtype="float32")
    assert sa.ops.rolling_sum(sa.array(x), 3, out=out) is out
    np.testing.assert_array_equal(out, result)
    assert sa.ops.rolling_sum(sa.zeros((0, 5)), 2).shape == (0, 4)


@pytest.mark.parametrize("edge_order", [1, 2])
def test_gradient_has_numpys_bits(edge_order) -> None:
    x = np.random.default_rng(9).random((13, 17))
    a = sa.array(x)
    for result, expected in zip(
        sa.ops.gradient(a, 0.3, 2, edge_order=edge_order), np.gradient(x, 0.3, 2, edge_order=edge_order), strict=True
    ):
        assert isinstance(result, sa.SharedArray)
        np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(
        sa.ops.gradient(a, axis=1, edge_order=edge_order), np.gradient(x, axis=1, edge_order=edge_order)
    )
    at = np.cumsum(np.random.default_rng(10).random(13))
    np.testing.assert_array_equal(sa.ops.gradient(a, at, axis=0), np.gradient(x, at, axis=0))
    np.testing.assert_array_equal(sa.ops.gradient(sa.array([1, 2, 4])), np.gradient(np.array([1, 2, 4])))


def test_selection_networks_select() -> None:
    random = np.random.default_rng(11)
    for count in (1, 2, 3, 6, 9, 16, 25, 33):
        for rank in {0, count // 2, count - 1}:
            values = random.integers(0, 9, (count, 200))
            expected = np.sort(values, axis=0)[rank]
            for low, high in selection_network(count, rank):
                values[low], values[high] = np.minimum(values[low], values[high]), np.maximum(values[low], values[high])
            np.testing.assert_array_equal(values[rank], expected)


def test_what_is_refused() -> None:
    a = sa.array(np.eye(4))
    with pytest.raises(ValueError, match="mode must be one of"):
        sa.ops.gaussian_filter(a, 1, mode="symmetric")
    with pytest.raises(ValueError, match="sigma must be one value, or one for each of 2"):
        sa.ops.gaussian_filter(a, (1, 2, 3))
    with pytest.raises(TypeError, match="got dtype complex128"):
        sa.ops.gaussian_filter(a * 1j, 1)
    with pytest.raises(ValueError, match="size or footprint"):
        sa.ops.median_filter(a)
    with pytest.raises(ValueError, match="lies outside the filter"):
        sa.ops.uniform_filter(a, 3, origin=2)
    with pytest.raises(ValueError, match="weights must have the array's 2 dimensions"):
        sa.ops.correlate(a, [1.0, 2.0])
    with pytest.raises(ValueError, match="out has shape"):
        sa.ops.laplace(a, out=sa.zeros(3))
    with pytest.raises(TypeError, match="out must be a SharedArray"):
        sa.ops.laplace(a, out=np.zeros((4, 4)))
    with pytest.raises(ValueError, match="window must be from 1 to the axis's extent, 4; got 5"):
        sa.ops.rolling_sum(a, 5)
    with pytest.raises(ValueError, match="ddof must be less than the window"):
        sa.ops.rolling_std(a, 2, ddof=2)
    assert sa.ops.gaussian_filter(sa.zeros((0, 3)), 1).shape == (0, 3)
