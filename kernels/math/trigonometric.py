"""sin, cos, tan: subtract a multiple of pi/2, then one of two polynomials.

`x = k pi/2 + r` with `|r| <= pi/4`. pi/2 comes in three parts of full precision. The first product is
subtracted exactly by a fused multiply-add (`r1` is a multiple of the last bit of the first part and smaller
than 2, so it fits), the second with its rounding error kept, the third is a correction: `r + low` is right to
some 2**-100 wherever `k` fits the shift, also where `x` lies as near to a multiple of pi/2 as a float can.
Larger arguments (above 2**32, for float32 2**20) take the long way of `_far`; see `_guard` for how
that leaves the loop vectorised.

Both polynomials are computed and the quadrant selects: in a vector every lane would wait for both in any
case.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._jit import loop
from ._bits import fma, is_odd, negate_by_bit, polynomial, select
from ._far import far_reduced
from ._formats import FLOAT64, Format
from ._guard import outside
from ._publish import formula, publish

__all__ = ["cos", "sin", "tan"]


@formula
def _reduced(fmt: Format) -> Callable[..., Any]:
    """`x -> (shifted k, r, low)` with `x = k pi/2 + r + low`."""
    shift, two_over_pi = fmt.constants(fmt.shift, 2 / math.pi)
    first, second, third = fmt.parts("half_pi", 3)

    def reduced(x):
        shifted = fma(x, two_over_pi, shift)
        k = shifted - shift
        start = fma(-k, first, x)
        step = k * second
        r = start - step
        low = ((start - r) - step) - fma(k, second, -step)
        return shifted, r, fma(-k, third, low)

    return reduced


@formula
def _sin_and_cos(fmt: Format) -> Callable[..., Any]:
    """`(r, low) -> (sin, cos)` of `r + low`, `|r| <= pi/4`, each with what its last addition rounded away."""
    one, half = fmt.constants(1.0, 0.5)
    sin_coefficients, cos_coefficients = fmt.polynomial("sin"), fmt.polynomial("cos")

    def sin_and_cos(r, low):
        z = r * r
        # cos = 1 - z/2 + z**2 C(z) - r low
        half_z = half * z
        head = one - half_z
        tail = ((one - head) - half_z) + fma(z * z, polynomial(z, cos_coefficients), -(r * low))
        cosine = head + tail
        # sin = r + r z S(z) + low cos(r)
        rest = fma(r * z, polynomial(z, sin_coefficients), low * cosine)
        sine = r + rest
        return sine, (r - sine) + rest, cosine, (head - cosine) + tail

    return sin_and_cos


@formula
def _quotient(fmt: Format) -> Callable[..., Any]:
    """`(a + a_low) / (b + b_low)`, rounded about once."""
    one = fmt.real(1.0)

    def quotient(a, a_low, b, b_low):
        inverse = one / b
        rough = a * inverse
        rest = fma(-rough, b, a) + fma(-rough, b_low, a_low)
        return fma(rest, inverse, rough)

    return quotient


def _limit(fmt: Format) -> float:
    """Up to here the multiple of pi/2 is small enough for the reduction above."""
    return 2.0**32 if fmt.digits == 53 else 2.0**20


@functools.cache
def _far_function(name: str) -> Callable[..., Any]:
    """`sin`, `cos` or `tan` of a float64 past the limit, one number at a time."""
    quarter_turns = np.int64({"sin": 0, "cos": 1, "tan": 0}[name])
    odd, tangent = name != "cos", name == "tan"
    reduced, both, divided = far_reduced(), _sin_and_cos(FLOAT64), _quotient(FLOAT64)

    def far(x):
        if not abs(x) < np.inf:
            return np.nan
        quadrant, r, low = reduced(abs(x))
        sine, sine_low, cosine, cosine_low = both(r, low)
        quadrant += quarter_turns
        if quadrant & 1:
            sine, sine_low, cosine, cosine_low = cosine, cosine_low, -sine, -sine_low
        if tangent:
            sine = divided(sine, sine_low, cosine, cosine_low)
        elif quadrant & 2:
            sine = -sine
        return -sine if odd and x < 0 else sine

    far.__name__ = far.__qualname__ = f"far_{name}"
    return loop(far)


@formula
def _sin(fmt: Format) -> Callable[..., Any]:
    zero = fmt.real(0.0)
    reduced, both = _reduced(fmt), _sin_and_cos(fmt)
    far_or = outside(-_limit(fmt), _limit(fmt), _far_function("sin"))

    def sin(x):
        shifted, r, low = reduced(x)
        sine, _, cosine, _ = both(r, low)
        result = negate_by_bit(select(is_odd(shifted), cosine, sine), shifted, 1)
        return far_or(x, select(x == zero, x, result))

    return sin


@formula
def _cos(fmt: Format) -> Callable[..., Any]:
    one = fmt.real(1.0)
    reduced, both = _reduced(fmt), _sin_and_cos(fmt)
    far_or = outside(-_limit(fmt), _limit(fmt), _far_function("cos"))

    def cos(x):
        shifted, r, low = reduced(x)
        sine, _, cosine, _ = both(r, low)
        result = select(is_odd(shifted), sine, cosine)
        return far_or(x, negate_by_bit(result, shifted + one, 1))  # minus in the second and third quadrant

    return cos


@formula
def _tan(fmt: Format) -> Callable[..., Any]:
    zero = fmt.real(0.0)
    reduced, both, divided = _reduced(fmt), _sin_and_cos(fmt), _quotient(fmt)
    far_or = outside(-_limit(fmt), _limit(fmt), _far_function("tan"))

    def tan(x):
        shifted, r, low = reduced(x)
        sine, sine_low, cosine, cosine_low = both(r, low)
        odd = is_odd(shifted)
        above, above_low = select(odd, cosine, sine), select(odd, cosine_low, sine_low)
        below, below_low = select(odd, sine, cosine), select(odd, sine_low, cosine_low)
        result = divided(above, above_low, below, below_low)
        return far_or(x, select(x == zero, x, negate_by_bit(result, shifted, 0)))

    return tan


@publish(_sin, np.sin, standard=math.sin)
def sin(x: Any) -> Any:
    """Sine of an angle in radians.

    Parameters
    ----------
    x : float32 or float64
        Of any size.

    Returns
    -------
    float32 or float64
        Within 0.8 ULP; nan for infinities, the sign of zero kept.

    Examples
    --------
    >>> from shmarray.kernels.math import sin
    >>> float(sin(0.0))
    0.0
    """
    return np.sin(x)


@publish(_cos, np.cos, standard=math.cos)
def cos(x: Any) -> Any:
    """Cosine of an angle in radians.

    Parameters
    ----------
    x : float32 or float64
        Of any size.

    Returns
    -------
    float32 or float64
        Within 0.8 ULP; nan for infinities.

    Examples
    --------
    >>> from shmarray.kernels.math import cos
    >>> float(cos(0.0))
    1.0
    """
    return np.cos(x)


@publish(_tan, np.tan, standard=math.tan)
def tan(x: Any) -> Any:
    """Tangent of an angle in radians.

    Parameters
    ----------
    x : float32 or float64
        Of any size.

    Returns
    -------
    float32 or float64
        Within 1 ULP; nan for infinities, the sign of zero kept.

    Examples
    --------
    >>> from shmarray.kernels.math import tan
    >>> float(tan(0.0))
    0.0
    """
    return np.tan(x)
