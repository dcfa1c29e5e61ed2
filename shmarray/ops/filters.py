"""Filters with the names, the arguments and the results of scipy.ndimage, over all cores.

float32 arrays are filtered in float32 (scipy: in float64, rounded at the end), all others in float64; the result has
the input's dtype, where integers are cut as scipy cuts them. Arrays that are not C-contiguous are copied first. `out`
takes the place of scipy's `output`, and may be the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shmarray.ops.filter_arguments import FilterCall, by_axis, centre_of, mask_of, weights_of, windows_of
from shmarray.ops.filter_passes import Line, correlate_lines, correlate_taps, moving_windows, rank_taps
from shmarray.ops.networks import selection_network

__all__ = [
    "convolve",
    "correlate",
    "gaussian_filter",
    "laplace",
    "maximum_filter",
    "median_filter",
    "minimum_filter",
    "uniform_filter",
]

Array = np.ndarray[Any, Any]


def gaussian_filter(
    input: Any,
    sigma: float | Sequence[float],
    order: int | Sequence[int] = 0,
    *,
    mode: str | Sequence[str] = "reflect",
    cval: float = 0.0,
    truncate: float = 4.0,
    radius: int | Sequence[int] | None = None,
    out: Any = None,
    **options: Any,
) -> Any:
    """Weights of the normal distribution along each axis, or of its derivatives.

    The last two axes are filtered in one go: what is between them is a row, which stays in the cache.

    Parameters
    ----------
    input : array_like
        Real numbers; any shape with at least one dimension.
    sigma : float or sequence of float
        Standard deviation, for all axes or by axis; 0 leaves an axis alone.
    order : int or sequence of int
        0: smooth; n: the n-th derivative of that.
    mode, cval
        What lies beyond the edges, see :func:`shmarray.stencil`.
    truncate : float
        The weights end at this many standard deviations.
    radius : int or sequence of int, optional
        The weights end at this many elements, instead.
    out : SharedArray, optional
    **options
        `pool`, `progress`, `timeout`, `retries`.

    Returns
    -------
    SharedArray
        Of the input's shape and dtype; `out` if given.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.gaussian_filter(sa.array([0.0, 0.0, 1.0, 0.0, 0.0]), 0.5).round(3)
    SharedArray([0.   , 0.106, 0.787, 0.106, 0.   ])
    """
    call = FilterCall("gaussian_filter", input, mode, cval, out, options)
    n_dims = call.source.ndim
    sigmas, orders = by_axis(sigma, n_dims, "sigma"), by_axis(order, n_dims, "order")
    radii = by_axis(radius, n_dims, "radius")
    lines: list[Line | None] = []
    for deviation, derivative, reach in zip(sigmas, orders, radii, strict=True):
        if deviation < 0 or derivative < 0 or (reach is not None and reach < 0):
            raise ValueError(f"gaussian_filter: sigma {sigma!r}, order {order!r} and radius must not be negative")
        half = int(truncate * float(deviation) + 0.5) if reach is None else int(reach)
        weights = _gaussian_weights(float(deviation), derivative, half) if deviation > 1e-15 else None
        lines.append(None if weights is None else Line(weights, half))
    return call.finish(lambda target: correlate_lines(call, lines, target))


def _gaussian_weights(sigma: float, order: int, radius: int) -> Array:
    """As scipy's: samples of the density, normalised, times the polynomial of the derivative."""
    x = np.arange(-radius, radius + 1)
    density: Array = np.exp(-0.5 / (sigma * sigma) * x**2)
    density /= density.sum()
    if order == 0:
        return density
    # d/dx of p(x) exp(-x**2 / 2 sigma**2) is (p' - p x / sigma**2) times the same.
    polynomial = np.zeros(order + 1)
    polynomial[0] = 1
    powers = np.arange(order + 1)
    step = np.diag(powers[1:], 1) + np.diag(np.ones(order) / -(sigma * sigma), -1)
    for _ in range(order):
        polynomial = step.dot(polynomial)
    weights: Array = ((x[:, None] ** powers).dot(polynomial) * density)[::-1]
    return weights


def uniform_filter(
    input: Any,
    size: int | Sequence[int] = 3,
    *,
    mode: str | Sequence[str] = "reflect",
    cval: float = 0.0,
    origin: int | Sequence[int] = 0,
    out: Any = None,
    **options: Any,
) -> Any:
    """The mean of a box around each element; see :func:`gaussian_filter` for what all filters take.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.uniform_filter(sa.array([0.0, 3.0, 6.0, 0.0]))
    SharedArray([1., 3., 3., 2.])
    """
    call = FilterCall("uniform_filter", input, mode, cval, out, options)
    windows = windows_of(call, size, origin)
    return call.finish(lambda target: moving_windows(call, "moving_mean", windows, target, np.dtype(np.float64)))


def minimum_filter(
    input: Any,
    size: int | Sequence[int] | None = None,
    *,
    footprint: Any = None,
    mode: str | Sequence[str] = "reflect",
    cval: float = 0.0,
    origin: int | Sequence[int] = 0,
    out: Any = None,
    **options: Any,
) -> Any:
    """The least of a box, or of the elements under a footprint; nan where there is one in the box.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.minimum_filter(sa.array([4, 2, 5, 9]), 3)
    SharedArray([2, 2, 2, 5])
    """
    call = FilterCall("minimum_filter", input, mode, cval, out, options)
    return _extreme(call, "moving_min", size, footprint, origin)


