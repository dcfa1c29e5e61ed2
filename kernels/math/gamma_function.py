"""lgamma: `log |gamma(x)|`, from a polynomial about 2, Stirling's series, and the reflection at zero.

====================  ==========================  =====================================================
where                 `w`                         lgamma(x)
====================  ==========================  =====================================================
`-1/2 <= x < 1/2`     x                           `w Q(w) - log |x (1 + x)|`
`1/2 <= x < 3/2`      x - 1                       `w Q(w) - log x`
`3/2 <= x < 5/2`      x - 2                       `w Q(w)`
`5/2 <= x < 7/2`      x - 3                       `w Q(w) + log (x - 1)`
`7/2 <= x < 9/2`      x - 4                       `w Q(w) + log ((x - 1)(x - 2))`
`9/2 <= x`                                        `(x - 1/2)(log x - 1) + C + S(1/x**2) / x`
`x < -1/2`                                        `log pi - log(|x sin(pi x)|) - lgamma(-x)`
====================  ==========================  =====================================================

`w Q(w) = lgamma(2 + w)` vanishes at 0, so lgamma is right to its last bit about its zero at 2, and about that at
1, where `log x` does too. `w` is exact everywhere, the logarithm's argument a sum of two numbers, the
logarithm too, and the terms are added in two parts: in [1, 3/2) and below zero they cancel.

All rows but the last share one logarithm, whose argument is selected. The reflection needs a second one and a sine,
which all would pay for and few need: it is computed one number at a time (see `_guard`). float32 is computed in
float64, where shorter polynomials and no second parts do.
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
from ._bits import absolute, exponent, fma, mantissa, nearest, polynomial, power_of_two, select
from ._formats import FLOAT64, Format
from ._guard import outside
from ._publish import formula, publish
from .logarithmic import log_of_one_plus, split

__all__ = ["lgamma"]


@formula
def _log_parts(fmt: Format) -> Callable[..., Any]:
    """`(u, error) -> (high, low)` with `high + low = log(u + error)`, for positive u and errors below its last bit."""
    zero, shift = fmt.constants(0.0, fmt.shift)
    ln2_high, ln2_low = fmt.short_parts("ln2")
    parts, series = split(fmt), log_of_one_plus(fmt)

    def log_parts(u, error):
        k, start = parts(u)
        # Scaled as the mantissa is, the error joins f. Where u is tiny its scale is no normal number, and there
        # is no error.
        scaled = select(error == zero, zero, error * power_of_two(shift - k))
        f = start + scaled
        high, low = series(f, scaled - (f - start))
        whole = k * ln2_high
        total = whole + high
        return total, ((whole - total) + high) + fma(k, ln2_low, low)

    return log_parts


@formula
def _near(fmt: Format) -> Callable[..., Any]:
    """`x -> (w, u, error, sign)`: the first five rows of the table, `lgamma = w Q(w) + sign log(u + error)`."""
    zero, one, two, three, four = fmt.constants(0.0, 1.0, 2.0, 3.0, 4.0)
    half, first, second, third = fmt.constants(0.5, 1.5, 2.5, 3.5)

    def near(x):
        is_low, is_middle = x < half, x < first
        from_second, from_third = x >= second, x >= third
        origin = select(is_low, zero, select(is_middle, one, select(from_third, four, select(from_second, three, two))))
        # u = a b + c, the error exact in all rows
        a = select(is_middle, x, select(from_second, x - one, one))
        b = select(is_low, x, select(from_third, x - two, one))
        c = select(is_low, x, zero)
        u = fma(a, b, c)
        error = fma(a, b, c - u)
        negative = u < zero
        return x - origin, select(negative, -u, u), select(negative, -error, error), select(is_middle, -one, one)

    return near


@formula
def _sin_pi(fmt: Format) -> Callable[..., Any]:
    """`a -> (high, low)`, `a |sin(pi a)|` as a sum of two numbers; zero for whole a."""
    pi, pi_low = fmt.parts("pi", 2)
    cubic, cubic_low = fmt.parts("sin_pi_cubic", 2)
    coefficients = fmt.polynomial("sin_pi")

    def sin_pi(a):
        r = absolute(a - nearest(a))
        z = r * r
        z_low = fma(r, r, -z)
        cubic_term = z * cubic
        head = pi + cubic_term
        tail = ((pi - head) + cubic_term) + (pi_low + fma(z, cubic, -cubic_term) + fma(z_low, cubic, z * cubic_low))
        tail = fma(z * z, polynomial(z, coefficients), tail)
        sine = r * head
        sine_low = fma(r, head, -sine) + r * tail
        high = a * sine
        return high, fma(a, sine, -high) + a * sine_low

    return sin_pi


@formula
def _positive(fmt: Format) -> Callable[..., Any]:
    """`x -> (total, rest)` with `total + rest = lgamma(x)`, for x >= -1/2."""
    zero, half, one, bound = fmt.constants(0.0, 0.5, 1.0, 4.5)
    first, first_low = fmt.parts("one_minus_euler", 2)
    constant, constant_low = fmt.parts("stirling", 2)
    second, *others = fmt.polynomial("lgamma")
    coefficients, stirling = tuple(others), fmt.polynomial("stirling")
    near, log_of = _near(fmt), _log_parts(fmt)

    def positive(x):
        far = x >= bound
        w, u, error, sign = near(x)
        log_high, log_low = log_of(select(far, x, u), select(far, zero, error))
        # near: w Q(w), and the logarithm
        slope = second * w
        q = first + slope
        q_low = ((first - q) + slope) + (fma(second, w, -slope) + first_low)
        q_low = fma(w * w, polynomial(w, coefficients), q_low)
        near_head = w * q
        near_rest = fma(w, q, -near_head) + fma(w, q_low, sign * log_low)
        # far: the product, and the constant
        less = log_high - one
        less_low = ((log_high - less) - one) + log_low
        shifted = x - half
        product = shifted * less
        inverse = one / x
        far_rest = fma(shifted, less, -product) + fma(shifted, less_low, ((x - shifted) - half) * less)
        far_rest += fma(inverse, polynomial(inverse * inverse, stirling), constant_low)
        head = select(far, product, sign * log_high)
        addend = select(far, constant, near_head)
        total = head + addend
        back = total - head
        return total, ((head - (total - back)) + (addend - back)) + select(far, far_rest, near_rest)

    return positive


@functools.cache
def _reflected() -> Callable[..., Any]:
    """lgamma of a float64 below -1/2, one number at a time."""
    inf = math.inf
    log_pi, log_pi_low = FLOAT64.parts("log_pi", 2)
    positive, log_of, sin_pi = _positive(FLOAT64), _log_parts(FLOAT64), _sin_pi(FLOAT64)

    def far_lgamma(x):
        a = -x
        sine, sine_low = sin_pi(a)
        if sine == 0.0 or a == inf:
            return inf
        total, rest = positive(a)
        mirror, mirror_low = log_of(sine, sine_low)
        other = log_pi - mirror
        back = other - log_pi
        other_low = ((log_pi - (other - back)) - (mirror + back)) + (log_pi_low - mirror_low)
        result = other - total
        back = result - other
        return result + (((other - (result - back)) - (total + back)) + (other_low - rest))

    return loop(far_lgamma)


def _double_lgamma() -> Callable[..., Any]:
    zero, inf = FLOAT64.constants(0.0, math.inf)
    positive, reflected_or = _positive(FLOAT64), outside(-0.5, math.inf, _reflected())

    def lgamma(x):
        total, rest = positive(x)
        result = select((x == zero) | (total == inf), inf, total + rest)
        return reflected_or(x, result)

    return lgamma


def _single_lgamma() -> Callable[..., Any]:
    fmt = FLOAT64
    zero, half, one, two, bound, inf = fmt.constants(0.0, 0.5, 1.0, 2.0, 4.5, math.inf)
    first, ln2, constant = (fmt.parts(name, 1)[0] for name in ("one_minus_euler", "ln2", "stirling"))
    coefficients, stirling = fmt.polynomial("lgamma_medium"), fmt.polynomial("stirling_medium")
    log_coefficients = fmt.polynomial("log_medium")
    near, reflected_or = _near(fmt), outside(-0.5, math.inf, _reflected())
    single, double = np.float32, np.float64

    def lgamma(value):
        x = double(value)
        far = x >= bound
        w, u, _, sign = near(x)
        u = select(far, x, u)  # as a float64, normal wherever it is not zero
        k, f = exponent(u), mantissa(u) - one
        s = f / (two + f)
        z = s * s
        log = fma(k, ln2, fma(s * z, polynomial(z, log_coefficients), two * s))
        inverse = one / x
        below = fma(sign, log, w * fma(w, polynomial(w, coefficients), first))
        above = fma(x - half, log - one, fma(inverse, polynomial(inverse * inverse, stirling), constant))
        result = select(far, above, below)
        return reflected_or(value, single(select((x == zero) | (x == inf), inf, result)))

    return lgamma


@formula
def _lgamma(fmt: Format) -> Callable[..., Any]:
    return _double_lgamma() if fmt.digits == 53 else _single_lgamma()


@publish(_lgamma, standard=math.lgamma)
def lgamma(x: Any) -> Any:
    """Logarithm of the absolute value of the gamma function.

    Parameters
    ----------
    x : float32 or float64
        Integers are converted. NumPy has no such function, so arrays are refused; outside of compiled code this is
        `math.lgamma`, which raises at the poles.

    Returns
    -------
    float32 or float64
        Within 1.2 ULP from -1/2 upwards, also about the zeros at 1 and 2; below, float64 is within 2 ULP of the result
        or of 1/4, whichever is more, since it has zeros there; float32 is within 0.52 ULP there too. inf at zero,
        at negative whole numbers and at both infinities.

    Examples
    --------
    >>> from shmarray.kernels.math import lgamma
    >>> float(lgamma(1.0))
    0.0
    """
    return math.lgamma(x)
