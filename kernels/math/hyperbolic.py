"""sinh, cosh, tanh and their inverses: an odd polynomial near zero, exponentials or logarithms away from it.

Near zero the exponentials would cancel; there `f(x) = x + x**3 P(x**2)`. Elsewhere sinh and cosh add
`exp(x)/2` and its reciprocal (halved before scaling, so that it overflows only where the result does), tanh
is `1 - 2 / (exp(2x) + 1)`.

arcsinh and arccosh are `log(x + sqrt(x**2 +- 1))`. One rounding of that sum would be worth several ULP of the
logarithm, so the square, the root and the sum each carry what they rounded away, and `log_of_sum` takes
both parts. Where the square would overflow the result is `log(2 x)`.
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
from .exponential import clamped, reduced, scaled
from .logarithmic import log_of_sum, natural_log

__all__ = ["arccosh", "arcsinh", "arctanh", "cosh", "sinh", "tanh"]


@formula
def _half_exp(fmt: Format) -> Callable[..., Any]:
    """`(high, low)` with `high + low = exp(x) / 2`, for x >= 0."""
    (one,) = fmt.constants(1.0)
    coefficients = fmt.polynomial("exp")
    held = clamped(*fmt.constants(-1.0, 711.0 if fmt.digits == 53 else 90.0))
    reduce, scale = reduced(fmt), scaled(fmt)

    def half_exp(x):
        x = held(x)
        shifted, r, _ = reduce(x)
        head = one + r
        tail = fma(r * r, polynomial(r, coefficients), r - (head - one))
        y = head + tail
        return scale(y, shifted - one, x), scale((head - y) + tail, shifted - one, x)

    return half_exp


@formula
def _sinh(fmt: Format) -> Callable[..., Any]:
    zero, one, quarter, inf = fmt.constants(0.0, 1.0, 0.25, math.inf)
    coefficients = fmt.polynomial("sinh")
    half_exp = _half_exp(fmt)

    def sinh(x):
        size = absolute(x)
        z = size * size
        near = fma(size * z, polynomial(z, coefficients), size)
        high, low = half_exp(size)
        inverse = quarter / high
        far = high - inverse
        far += select(far < inf, ((high - far) - inverse) + low, zero)
        return copy_sign(select(size < one, near, far), x)

    return sinh


@formula
def _cosh(fmt: Format) -> Callable[..., Any]:
    zero, quarter, inf = fmt.constants(0.0, 0.25, math.inf)
    half_exp = _half_exp(fmt)

    def cosh(x):
        high, low = half_exp(absolute(x))
        inverse = quarter / high
        total = high + inverse
        return total + select(total < inf, ((high - total) + inverse) + low, zero)

    return cosh


@formula
def _tanh(fmt: Format) -> Callable[..., Any]:
    one, half, two, bound = fmt.constants(1.0, 0.5, 2.0, 0.55)
    coefficients = fmt.polynomial("tanh")
    # Above this the result is 1 to the last bit.
    held = clamped(*fmt.constants(-1.0, 20.0 if fmt.digits == 53 else 10.0))
    half_exp = _half_exp(fmt)

    def tanh(x):
        size = held(absolute(x))
        z = size * size
        near = fma(size * z, polynomial(z, coefficients), size)
        high, low = half_exp(two * size)
        far = one - one / (high + half + low)
        return copy_sign(select(size < bound, near, far), x)

    return tanh


@formula
def _root_of_sum(fmt: Format) -> Callable[..., Any]:
    """`(w, error) -> (high, low)` with `high + low = sqrt(w + error)`."""
    zero, half = fmt.constants(0.0, 0.5)

    def root_of_sum(w, error):
        high = root(w)
        low = half * (fma(-high, high, w) + error) / high
        return high, select(high > zero, low, zero)

    return root_of_sum


@formula
def _arcsinh(fmt: Format) -> Callable[..., Any]:
    zero, one, half, inf = fmt.constants(0.0, 1.0, 0.5, math.inf)
    large = fmt.real(2.0 ** (fmt.digits // 2 + 6))
    coefficients = fmt.polynomial("arcsinh")
    ln2_high, ln2_low = fmt.parts("ln2", 2)
    root_of, log_of = _root_of_sum(fmt), log_of_sum(fmt)

    def arcsinh(x):
        size = absolute(x)
        z = size * size
        near = fma(size * z, polynomial(z, coefficients), size)
        # sqrt(x**2 + 1) + x, or x alone where the rest is beyond the last bit
        big = size > large
        a = select(big, one, size)
        square = a * a
        w = square + one
        back = w - square
        error = (square - (w - back)) + (one - back) + fma(a, a, -square)
        high, low = root_of(w, error)
        u = high + a
        u_low = ((high - u) + a) + low
        far = log_of(select(big, size, u), select(big, zero, u_low))
        far += select(big, ln2_high + ln2_low, zero)
        far = select(size < inf, far, size)
        return copy_sign(select(size < half, near, far), x)

    return arcsinh


@formula
def _arccosh(fmt: Format) -> Callable[..., Any]:
    zero, one, inf, nan = fmt.constants(0.0, 1.0, math.inf, math.nan)
    large = fmt.real(2.0 ** (fmt.digits // 2 + 6))
    ln2_high, ln2_low = fmt.parts("ln2", 2)
    root_of, log_of = _root_of_sum(fmt), log_of_sum(fmt)

    def arccosh(x):
        big = x > large
        a = select(big, one, x)
        square = a * a
        w = square - one
        error = ((square - w) - one) + fma(a, a, -square)
        high, low = root_of(w, error)
        u = a + high
        u_low = ((a - u) + high) + low
        result = log_of(select(big, x, u), select(big, zero, u_low))
        result += select(big, ln2_high + ln2_low, zero)
        result = select(x < inf, result, x)
        return select(x >= one, result, nan)

    return arccosh


@formula
def _arctanh(fmt: Format) -> Callable[..., Any]:
    one, half = fmt.constants(1.0, 0.5)
    coefficients = fmt.polynomial("arctanh")
    log = natural_log(fmt)

    def arctanh(x):
        size = absolute(x)
        z = size * size
        near = fma(size * z, polynomial(z, coefficients), size)
        far = half * log((one + size) / (one - size))
        return copy_sign(select(size < half, near, far), x)

    return arctanh


@publish(_sinh, np.sinh, standard=math.sinh)
def sinh(x: Any) -> Any:
    """Hyperbolic sine.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1.5 ULP; the sign of zero kept.

    Examples
    --------
    >>> from shmarray.kernels.math import sinh
    >>> float(sinh(0.0))
    0.0
    """
    return np.sinh(x)


@publish(_cosh, np.cosh, standard=math.cosh)
def cosh(x: Any) -> Any:
    """Hyperbolic cosine.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1.5 ULP.

    Examples
    --------
    >>> from shmarray.kernels.math import cosh
    >>> float(cosh(0.0))
    1.0
    """
    return np.cosh(x)


@publish(_tanh, np.tanh, standard=math.tanh)
def tanh(x: Any) -> Any:
    """Hyperbolic tangent.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1.5 ULP; the sign of zero kept.

    Examples
    --------
    >>> from shmarray.kernels.math import tanh
    >>> float(tanh(0.0))
    0.0
    """
    return np.tanh(x)


@publish(_arcsinh, np.arcsinh, standard=math.asinh)
def arcsinh(x: Any) -> Any:
    """Inverse hyperbolic sine.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1.5 ULP; the sign of zero kept.

    Examples
    --------
    >>> from shmarray.kernels.math import arcsinh
    >>> float(arcsinh(0.0))
    0.0
    """
    return np.arcsinh(x)


@publish(_arccosh, np.arccosh, standard=math.acosh)
def arccosh(x: Any) -> Any:
    """Inverse hyperbolic cosine.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1.5 ULP; nan below 1.

    Examples
    --------
    >>> from shmarray.kernels.math import arccosh
    >>> float(arccosh(1.0))
    0.0
    """
    return np.arccosh(x)


@publish(_arctanh, np.arctanh, standard=math.atanh)
def arctanh(x: Any) -> Any:
    """Inverse hyperbolic tangent.

    Parameters
    ----------
    x : float32 or float64

    Returns
    -------
    float32 or float64
        Within 1.5 ULP; infinite at -1 and 1, nan outside, the sign of zero kept.

    Examples
    --------
    >>> from shmarray.kernels.math import arctanh
    >>> float(arctanh(0.0))
    0.0
    """
    return np.arctanh(x)
