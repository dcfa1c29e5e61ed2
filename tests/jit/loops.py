"""Drivers like the engine's, for tests: loops over raw addresses with int64 parameters only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic

from shmarray import jit


@intrinsic
def _float64_pointer(typing_context: Any, address: Any) -> Any:
    signature = numba.types.CPointer(numba.types.float64)(numba.types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, generate


def binary(scalar: Any) -> Callable[[], Callable[..., int]]:
    """`y[i] = scalar(x[i], y[i])` for `n` float64."""

    def make() -> Callable[..., int]:
        def run(x_address, y_address, n, budget_ns):  # type: ignore[no-untyped-def]
            x = numba.carray(_float64_pointer(x_address), n)
            y = numba.carray(_float64_pointer(y_address), n)
            for i in range(n):
                y[i] = scalar(x[i], y[i])
            return n

        return run

    return make


def whole(function: Any) -> Callable[[], Callable[..., int]]:
    """`function(x, y)` on the two arrays."""

    def make() -> Callable[..., int]:
        def run(x_address, y_address, n, budget_ns):  # type: ignore[no-untyped-def]
            function(numba.carray(_float64_pointer(x_address), n), numba.carray(_float64_pointer(y_address), n))
            return n

        return run

    return make


def compiled(function: Any, *, driver: Any = binary, precise: bool = False, debug: bool = False) -> jit.Code:
    """Compile a user's function under the driver, as the engine does."""
    scalar = jit.scalar(function, precise=precise, debug=debug)
    key = (driver.__name__, jit.fingerprint(scalar))
    return jit.compile(driver(scalar), (numba.int64,) * 4, key=key)


def apply(entry: Callable[..., int], x: Any, y: Any) -> np.ndarray[Any, Any]:
    """Run it on copies of two float64 arrays, and return what became of `y`."""
    x, y = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)
    assert entry(x.ctypes.data, y.ctypes.data, x.size, 0) == x.size
    return y


def asserts(x: float, y: float) -> float:
    # Here and not in a test module, where pytest rewrites it into what numba cannot compile.
    assert x <= 3.0, "no more than three"
    return y
