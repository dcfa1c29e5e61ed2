"""logaddexp, logaddexp2: the logarithm of a sum of two numbers that are given by their logarithms.

`log(e**x + e**y) = m + log1p(e**-d)` with `m` the larger one and `d = |x - y|`. Where `m` is negative the two
terms cancel, so nothing may be lost before the last addition: `d` is kept as two numbers, the exponential
likewise, and `log1p(e) = S + S Z P(Z)` with `S = e / (1 + e/2)` and `Z = S**2 <= 4/9`, whose first term is the
greatest part and is kept as two. float32 is computed in float64, where short polynomials do.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._jit import inlined
from ._bits import absolute, fma, polynomial, power_of_two, select
from ._formats import FLOAT64, Format
from ._publish import formula, publish
from .exponential import clamped, exp2_parts, exp_parts, scaled

__all__ = ["logaddexp", "logaddexp2"]


def _larger_and_difference(bottom: float) -> Callable[..., Any]:
    """`(x, y) -> (m, d, low)`: the larger one, and the smaller less the larger as a sum, held above a bound."""
    zero, bound = FLOAT64.constants(0.0, bottom)
    held = clamped(bound, zero)

    def larger_and_difference(x, y):
        swapped = x < y
        m, n = select(swapped, y, x), select(swapped, x, y)
        d = n - m
        back = d - n
        low = (n - (d - back)) - (m + back)
        # Equal infinities have no difference: it is zero, as that of equal numbers.
        d = held(select(x == y, zero, d))
        return m, d, select(d > bound, low, zero)

    return inlined(larger_and_difference)


@formula
def _log1p_parts(fmt: Format) -> Callable[..., Any]:
    """`(e, low) -> (S, rest)` with `S + rest = log1p(e + low)`, for e in [0, 1]."""
    one, half = fmt.constants(1.0, 0.5)
    coefficients = fmt.polynomial("log1p")

    def log1p_parts(e, low):
        half_e = half * e
        d = one + half_e
        d_low = half_e - (d - one)
        inverse = one / d
        s = e * inverse
        s_low = (fma(-s, d, e) + fma(-s, d_low, low)) * inverse
        z = s * s
        return s, fma(s * z, polynomial(z, coefficients), s_low)

    return log1p_parts


@formula
def _added(fmt: Format) -> Callable[..., Any]:
    """`m + s + rest` with one rounding; `m` alone where it is infinite."""
    zero, inf = fmt.constants(0.0, math.inf)

    def added(m, s, rest):
        total = m + s
        back = total - m
        low = ((m - (total - back)) + (s - back)) + rest
        return total + select(absolute(total) < inf, low, zero)

    return added


def _double_logaddexp() -> Callable[..., Any]:
    fmt = FLOAT64
    difference, exp_of, scale = _larger_and_difference(-746.0), exp_parts(fmt), scaled(fmt)
    log1p_of, added = _log1p_parts(fmt), _added(fmt)

    def logaddexp(x, y):
        m, d, low = difference(x, y)
        shifted, e, e_low = exp_of(d, low)
        s, rest = log1p_of(scale(e, shifted, d), scale(e_low, shifted, d))
        return added(m, s, rest)

    return logaddexp


def _double_logaddexp2() -> Callable[..., Any]:
    fmt = FLOAT64
    difference, exp2_of, scale = _larger_and_difference(-1076.0), exp2_parts(fmt), scaled(fmt)
    log1p_of, added = _log1p_parts(fmt), _added(fmt)
    ln2 = fmt.real(math.log(2))
    factor, factor_low = fmt.parts("log2e", 2)

    def logaddexp2(x, y):
        m, d, low = difference(x, y)
        shifted, head, tail = exp2_of(d)
        e = head + tail
        e_low = fma(low * ln2, e, (head - e) + tail)
        s, rest = log1p_of(scale(e, shifted, d), scale(e_low, shifted, d))
        main = s * factor
        return added(m, main, fma(s, factor_low, fma(rest, factor, fma(s, factor, -main))))

    return logaddexp2


def _single(*, binary: bool) -> Callable[..., Any]:
    fmt = FLOAT64
    shift, zero, half, one = fmt.constants(fmt.shift, 0.0, 0.5, 1.0)
    to_binary, from_natural = fmt.constants(1.0 if binary else math.log2(math.e), math.log2(math.e) if binary else 1.0)
    at_zero = fmt.real(1.0 if binary else math.log(2))  # exactly: x is added to it, and may be its negative
    exp_coefficients, log_coefficients = fmt.polynomial("exp2_medium"), fmt.polynomial("log1p_medium")
    held = clamped(*fmt.constants(-200.0, 0.0))
    single, double = np.float32, np.float64

    def logaddexp(x, y):
        x, y = double(x), double(y)
        swapped = x < y
        m, n = select(swapped, y, x), select(swapped, x, y)
        t = held(select(x == y, zero, n - m) * to_binary)
        shifted = t + shift
        r = t - (shifted - shift)
        e = fma(r, polynomial(r, exp_coefficients), one) * power_of_two(shifted)
        s = e / fma(half, e, one)
        z = s * s
        log1p = fma(s * z, polynomial(z, log_coefficients), s) * from_natural
        return single(m + select(t == zero, at_zero, log1p))

    return logaddexp


@formula
def _logaddexp(fmt: Format) -> Callable[..., Any]:
    return _double_logaddexp() if fmt.digits == 53 else _single(binary=False)


@formula
def _logaddexp2(fmt: Format) -> Callable[..., Any]:
    return _double_logaddexp2() if fmt.digits == 53 else _single(binary=True)


@publish(_logaddexp, np.logaddexp, arity=2)
def logaddexp(x: Any, y: Any) -> Any:
    """`log(exp(x) + exp(y))`, without overflow or underflow on the way.

    Parameters
    ----------
    x, y : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1.2 ULP of the result or of 1/8, whichever is more: the result is zero on a curve, near which the error
        stays below 2**-54. float32 is within 0.8 ULP down to results of 2**-16.

    Examples
    --------
    >>> from shmarray.kernels.math import logaddexp
    >>> round(float(logaddexp(1000.0, 1000.0)), 6)
    1000.693147
    """
    return np.logaddexp(x, y)


@publish(_logaddexp2, np.logaddexp2, arity=2)
def logaddexp2(x: Any, y: Any) -> Any:
    """`log2(2**x + 2**y)`, without overflow or underflow on the way.

    Parameters
    ----------
    x, y : float32 or float64

    Returns
    -------
    float32 or float64
        As `logaddexp`.

    Examples
    --------
    >>> from shmarray.kernels.math import logaddexp2
    >>> float(logaddexp2(1000.0, 1000.0))
    1001.0
    """
    return np.logaddexp2(x, y)
