"""How far a computed value lies from the true one, in units of the last place of the true one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import mpmath
import numba
import numpy as np

from shmarray.kernels import math as fast

TWO_ARGUMENTS = {"arctan2", "hypot", "power", "logaddexp", "logaddexp2"}


def _lgamma(x: mpmath.mpf) -> mpmath.mpf:
    if mpmath.isint(x) and x <= 0:
        return mpmath.inf
    if x < -0.5:  # mpmath has the complex logarithm, slow for large negative x
        return mpmath.log(mpmath.pi / abs(x * mpmath.sinpi(x))) - mpmath.loggamma(-x)
    return mpmath.re(mpmath.loggamma(x))


def _log_sum(x: mpmath.mpf, y: mpmath.mpf, base: mpmath.mpf) -> mpmath.mpf:
    difference = abs(x - y) * mpmath.log(base)
    if difference > 3000:
        return max(x, y)
    return max(x, y) + mpmath.log1p(mpmath.exp(-difference)) / mpmath.log(base)


#: name -> (mpmath's function, interval of dense points, largest error allowed in ULP)
FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[float, float], float]] = {
    "exp": (mpmath.exp, (-50, 50), 0.9),
    "exp2": (lambda x: mpmath.power(2, x), (-50, 50), 0.9),
    "expm1": (mpmath.expm1, (-3, 3), 1.0),
    "log": (mpmath.log, (0.3, 3), 0.8),
    "log2": (lambda x: mpmath.log(x, 2), (0.3, 3), 0.8),
    "log10": (mpmath.log10, (0.3, 3), 0.8),
    "log1p": (mpmath.log1p, (-0.9, 2), 0.8),
    "sin": (mpmath.sin, (-20, 20), 0.9),
    "cos": (mpmath.cos, (-20, 20), 0.9),
    "tan": (mpmath.tan, (-20, 20), 1.0),
    "arcsin": (mpmath.asin, (-1, 1), 1.3),
    "arccos": (mpmath.acos, (-1, 1), 1.3),
    "arctan": (mpmath.atan, (-5, 5), 2.0),
    "arctan2": (mpmath.atan2, (-5, 5), 2.0),
    "sinh": (mpmath.sinh, (-3, 3), 1.0),
    "cosh": (mpmath.cosh, (-3, 3), 1.0),
    "tanh": (mpmath.tanh, (-3, 3), 1.6),
    "arcsinh": (mpmath.asinh, (-5, 5), 1.2),
    "arccosh": (mpmath.acosh, (1, 5), 1.2),
    "arctanh": (mpmath.atanh, (-1, 1), 1.4),
    "cbrt": (lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)), (-5, 5), 0.6),
    "hypot": (mpmath.hypot, (-5, 5), 1.1),
    "power": (mpmath.power, (0, 10), 1.3),
    "erf": (lambda x: mpmath.erf(x) if abs(x) < 30 else mpmath.sign(x), (-4, 4), 1.0),
    "erfc": (lambda x: mpmath.erfc(x) if abs(x) < 30 else 1 - mpmath.sign(x), (-3, 11), 1.1),
    "lgamma": (_lgamma, (-0.5, 6), 1.2),
    "logaddexp": (lambda x, y: _log_sum(x, y, mpmath.e), (-20, 20), 1.2),
    "logaddexp2": (lambda x, y: _log_sum(x, y, mpmath.mpf(2)), (-20, 20), 1.2),
}

#: What the tests go through together: a test costs more for its surroundings than for a function.
FAMILIES = {
    "exponential": ["exp", "exp2", "expm1"],
    "logarithmic": ["log", "log2", "log10", "log1p"],
    "log sums": ["logaddexp", "logaddexp2"],
    "trigonometric": ["sin", "cos", "tan"],
    "inverse trigonometric": ["arcsin", "arccos", "arctan", "arctan2"],
    "hyperbolic": ["sinh", "cosh", "tanh"],
    "inverse hyperbolic": ["arcsinh", "arccosh", "arctanh"],
    "powers": ["cbrt", "hypot", "power"],
    "error and gamma": ["erf", "erfc", "lgamma"],
}


def least_counted(name: str, *point: float) -> float:
    """The size below which a result's own last place is no measure: near curves on which the function is zero.

    There the error is measured in units of this size.
    """
    if name in ("logaddexp", "logaddexp2"):
        return 0.125
    if name == "lgamma" and point[0] < -0.5:
        return 0.25
    return 0.0


def reference(name: str) -> Callable[..., Any]:
    """A trusted function of float64 arrays: NumPy's, or the C library's where NumPy has none."""
    if hasattr(np, name):
        return getattr(np, name)  # type: ignore[no-any-return]
    standard = getattr(math, name)
    return np.vectorize(numba.njit(lambda x: standard(x)), otypes=[np.float64])


@functools.cache
def compiled(name: str) -> Callable[..., None]:
    """The loop `out[i] = f(x[i])` that a user would write."""
    function = getattr(fast, name)
    if name in TWO_ARGUMENTS:

        @numba.njit(error_model="numpy")
        def pairs(x, y, out):  # type: ignore[no-untyped-def]
            for i in range(out.size):
                out[i] = function(x[i], y[i])

        return pairs  # type: ignore[no-any-return]

    @numba.njit(error_model="numpy")
    def singles(x, out):  # type: ignore[no-untyped-def]
        for i in range(out.size):
            out[i] = function(x[i])

    return singles  # type: ignore[no-any-return]


def evaluate(name: str, *arguments: np.ndarray) -> np.ndarray:
    out = np.empty_like(arguments[0])
    compiled(name)(*arguments, out)
    return out


def error_in_ulp(computed: np.floating, true: mpmath.mpf, least: float = 0.0) -> float:
    """The distance, where the true value is finite and within the range of the format.

    In units of the last place of the true value, or of `least` if that is larger.
    """
    info = np.finfo(type(computed))
    size = max(abs(true), mpmath.mpf(least))
    exponent = max(int(mpmath.frexp(size)[1]) - 1, int(info.minexp)) if size else int(info.minexp)
    return float(abs(mpmath.mpf(float(computed)) - true) / mpmath.ldexp(1, exponent - info.nmant))
