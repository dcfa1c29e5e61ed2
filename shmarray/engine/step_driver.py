"""The driver of steps: call a loop of `shmarray.kernels` with the number of each task and the same arguments.

The block of numbers that a driver reads (64-bit words) is the arguments one after another: an array is its address, its
extents and its strides; an integer or a float is one word. Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from shmarray.engine.calls import emit_call, resolve
from shmarray.engine.memory import array_view, load_word
from shmarray.engine.steps import Kind
from shmarray.kernels.vectors import wide_vectors
from shmarray.pool.atomics import monotonic_ns
from shmarray.pool.dispatch import claim, finish, over_budget

__all__ = ["make_driver"]

_f64 = ir.DoubleType()


def make_driver(function: Any, kinds: Sequence[Kind]) -> Callable[[int, int, int, int], int]:
    """A driver, to be compiled for four int64 arguments (page, block, lane, budget in nanoseconds).

    Parameters
    ----------
    function : numba dispatcher
        Takes the task's number and the arguments; what it returns is dropped.
    kinds : sequence of Kind
        Of the arguments.
    """
    call = _make_call(function, [_type(kind) for kind in kinds])

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        wide_vectors()
        started = monotonic_ns()
        while True:
            index = claim(page, lane)
            if index < 0:
                return 0
            call(block, index)
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


def _type(kind: Kind) -> types.Type:
    if isinstance(kind, str):
        return {"int": types.int64, "float": types.float64}[kind]
    dtype, n_dims, packed = kind
    return types.Array(from_dtype(dtype), n_dims, "C" if packed else "A")


def _make_call(function: Any, arguments: Sequence[types.Type]) -> Any:
    """A compiled function (block, number) that calls the loop."""

    @intrinsic
    def call(typingctx, block, index):  # type: ignore[no-untyped-def]
        resolved = resolve(typingctx, function, (types.int64, *arguments))

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            block, index = args
            values, word = [index], 0
            for kind in arguments:
                value = load_word(builder, block, word)
                word += 1
                if isinstance(kind, types.Array):
                    n = kind.ndim
                    shape, steps = ([load_word(builder, block, word + first + d) for d in range(n)] for first in (0, n))
                    word += 2 * n
                    value = array_view(context, builder, kind, value, shape, steps)
                elif kind == types.float64:
                    value = builder.bitcast(value, _f64)
                values.append(value)
            emit_call(context, builder, function, resolved, values)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return call