def maximum_filter(
    input: Any,
    size: int | Sequence[int] | None = None,
    *,
    footprint: Any = None,
    mode: str | Sequence[str] = "reflect",
    cval: float = 0.0,
    origin: int | Sequence[int] = 0,
    out: Any = None,
    **options: Any,
) -> Any:
    """The greatest of a box, or of the elements under a footprint; nan where there is one in the box.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.maximum_filter(sa.array([4, 2, 5, 9]), 3)
    SharedArray([4, 5, 9, 9])
    """
    call = FilterCall("maximum_filter", input, mode, cval, out, options)
    return _extreme(call, "moving_max", size, footprint, origin)


def _extreme(call: FilterCall, kernel: str, size: Any, footprint: Any, origin: Any) -> Any:
    mask = mask_of(call, size, footprint)
    if mask.all():
        windows = windows_of(call, mask.shape, origin)
        return call.finish(lambda target: moving_windows(call, kernel, windows, target, call.source.dtype))
    return _ranked(call, mask, 0 if kernel == "moving_min" else int(mask.sum()) - 1, origin)


def median_filter(
    input: Any,
    size: int | Sequence[int] | None = None,
    *,
    footprint: Any = None,
    mode: str | Sequence[str] = "reflect",
    cval: float = 0.0,
    origin: int | Sequence[int] = 0,
    out: Any = None,
    **options: Any,
) -> Any:
    """The median of a box, or of the elements under a footprint (of an even number the upper one, as scipy's).

    Made by a sorting network, which costs about `n log(n)**2 / 4` steps for `n` elements, each for as many neighbours
    at once as fit a vector. Around nans the result is not defined.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.median_filter(sa.array([4, 2, 5, 9]), 3)
    SharedArray([4, 4, 5, 9])
    """
    call = FilterCall("median_filter", input, mode, cval, out, options)
    mask = mask_of(call, size, footprint)
    return _ranked(call, mask, int(mask.sum()) // 2, origin)


def _ranked(call: FilterCall, mask: Array, rank: int, origin: Any) -> Any:
    taps = np.argwhere(mask) - centre_of(call, mask.shape, origin)
    exchanges = selection_network(len(taps), rank)
    return call.finish(lambda target: rank_taps(call, taps, exchanges, rank, target))


def correlate(
    input: Any,
    weights: Any,
    *,
    mode: str | Sequence[str] = "reflect",
    cval: float = 0.0,
    origin: int | Sequence[int] = 0,
    out: Any = None,
    **options: Any,
) -> Any:
    """The weighted sum of the elements around each; `weights` has as many dimensions as the array, and real numbers.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.correlate(sa.array([1.0, 2.0, 4.0]), [-1, 0, 1])
    SharedArray([1., 3., 2.])
    """
    call = FilterCall("correlate", input, mode, cval, out, options)
    kernel = weights_of(call, weights)
    return _weighted(call, kernel, centre_of(call, kernel.shape, origin))


def convolve(
    input: Any,
    weights: Any,
    *,
    mode: str | Sequence[str] = "reflect",
    cval: float = 0.0,
    origin: int | Sequence[int] = 0,
    out: Any = None,
    **options: Any,
) -> Any:
    """The same with the weights reversed along each axis.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.convolve(sa.array([1.0, 2.0, 4.0]), [-1, 0, 1])
    SharedArray([-1., -3., -2.])
    """
    call = FilterCall("convolve", input, mode, cval, out, options)
    kernel = weights_of(call, weights)
    centre = np.array(kernel.shape) - 1 - centre_of(call, kernel.shape, origin)
    return _weighted(call, np.flip(kernel), centre)


def _weighted(call: FilterCall, kernel: Array, centre: Array) -> Any:
    if call.source.ndim == 1:
        line = Line(kernel, int(centre[0]))
        return call.finish(lambda target: correlate_lines(call, [line], target))
    taps = np.argwhere(kernel != 0) - centre
    if np.isnan(kernel).any() or len(taps) == 0:
        taps = np.argwhere(np.ones(kernel.shape)) - centre
        values = kernel.ravel()
    else:
        values = kernel[kernel != 0]
    return call.finish(lambda target: correlate_taps(call, taps, values, target))


def laplace(
    input: Any, *, mode: str | Sequence[str] = "reflect", cval: float = 0.0, out: Any = None, **options: Any
) -> Any:
    """The sum of the second differences along all axes.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.laplace(sa.array([0.0, 1.0, 4.0, 9.0]))
    SharedArray([ 1.,  2.,  2., -5.])
    """
    call = FilterCall("laplace", input, mode, cval, out, options)
    n_dims = call.source.ndim
    kernel = np.zeros((3,) * n_dims)
    for axis in range(n_dims):
        for side in (0, 2):
            kernel[tuple(side if d == axis else 1 for d in range(n_dims))] = 1
    kernel[(1,) * n_dims] = -2 * n_dims
    return _weighted(call, kernel, np.ones(n_dims, int))
