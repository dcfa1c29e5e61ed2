"""exp, exp2, expm1: reduce by powers of two, a polynomial for the rest, scale back.

`x = k ln 2 + r` with `|r| <= ln(2)/2`, so `exp(x) = 2**k exp(r)`. `k` comes from adding a large constant (see
"shifted" in `_bits`), `r` from two fused multiply-adds with ln 2 in two parts: the first is exact, because
the product with the high part nearly cancels `x`. The scale `2**k` is applied in two factors, so that
results near overflow and in the subnormal range are rounded once and come out right without a branch.

The polynomial is close to minimax (docs/math_coefficients.py); `1 + r` is added last, with its rounding error
carried.
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
from ._formats import Format
from ._publish import formula, publish

__all__ = ["exp", "exp2", "expm1"]


@formula
def reduced(fmt: Format) -> Callable[..., Any]:
    """`x -> (shifted k, r, low)` with `x = k ln 2 + r + low`."""
    shift, log2e = fmt.constants(fmt.shift, math.log2(math.e))
    ln2_high, ln2_low = fmt.parts("ln2", 2)

    def reduced(x):
        shifted = fma(x, log2e, shift)
        k = shifted - shift
        start = fma(-k, ln2_high, x)
        r = fma(-k, ln2_low, start)
        return shifted, r, fma(-k, ln2_low, start - r)

    return reduced


@formula
def scaled(fmt: Format) -> Callable[..., Any]:
    """`y * 2**k` of a shifted `k`, for `y` around 1 and any `k` that has a finite or subnormal result."""
    zero, up, down, twice = fmt.constants(0.0, 2.0 * fmt.digits, -1.0, 2.0)
    tiny = fmt.real(2.0 ** (-2 * fmt.digits))

    def scaled(y, shifted, x):
        negative = x < zero
        inner = power_of_two(shifted + select(negative, up, down))
        return (y * inner) * select(negative, tiny, twice)

    return scaled


def clamped(low: Any, high: Any) -> Callable[..., Any]:
    """`x` held in [low, high], nan passing through: both comparisons are false for it."""

    def clamped(x):
        x = select(x > high, high, x)
        return select(x < low, low, x)

    return inlined(clamped)


@formula
def exp_parts(fmt: Format) -> Callable[..., Any]:
    """`(x, low) -> (shifted k, y, y_low)` with `exp(x + low) = 2**k (y + y_low)`, for a tiny `low`."""
    one = fmt.real(1.0)
    coefficients = fmt.polynomial("exp")
    reduce = reduced(fmt)

    def exp_parts(x, low):
        shifted, r, r_low = reduce(x)
        head = one + r
        tail = fma(r * r, polynomial(r, coefficients), r - (head - one))
        y = head + tail
        return shifted, y, fma(r_low + low, y, (head - y) + tail)

    return exp_parts


@formula
def _exp(fmt: Format) -> Callable[..., Any]:
    (one,) = fmt.constants(1.0)
    coefficients = fmt.polynomial("exp")
    # Beyond these the result has overflowed, or is zero.
    held_to_range = clamped(*fmt.constants(*((-746.0, 710.0) if fmt.digits == 53 else (-104.0, 89.0))))
    reduce, scale = reduced(fmt), scaled(fmt)

    def exp(x):
        held = held_to_range(x)
        shifted, r, _ = reduce(held)
        head = one + r
        tail = fma(r * r, polynomial(r, coefficients), r - (head - one))
        return scale(head + tail, shifted, held)

    return exp


@formula
def exp2_parts(fmt: Format) -> Callable[..., Any]:
    """`x -> (shifted k, head, tail)` with `2**x = 2**k (head + tail)`."""
    shift, one = fmt.constants(fmt.shift, 1.0)
    ln2_high, ln2_low = fmt.parts("ln2", 2)
    coefficients = fmt.polynomial("exp2")

    def exp2_parts(x):
        shifted = x + shift
        r = x - (shifted - shift)
        head = fma(r, ln2_high, one)
        error = fma(r, ln2_high, one - head)
        return shifted, head, fma(r * r, polynomial(r, coefficients), fma(r, ln2_low, error))

    return exp2_parts


@formula
def _exp2(fmt: Format) -> Callable[..., Any]:
    held_to_range = clamped(*fmt.constants(*((-1076.0, 1024.0) if fmt.digits == 53 else (-151.0, 128.0))))
    exp2_of, scale = exp2_parts(fmt), scaled(fmt)

    def exp2(x):
        held = held_to_range(x)
        shifted, head, tail = exp2_of(held)
        return scale(head + tail, shifted, held)

    return exp2


@formula
def _expm1(fmt: Format) -> Callable[..., Any]:
    one, half, two, tiny = *fmt.constants(1.0, 0.5, 2.0), fmt.smallest_normal * 8
    after_half = fmt.polynomial("exp")[1:]
    # Below the lower bound the result is -1 to the last bit.
    held_to_range = clamped(*fmt.constants(*((-40.0, 710.0) if fmt.digits == 53 else (-20.0, 89.0))))
    reduce = reduced(fmt)

    def expm1(x):
        shifted, r, low = reduce(held_to_range(x))
        # exp(r) - 1 = r + r**2/2 + rest
        square = r * r
        half_square = half * square
        rest = fma(r * square, polynomial(r, after_half), fma(half * r, r, -half_square) + low)
        # 2**k (1 + r + tail) - 1, in halves so that 2**k does not overflow before the result does.
        scale = power_of_two(shifted - one)
        start = scale - half
        head = fma(scale, r, start)
        error = fma(scale, r, start - head) + ((scale - start) - half)
        return select(absolute(x) < tiny, x, two * (head + fma(scale, half_square + rest, error)))

    return expm1


@publish(_exp, np.exp, standard=math.exp)
def exp(x: Any) -> Any:
    """e to the power of `x`.

    Parameters
    ----------
    x : float32 or float64
        Integers are converted; arrays and complex numbers get NumPy's function.

    Returns
    -------
    float32 or float64
        Within 0.9 ULP; inf past overflow, subnormals and zero below.

    Examples
    --------
    >>> import numba
    >>> from shmarray.kernels.math import exp
    >>> @numba.njit
    ... def decay(t, out):
    ...     for i in range(t.size):
    ...         out[i] = exp(-t[i])
    >>> import numpy as np
    >>> out = np.empty(3)
    >>> decay(np.array([0.0, 1.0, np.inf]), out)
    >>> out.round(6).tolist()
    [1.0, 0.367879, 0.0]
    """
    return np.exp(x)


@publish(_exp2, np.exp2, standard=getattr(math, "exp2", None))
def exp2(x: Any) -> Any:
    """2 to the power of `x`.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 0.9 ULP, exact for whole `x`.

    Examples
    --------
    >>> from shmarray.kernels.math import exp2
    >>> float(exp2(10.0))
    1024.0
    """
    return np.exp2(x)


@publish(_expm1, np.expm1, standard=math.expm1)
def expm1(x: Any) -> Any:
    """`exp(x) - 1`, without the loss of digits near zero.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1 ULP; the sign of zero is kept.

    Examples
    --------
    >>> from shmarray.kernels.math import expm1
    >>> float(expm1(0.0))
    0.0
    """
    return np.expm1(x)
