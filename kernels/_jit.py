"""The one place that owns every numba option of the kernels.

Loops release the GIL, divide as NumPy does (a zero divisor gives inf or nan and raises nothing, which is also
what lets a loop with a division vectorise), and never reorder floating-point sums on their own: fast-math is
off, a loop that wants several accumulators writes them out. Nothing is cached by numba: the jit layer of
shmarray has its own cache, and numba's races between processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba import extending

F = TypeVar("F", bound=Callable[..., Any])

#: Options of a loop over an array.
LOOP: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False, "boundscheck": False}

#: Options of a scalar function that loops call: LLVM must see its body inside the loop to vectorise that.
SCALAR: dict[str, Any] = {**LOOP, "forceinline": True}


def loop(function: F) -> F:
    """Compile a loop over arrays, at its first call with each signature."""
    return cast(F, numba.njit(**LOOP)(function))


def part(function: F) -> F:
    """Compile a loop that only other compiled loops call: without the code that Python would call it by."""
    return cast(F, numba.njit(**LOOP, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function))


def inlined(function: F) -> F:
    """Compile a scalar function into each of its callers."""
    return cast(F, numba.njit(**SCALAR)(function))


def intrinsic(function: Callable[..., Any]) -> Any:
    """`numba.extending.intrinsic`: what it returns is called without the typing context."""
    return extending.intrinsic(function)


def overload(target: Callable[..., Any]) -> Callable[[F], F]:
    """`numba.extending.overload` with the options of scalar functions, typed."""
    return cast("Callable[[F], F]", extending.overload(target, jit_options=cast(Any, SCALAR), strict=False))
