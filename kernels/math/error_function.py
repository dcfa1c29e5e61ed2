"""erf and erfc: one polynomial under an exponential on either side of 1.

erf below 1 is `x + x P(x**2)`; above, `1 - exp(-L(x - 1))` with a polynomial `L` for `-log(erfc)`: what it is
off by counts only as much as erfc itself, which falls to nothing at 6.

erfc must be right to the last bit down to 1e-324, so `erfc(x) = exp(-x**2) G(x)` for x >= 0, and `2 - erfc(-x)`
below. `G(x) (x + 7/8)` is nearly flat in `t = (x - 4) / (x + 4)` (after M. Shepherd and J. Laframboise, Math. Comp.
36, 1981; the offset 7/8 gives it hardly any slope at x = 0, where an error of `t` is worth most), and one division
gives both quotients. The square, the exponential, the polynomial and the quotient each carry what they rounded
away: an error of half a unit in `x**2` would be worth 700 in the result.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ._bits import absolute, copy_sign, fma, polynomial, power_of_two, select
from ._formats import Format
from ._publish import formula, publish
from .exponential import clamped, exp_parts, reduced, scaled

__all__ = ["erf", "erfc"]


@formula
def _erf(fmt: Format) -> Callable[..., Any]:
    one = fmt.real(1.0)
    # Above the upper bound the result is 1 to the last bit.
    held = clamped(*fmt.constants(-1.0, 5.94 if fmt.digits == 53 else 3.98))
    near_coefficients, far_coefficients = fmt.polynomial("erf"), fmt.polynomial("log_erfc")
    exp_coefficients = fmt.polynomial("exp")
    reduce = reduced(fmt)

    def erf(x):
        size = held(absolute(x))
        near = fma(size, polynomial(size * size, near_coefficients), size)
        shifted, r, _ = reduce(-polynomial(size - one, far_coefficients))
        complement = one + fma(r * r, polynomial(r, exp_coefficients), r)
        far = fma(-complement, power_of_two(shifted), one)
        return copy_sign(select(size < one, near, far), x)

    return erf


@formula
def _erfc(fmt: Format) -> Callable[..., Any]:
    zero, one, two, four, offset = fmt.constants(0.0, 1.0, 2.0, 4.0, 0.875)
    first, first_low = fmt.parts("erfc_first", 2)
    # Above the upper bound the result is zero.
    held = clamped(*fmt.constants(-1.0, 27.25 if fmt.digits == 53 else 10.1))
    coefficients = fmt.polynomial("erfc")
    exp_of, scale = exp_parts(fmt), scaled(fmt)

    def erfc(x):
        size = held(absolute(x))
        square = size * size
        shifted, y, y_low = exp_of(-square, -fma(size, size, -square))
        # t = (x - 4) / (x + 4), and g + g_low = P(t) / (x + 7/8)
        d = size + offset
        d_low = size - (d - offset)
        near = size + four
        inverse = one / (d * near)
        t = fma((size + size) * d, inverse, -one)
        inverse *= near
        more = t * polynomial(t, coefficients)
        p = first + more
        p_low = ((first - p) + more) + first_low
        g = p * inverse
        g_low = (fma(-g, d, p) + (p_low - g * d_low)) * inverse
        total = y * g
        total = scale(total + (fma(y, g, -total) + fma(y_low, g, y * g_low)), shifted, -size)
        # below zero: 2 - y
        return select(x < zero, two - total, total)

    return erfc


@publish(_erf, standard=math.erf)
def erf(x: Any) -> Any:
    """Error function: `2/sqrt(pi)` times the integral of `exp(-t**2)` from 0 to `x`.

    Parameters
    ----------
    x : float32 or float64
        Integers are converted. NumPy has no such function, so arrays are refused; outside of compiled code this is
        `math.erf`.

    Returns
    -------
    float32 or float64
        Within 1 ULP; the sign of zero kept.

    Examples
    --------
    >>> from shmarray.kernels.math import erf
    >>> float(erf(0.0))
    0.0
    """
    return math.erf(x)


@publish(_erfc, standard=math.erfc)
def erfc(x: Any) -> Any:
    """`1 - erf(x)`, without the loss of digits where erf is near 1.

    Parameters
    ----------
    x : float32 or float64
        As for `erf`.

    Returns
    -------
    float32 or float64
        Within 1.1 ULP, subnormals included; zero above 27.23 (float32: 10.06).

    Examples
    --------
    >>> from shmarray.kernels.math import erfc
    >>> float(erfc(0.0))
    1.0
    """
    return math.erfc(x)
