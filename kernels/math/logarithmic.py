"""log, log2, log10, log1p: the exponent, and a series for the rest.

`x = m 2**k` with `m` in [sqrt(1/2), sqrt(2)), so `log x = k log 2 + log m`. With `f = m - 1` and `s = f / (2
+ f)`, `log m = log((1 + s) / (1 - s)) = 2 s + s R(s**2)`, which equals `f - f**2/2 + s (f**2/2 + R)` (the
arrangement of FreeBSD's msun, e_log.c, after K. C. Ng): the large terms are exact or nearly, and every
rounding error falls on a small one. Here `f - f**2/2` is kept as a sum of two numbers, so that all four
functions add their parts with one final rounding.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ._bits import exponent, fma, mantissa, polynomial, power_of_two, select
from ._formats import Format
from ._publish import formula, publish

__all__ = ["log", "log1p", "log2", "log10"]


@formula
def split(fmt: Format) -> Callable[..., Any]:
    """`x -> (k, f)` with `x = (1 + f) 2**k`, subnormals included."""
    smallest, zero, one = fmt.smallest_normal, *fmt.constants(0.0, 1.0)
    up, bits = fmt.constants(2.0 ** (fmt.digits + 1), fmt.digits + 1.0)

    def split(x):
        small = x < smallest
        x = select(small, x * up, x)
        return exponent(x) - select(small, bits, zero), mantissa(x) - one

    return split


@formula
def _log_of_one_plus(fmt: Format) -> Callable[..., Any]:
    """`f -> (high, low, s)`, the logarithm of `1 + f` and `f / (2 + f)`, for `1 + f` in [sqrt(1/2), sqrt(2))."""
    half, two = fmt.constants(0.5, 2.0)
    coefficients = fmt.polynomial("log")

    def log_of_one_plus(f):
        s = f / (two + f)
        z = s * s
        half_f = half * f
        square = half_f * f
        square_error = fma(half_f, f, -square)
        high = f - square
        low = ((f - high) - square) - square_error
        return high, fma(s, fma(z, polynomial(z, coefficients), square), low), s

    return log_of_one_plus


@formula
def log_of_one_plus(fmt: Format) -> Callable[..., Any]:
    """`(f, extra) -> (high, low)`, the logarithm of `1 + f + extra` for a tiny `extra`."""
    one, two = fmt.constants(1.0, 2.0)
    series = _log_of_one_plus(fmt)

    def log_of_one_plus(f, extra):
        high, low, s = series(f)
        return high, fma(extra, one - two * s, low)

    return log_of_one_plus


@formula
def combine(fmt: Format) -> Callable[..., Any]:
    """`(k, high, low) -> k ln 2 + high + low`."""
    ln2_high, ln2_low = fmt.short_parts("ln2")

    def combine(k, high, low):
        whole = k * ln2_high
        total = whole + high
        return total + (((whole - total) + high) + fma(k, ln2_low, low))

    return combine


@formula
def bounded(fmt: Format) -> Callable[..., Any]:
    """A logarithm's value at the edges: -inf at zero, nan below, inf at inf."""
    zero, inf, minus_inf, nan = fmt.constants(0.0, math.inf, -math.inf, math.nan)

    def bounded(x, result):
        result = select(x == inf, inf, result)
        return select(x > zero, result, select(x == zero, minus_inf, nan))

    return bounded


@formula
def natural_log(fmt: Format) -> Callable[..., Any]:
    parts, series, total, edges = split(fmt), _log_of_one_plus(fmt), combine(fmt), bounded(fmt)

    def log(x):
        k, f = parts(x)
        high, low, _ = series(f)
        return edges(x, total(k, high, low))

    return log


@formula
def _log2(fmt: Format) -> Callable[..., Any]:
    factor, factor_low = fmt.parts("log2e", 2)
    parts, series, edges = split(fmt), _log_of_one_plus(fmt), bounded(fmt)

    def log2(x):
        k, f = parts(x)
        high, low, _ = series(f)
        main = high * factor
        rest = fma(high, factor_low, fma(low, factor, fma(high, factor, -main)))
        total = k + main
        return edges(x, total + (((k - total) + main) + rest))

    return log2


@formula
def _log10(fmt: Format) -> Callable[..., Any]:
    factor, factor_low = fmt.parts("log10e", 2)
    step, step_low = fmt.short_parts("log10_2")
    parts, series, edges = split(fmt), _log_of_one_plus(fmt), bounded(fmt)

    def log10(x):
        k, f = parts(x)
        high, low, _ = series(f)
        main = high * factor
        rest = fma(high, factor_low, fma(low, factor, fma(high, factor, -main)))
        whole = k * step
        total = whole + main
        return edges(x, total + (((whole - total) + main) + fma(k, step_low, rest)))

    return log10


@formula
def log_of_sum(fmt: Format) -> Callable[..., Any]:
    """`(u, error) -> log(u + error)` for a normal `u` and an `error` around its last bit."""
    zero, one, shift, huge = fmt.constants(0.0, 1.0, fmt.shift, 2.0 ** (2 * fmt.digits))
    series, total = log_of_one_plus(fmt), combine(fmt)

    def log_of_sum(u, error):
        k = exponent(u)
        # Scaled as the mantissa is, the error joins f. Where u is huge its scale is no normal number and it
        # is nothing.
        scaled = error * select(u < huge, power_of_two(shift - k), zero)
        start = mantissa(u) - one
        f = start + scaled
        high, low = series(f, scaled - (f - start))
        return total(k, high, low)

    return log_of_sum


@formula
def _log1p(fmt: Format) -> Callable[..., Any]:
    zero, one = fmt.constants(0.0, 1.0)
    log_of, edges = log_of_sum(fmt), bounded(fmt)

    def log1p(x):
        u = one + x
        # What the addition rounded away; where k = 0 it gives back x itself.
        back = u - one
        error = (one - (u - back)) + (x - back)
        return select(x == zero, x, edges(u, log_of(u, error)))

    return log1p


@publish(natural_log, np.log, standard=math.log)
def log(x: Any) -> Any:
    """Natural logarithm.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 0.7 ULP; -inf at zero, nan below.

    Examples
    --------
    >>> from shmarray.kernels.math import log
    >>> float(log(1.0))
    0.0
    """
    return np.log(x)


@publish(_log2, np.log2, standard=math.log2)
def log2(x: Any) -> Any:
    """Logarithm to base 2.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 0.7 ULP, exact for powers of two; -inf at zero, nan below.

    Examples
    --------
    >>> from shmarray.kernels.math import log2
    >>> float(log2(8.0))
    3.0
    """
    return np.log2(x)


@publish(_log10, np.log10, standard=math.log10)
def log10(x: Any) -> Any:
    """Logarithm to base 10.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 0.7 ULP; -inf at zero, nan below.

    Examples
    --------
    >>> from shmarray.kernels.math import log10
    >>> float(log10(1000.0))
    3.0
    """
    return np.log10(x)


@publish(_log1p, np.log1p, standard=math.log1p)
def log1p(x: Any) -> Any:
    """`log(1 + x)`, without the loss of digits near zero.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 0.8 ULP; -inf at -1, nan below, the sign of zero kept.

    Examples
    --------
    >>> from shmarray.kernels.math import log1p
    >>> float(log1p(0.0))
    0.0
    """
    return np.log1p(x)
