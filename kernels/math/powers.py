"""power, cbrt, hypot.

`x**y = 2**(y log2 |x|)`, and an error of the logarithm is multiplied by up to 1,000 in the result, so `log2`
is computed as the sum of two numbers, right to some 2**-65: as in `logarithmic`, but with the quotient `s`
and the cubic term of the series in two parts each. The sign and IEEE 754's special cases come last, as
selections. float32 powers are computed in float64.

`cbrt` guesses the inverse root by a polynomial and improves it by one step of third order, then corrects the
root by its own exact residual. `hypot` scales by a power of two where squares would overflow or lose digits;
in float32 it needs neither, because float64 holds every square.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ._bits import (
    absolute,
    copy_sign,
    exponent,
    fma,
    mantissa,
    nearest,
    polynomial,
    power_of_two,
    root,
    select,
)
from ._formats import FLOAT64, Format
from ._publish import SUBSTITUTES, formula, publish, publish_wide
from .exponential import clamped, scaled
from .logarithmic import split

__all__ = ["cbrt", "hypot", "power"]


@formula
def _log2_pair(fmt: Format) -> Callable[..., Any]:
    """`x -> (high, low)` with `high + low = log2(x)`, right to some 2**-65, for positive finite x."""
    one, two = fmt.constants(1.0, 2.0)
    third, third_low = fmt.parts("two_thirds", 2)
    factor, factor_low = fmt.parts("log2e", 2)
    coefficients = fmt.polynomial("log_tail")
    parts = split(fmt)

    def log2_pair(x):
        k, f = parts(x)
        # s = f / (2 + f), with what the sum and the quotient rounded away
        d = two + f
        inverse = one / d
        s = f * inverse
        s_low = (fma(-s, d, f) - s * ((two - d) + f)) * inverse
        z = s * s
        z_low = fma(s, s, -z) + two * s * s_low
        # c = 2/3 z + z**2 T(z), the series after its first term
        main = z * third
        rest = fma(z, third, -main) + fma(z, third_low, z_low * third)
        more = z * z * polynomial(z, coefficients)
        c = main + more
        c_low = ((main - c) + more) + rest
        # log m = 2 s + s c
        product = s * c
        product_low = fma(s, c, -product) + fma(s, c_low, s_low * c)
        head = two * s
        high = head + product
        low = ((head - high) + product) + fma(two, s_low, product_low)
        # log2 x = k + log m * log2 e
        scaled_high = high * factor
        scaled_low = fma(high, factor, -scaled_high) + fma(high, factor_low, low * factor)
        total = k + scaled_high
        return total, ((k - total) + scaled_high) + scaled_low

    return log2_pair


@formula
def _exp2_of_pair(fmt: Format) -> Callable[..., Any]:
    """`(high, low) -> 2**(high + low)`."""
    shift, zero, one = fmt.constants(fmt.shift, 0.0, 1.0)
    ln2_high, ln2_low = fmt.parts("ln2", 2)
    coefficients = fmt.polynomial("exp2")
    bottom, top = fmt.constants(-1077.0, 1025.0)
    held_to_range, scale = clamped(bottom, top), scaled(fmt)

    def exp2_of_pair(high, low):
        held = held_to_range(high)
        low = select(held == high, low, zero)
        shifted = held + shift
        whole = held - (shifted - shift)
        r = whole + low
        head = fma(r, ln2_high, one)
        error = fma(r, ln2_high, one - head)
        error = fma((whole - r) + low, ln2_high, fma(r, ln2_low, error))
        return scale(head + fma(r * r, polynomial(r, coefficients), error), shifted, held)

    return exp2_of_pair


@formula
def _special_powers(fmt: Format) -> Callable[..., Any]:
    """The sign of a power, and its value where a logarithm has nothing to say."""
    zero, one, half, inf, nan = fmt.constants(0.0, 1.0, 0.5, math.inf, math.nan)

    def special_powers(x, y, result):
        size = absolute(x)
        grows = y > zero
        result = select(size == zero, select(grows, zero, inf), result)
        result = select(size == inf, select(grows, inf, zero), result)
        result = select(size == one, one, result)
        whole = nearest(y) == y
        half_y = half * y
        odd = whole & (nearest(half_y) != half_y)
        result = select(odd, copy_sign(result, x), result)
        result = select((x < zero) & (size < inf) & ~whole, nan, result)
        result = select((x != x) | (y != y), nan, result)
        return select((x == one) | (y == zero), one, result)

    return special_powers


def _double_power() -> Callable[..., Any]:
    log2, exp2, finish = _log2_pair(FLOAT64), _exp2_of_pair(FLOAT64), _special_powers(FLOAT64)

    def power(x, y):
        high, low = log2(absolute(x))
        main = y * high
        return finish(x, y, exp2(main, fma(y, low, fma(y, high, -main))))

    return power


def _single_power() -> Callable[..., Any]:
    fmt = FLOAT64
    shift, one, two, log2e = fmt.constants(fmt.shift, 1.0, 2.0, math.log2(math.e))
    log_coefficients, exp_coefficients = fmt.polynomial("log_medium"), fmt.polynomial("exp2_medium")
    # float32 ends at 2**-150 and 2**128; the conversion back rounds and overflows as it should.
    held = clamped(*fmt.constants(-200.0, 200.0))
    finish = _special_powers(fmt)
    single, double = np.float32, np.float64

    def power(x, y):
        x, y = double(x), double(y)
        size = absolute(x)  # as a float64, normal wherever it is not zero
        k, f = exponent(size), mantissa(size) - one
        s = f / (two + f)
        z = s * s
        t = held(y * fma(fma(s * z, polynomial(z, log_coefficients), two * s), log2e, k))
        shifted = t + shift
        r = t - (shifted - shift)
        result = fma(r, polynomial(r, exp_coefficients), one) * power_of_two(shifted)
        return single(finish(x, y, result))

    return power


@formula
def _power(fmt: Format) -> Callable[..., Any]:
    return _double_power() if fmt.digits == 53 else _single_power()


@formula
def _cbrt(fmt: Format) -> Callable[..., Any]:
    zero, one, half, two, three, inf = fmt.constants(0.0, 1.0, 0.5, 2.0, 3.0, math.inf)
    shift, third, two_ninths = fmt.constants(fmt.shift, 1 / 3, 2 / 9)
    up, down = fmt.constants(2.0 ** (1 / 3), 2.0 ** (-1 / 3))
    coefficients = fmt.polynomial("inverse_cbrt")
    parts = split(fmt)

    def cbrt(x):
        size = absolute(x)
        k, f = parts(size)
        m = one + f
        # size = v 2**(3 j), with v = m, 2 m or m / 2
        shifted = fma(k, third, shift)
        j = shifted - shift
        i = k - three * j
        more, less = i > zero, i < zero
        v = m * select(more, two, select(less, half, one))
        # w = v**(-1/3)
        w = polynomial(m, coefficients) * select(more, down, select(less, up, one))
        error = fma(-(v * w), w * w, one)
        w = fma(w * error, fma(two_ninths, error, third), w)
        # the root, less a third of its residual times w**2
        square = w * w
        y = v * square
        y2 = y * y
        residual = fma(-y2, y, v) - fma(y, y, -y2) * y
        y = fma(residual * third, square, y)
        result = y * power_of_two(shifted)
        return copy_sign(select((size > zero) & (size < inf), result, size), x)

    return cbrt


def _double_hypot() -> Callable[..., Any]:
    one, inf = FLOAT64.constants(1.0, math.inf)
    large, small, up, down = FLOAT64.constants(2.0**510, 2.0**-450, 2.0**600, 2.0**-600)

    def hypot(x, y):
        a, b = absolute(x), absolute(y)
        swapped = a < b
        longer, shorter = select(swapped, b, a), select(swapped, a, b)
        is_large, is_small = longer > large, longer < small
        scale = select(is_large, down, select(is_small, up, one))
        back = select(is_large, up, select(is_small, down, one))
        p, q = longer * scale, shorter * scale
        square = p * p
        result = root(square + fma(q, q, fma(p, p, -square))) * back
        return select((a == inf) | (b == inf), inf, result)

    return hypot


def _single_hypot() -> Callable[..., Any]:
    inf = np.float32(math.inf)
    single, double = np.float32, np.float64

    def hypot(x, y):
        a, b = double(x), double(y)
        result = single(root(fma(a, a, b * b)))
        return select((absolute(x) == inf) | (absolute(y) == inf), inf, result)

    return hypot


@formula
def _hypot(fmt: Format) -> Callable[..., Any]:
    return _double_hypot() if fmt.digits == 53 else _single_hypot()


@publish(_cbrt, np.cbrt, standard=getattr(math, "cbrt", None))
def cbrt(x: Any) -> Any:
    """Cube root.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 0.6 ULP; the sign kept.

    Examples
    --------
    >>> from shmarray.kernels.math import cbrt
    >>> round(float(cbrt(-27.0)), 12)
    -3.0
    """
    return np.cbrt(x)


@publish(_hypot, np.hypot, standard=math.hypot, arity=2)
def hypot(x: Any, y: Any) -> Any:
    """`sqrt(x**2 + y**2)`, without overflow or underflow on the way.

    Parameters
    ----------
    x, y : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1.1 ULP; inf if either is infinite, even beside nan.

    Examples
    --------
    >>> from shmarray.kernels.math import hypot
    >>> float(hypot(3.0, 4.0))
    5.0
    """
    return np.hypot(x, y)


@publish(_power, np.power, standard=math.pow, arity=2, integers=True)
def power(x: Any, y: Any) -> Any:
    """`x` to the power of `y`.

    Parameters
    ----------
    x, y : float32 or float64
        Two integers give NumPy's integer power.

    Returns
    -------
    float32 or float64
        Within 1.3 ULP; the special cases of IEEE 754 (C99, annex F).

    Examples
    --------
    >>> from shmarray.kernels.math import power
    >>> float(power(2.0, 0.5) ** 2).__round__(12)
    2.0
    """
    return np.power(x, y)


publish_wide(_power, np.float_power)
SUBSTITUTES[operator.pow] = SUBSTITUTES[pow] = power
