"""How far a computed value lies from the true one, in units of the last place of the true one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import mpmath
import numba
import numpy as np

from shmarray.kernels import math as fast

TWO_ARGUMENTS = {"arctan2", "hypot", "power"}

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
}


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


def error_in_ulp(computed: np.floating, true: mpmath.mpf) -> float:
    """The distance, where the true value is finite and within the range of the format."""
    info = np.finfo(type(computed))
    exponent = max(int(mpmath.frexp(true)[1]) - 1, int(info.minexp)) if true else int(info.minexp)
    return float(abs(mpmath.mpf(float(computed)) - true) / mpmath.ldexp(1, exponent - info.nmant))
