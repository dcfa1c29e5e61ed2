"""sin, cos, tan: subtract a multiple of pi/2, then one of two polynomials.

`x = k pi/2 + r` with `|r| <= pi/4`. pi/2 comes in three parts of full precision. The first product is
subtracted exactly by a fused multiply-add (`r1` is a multiple of the last bit of the first part and smaller
than 2, so it fits), the second with its rounding error kept, the third is a correction: `r + low` is right to
some 2**-100 wherever `k` fits the shift, also where `x` lies as near to a multiple of pi/2 as a float can.
Larger arguments (above 2**32, for float32 2**20) go to the C library, whose reduction is exact for all of
them; see `_libm` for how that leaves the loop vectorised.

Both polynomials are computed and the quadrant selects: in a vector every lane would wait for both in any
case.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ._bits import fma, is_odd, negate_by_bit, polynomial, select
from ._formats import Format
from ._libm import beyond
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


def _limit(fmt: Format) -> float:
    """Up to here the multiple of pi/2 is small enough for the reduction above."""
    return 2.0**32 if fmt.digits == 53 else 2.0**20


@formula
def _sin(fmt: Format) -> Callable[..., Any]:
    zero = fmt.real(0.0)
    reduced, both = _reduced(fmt), _sin_and_cos(fmt)
    exact_beyond = beyond("sin", _limit(fmt))

    def sin(x):
        shifted, r, low = reduced(x)
        sine, _, cosine, _ = both(r, low)
        result = negate_by_bit(select(is_odd(shifted), cosine, sine), shifted, 1)
        return exact_beyond(x, select(x == zero, x, result))

    return sin


@formula
def _cos(fmt: Format) -> Callable[..., Any]:
    one = fmt.real(1.0)
    reduced, both = _reduced(fmt), _sin_and_cos(fmt)
    exact_beyond = beyond("cos", _limit(fmt))

    def cos(x):
        shifted, r, low = reduced(x)
        sine, _, cosine, _ = both(r, low)
        result = select(is_odd(shifted), sine, cosine)
        return exact_beyond(
            x, negate_by_bit(result, shifted + one, 1)
        )  # minus in the second and third quadrant

    return cos


@formula
def _tan(fmt: Format) -> Callable[..., Any]:
    zero, one = fmt.constants(0.0, 1.0)
    reduced, both = _reduced(fmt), _sin_and_cos(fmt)
    exact_beyond = beyond("tan", _limit(fmt))

    def tan(x):
        shifted, r, low = reduced(x)
        sine, sine_low, cosine, cosine_low = both(r, low)
        odd = is_odd(shifted)
        above, below = select(odd, cosine, sine), select(odd, sine, cosine)
        inverse = one / below
        quotient = above * inverse
        rest = fma(-quotient, below, above)
        rest += fma(-quotient, select(odd, sine_low, cosine_low), select(odd, cosine_low, sine_low))
        result = fma(rest, inverse, quotient)
        return exact_beyond(x, select(x == zero, x, negate_by_bit(result, shifted, 0)))

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
        Within 0.7 ULP; nan for infinities, the sign of zero kept.

    Examples
    --------
    >>> from shmarray.kernels.math import tan
    >>> float(tan(0.0))
    0.0
    """
    return np.tan(x)
