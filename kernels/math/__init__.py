"""Elementary functions that LLVM vectorises, for users' own numba code and for the kernels of shmarray.

The PyPI build of numba has no vector math library: `np.exp` in a compiled loop is a call of the C library's
scalar `exp` for each element. The functions here are straight-line arithmetic on one number (fused
multiply-adds, bit operations and selections in place of branches), so LLVM inlines them and turns the loop
around them into vector code.

They keep IEEE 754's special cases (nan, infinities, signed zeros, subnormals, overflow) and are within 1 ULP
for exp, log, sin, cos and their kin and 2 ULP for the others; docs/math.md has the measured errors, the speed
and where each formula comes from. They raise no floating-point flags on purpose and set none reliably.

`SUBSTITUTES` maps NumPy's and the standard library's functions, and the operator `**`, to these; shmarray's
decorators apply it unless told `precise=True`. `source_digest()` names the formulas' current text, for the keys of
caches that hold code compiled from them.

Examples
--------
>>> import numba
>>> import numpy as np
>>> from shmarray.kernels import math as fast
>>> @numba.njit
... def softplus(x, out):
...     for i in range(x.size):
...         out[i] = fast.log1p(fast.exp(x[i]))
>>> out = np.empty(2)
>>> softplus(np.array([0.0, 1.0]), out)
>>> out.round(6).tolist()
[0.693147, 1.313262]
"""

from __future__ import annotations

import functools
import hashlib
import pathlib

from ._publish import SUBSTITUTES
from .error_function import erf, erfc
from .exponential import exp, exp2, expm1
from .gamma_function import lgamma
from .hyperbolic import arccosh, arcsinh, arctanh, cosh, sinh, tanh
from .inverse_trigonometric import arccos, arcsin, arctan, arctan2
from .log_sums import logaddexp, logaddexp2
from .logarithmic import log, log1p, log2, log10
from .powers import cbrt, hypot, power
from .trigonometric import cos, sin, tan
from .whole_powers import LONGEST, whole_power

__all__ = [
    "LONGEST",
    "SUBSTITUTES",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "cbrt",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "hypot",
    "lgamma",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logaddexp2",
    "power",
    "sin",
    "sinh",
    "source_digest",
    "tan",
    "tanh",
    "whole_power",
]


@functools.cache
def source_digest() -> str:
    """A digest of the source of this package: code compiled from other formulas has another one.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> from shmarray.kernels.math import source_digest
    >>> len(source_digest())
    64
    """
    digest = hashlib.sha256()
    folder = pathlib.Path(__file__).parent
    for path in (folder.parent / "_jit.py", *sorted(folder.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()
