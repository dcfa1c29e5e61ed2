"""arcsin, arccos, arctan, arctan2: bring the argument near zero, then an odd polynomial.

arctan of a quotient `n / d >= 0` uses one of three equal forms, each with a small argument, and one division:

====================  =============  ===============
where                 adds           arctan of
====================  =============  ===============
n <= tan(pi/8) d      0              n / d
between               pi/4           (n - d) / (n + d)
n > tan(3 pi/8) d     pi/2           -d / n
====================  =============  ===============

arcsin above 1/2 uses `arcsin x = pi/2 - 2 arcsin(sqrt((1 - x) / 2))`, whose argument `1 - x` is exact there;
arccos likewise (the arrangement of FreeBSD's msun, with polynomials where that has quotients). The constants
are held in two parts.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ._bits import absolute, copy_sign, fma, polynomial, root, select
from ._formats import Format
from ._publish import formula, publish

__all__ = ["arccos", "arcsin", "arctan", "arctan2"]


@formula
def _angle(fmt: Format) -> Callable[..., Any]:
    """`(n, d) -> (octants, t, tail)` with `arctan(n/d) = octants pi/4 + t + tail`, for n, d >= 0."""
    zero, one, two = fmt.constants(0.0, 1.0, 2.0)
    low_bound, high_bound = fmt.constants(math.tan(math.pi / 8), math.tan(3 * math.pi / 8))
    coefficients = fmt.polynomial("arctan")

    def angle(n, d):
        middle, high = n > low_bound * d, n > high_bound * d
        above = select(high, -d, select(middle, n - d, n))
        below = select(high, n, select(middle, n + d, d))
        t = above / below
        z = t * t
        octants = select(high, two, select(middle, one, zero))
        return octants, t, t * z * polynomial(z, coefficients)

    return angle


@formula
def _arctan(fmt: Format) -> Callable[..., Any]:
    one = fmt.real(1.0)
    quarter_pi, quarter_pi_low = fmt.parts("quarter_pi", 2)
    angle = _angle(fmt)

    def arctan(x):
        octants, t, tail = angle(absolute(x), one)
        return copy_sign(octants * quarter_pi + (t + fma(octants, quarter_pi_low, tail)), x)

    return arctan


@formula
def _arctan2(fmt: Format) -> Callable[..., Any]:
    zero, one, four, inf = fmt.constants(0.0, 1.0, 4.0, math.inf)
    large, quarter = fmt.constants(2.0 ** (fmt.largest_exponent - 2), 0.25)
    quarter_pi, quarter_pi_low = fmt.parts("quarter_pi", 2)
    angle = _angle(fmt)

    def arctan2(x, y):
        # numba passes by position: `x` is the ordinate, as in NumPy's arctan2(x1, x2).
        n, d = absolute(x), absolute(y)
        # Equal infinities are at 45 degrees, as equal numbers are; two zeros at 0.
        both_infinite = (n == inf) & (d == inf)
        n, d = select(both_infinite, one, n), select(both_infinite, one, d)
        d = select((n == zero) & (d == zero), one, d)
        # n + d must not overflow.
        scale = select((n > large) | (d > large), quarter, one)
        octants, t, tail = angle(n * scale, d * scale)
        left = copy_sign(one, y) < zero
        octants = select(left, four - octants, octants)
        t, tail = select(left, -t, t), select(left, -tail, tail)
        base = octants * quarter_pi
        rest = fma(octants, quarter_pi_low, fma(octants, quarter_pi, -base))
        return copy_sign(base + (t + (tail + rest)), x)

    return arctan2


@formula
def _halves(fmt: Format) -> Callable[..., Any]:
    """`x -> (big, s, tail)`: `s + tail` is arcsin |x|, or that of sqrt((1 - |x|) / 2) if `big`: |x| > 1/2."""
    one, half = fmt.constants(1.0, 0.5)
    coefficients = fmt.polynomial("arcsin")

    def halves(x):
        size = absolute(x)
        big = size > half
        z = select(big, (one - size) * half, size * size)
        s = select(big, root(z), size)
        return big, s, s * z * polynomial(z, coefficients)

    return halves


@formula
def _arcsin(fmt: Format) -> Callable[..., Any]:
    two = fmt.real(2.0)
    half_pi, half_pi_low = fmt.parts("half_pi", 2)
    halves = _halves(fmt)

    def arcsin(x):
        big, s, tail = halves(x)
        twice = two * s
        head = half_pi - twice
        complement = head + (((half_pi - head) - twice) + fma(-two, tail, half_pi_low))
        return copy_sign(select(big, complement, s + tail), x)

    return arcsin


@formula
def _arccos(fmt: Format) -> Callable[..., Any]:
    zero, one, two = fmt.constants(0.0, 1.0, 2.0)
    half_pi, half_pi_low = fmt.parts("half_pi", 2)
    pi, pi_low = fmt.parts("pi", 2)
    halves = _halves(fmt)

    def arccos(x):
        big, s, tail = halves(x)
        # pi/2 - arcsin(x); for big ones 2 arcsin(s), from pi where x is negative.
        negative = x < zero
        base = select(big, select(negative, pi, zero), half_pi)
        base_low = select(big, select(negative, pi_low, zero), half_pi_low)
        factor = select(big, select(negative, two, -two), copy_sign(one, x))
        head = base - factor * s
        return head + (((base - head) - factor * s) + fma(-factor, tail, base_low))

    return arccos


@publish(_arcsin, np.arcsin, standard=math.asin)
def arcsin(x: Any) -> Any:
    """Inverse sine, in [-pi/2, pi/2].

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1.2 ULP; nan outside [-1, 1], the sign of zero kept.

    Examples
    --------
    >>> from shmarray.kernels.math import arcsin
    >>> float(arcsin(0.0))
    0.0
    """
    return np.arcsin(x)


@publish(_arccos, np.arccos, standard=math.acos)
def arccos(x: Any) -> Any:
    """Inverse cosine, in [0, pi].

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1.2 ULP; nan outside [-1, 1].

    Examples
    --------
    >>> from shmarray.kernels.math import arccos
    >>> float(arccos(1.0))
    0.0
    """
    return np.arccos(x)


@publish(_arctan, np.arctan, standard=math.atan)
def arctan(x: Any) -> Any:
    """Inverse tangent, in [-pi/2, pi/2].

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1.9 ULP; the sign of zero kept.

    Examples
    --------
    >>> from shmarray.kernels.math import arctan
    >>> float(arctan(0.0))
    0.0
    """
    return np.arctan(x)


@publish(_arctan2, np.arctan2, standard=math.atan2, arity=2)
def arctan2(x: Any, y: Any) -> Any:
    """Angle of the point with ordinate `x` and abscissa `y`, in [-pi, pi], by the signs of both.

    Parameters
    ----------
    x, y : float32 or float64
        In NumPy's order: the first is the ordinate.

    Returns
    -------
    float32 or float64
        Within 2 ULP; signed zeros and infinities as in IEEE 754.

    Examples
    --------
    >>> from shmarray.kernels.math import arctan2
    >>> float(arctan2(0.0, 1.0))
    0.0
    """
    return np.arctan2(x, y)
