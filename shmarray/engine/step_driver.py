"""The driver of steps: call a loop of `shmarray.kernels` with each task and the same arguments.

The block of numbers that a driver reads (64-bit words)::

    0    units of work in all and units of a task, where tasks are ranges of units
    then the arguments one after another: an array is its address, its extents and its strides; a scalar is itself

Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype, from_dtype

from shmarray.engine.calls import emit_call, resolve
from shmarray.engine.memory import array_view, item_pointer, load_word
from shmarray.engine.steps import Kind
from shmarray.kernels.vectors import wide_vectors
from shmarray.pool.atomics import monotonic_ns
from shmarray.pool.dispatch import claim, finish, over_budget

__all__ = ["make_driver"]

_i64 = ir.IntType(64)
_WORD_NBYTES = 8


def make_driver(function: Any, kinds: Sequence[Kind], *, by_units: bool = False) -> Callable[[int, int, int, int], int]:
    """A driver, to be compiled for four int64 arguments (page, block, lane, budget in nanoseconds).

    Parameters
    ----------
    function : numba dispatcher
        Takes the task and the arguments; what it returns is dropped.
    kinds : sequence of Kind
        Of the arguments.
    by_units : bool
        The task is two numbers: its first unit of work, and the one behind its last. Otherwise it is its own number.
    """
    call = _make_call(function, [_type(kind) for kind in kinds], by_units=by_units)

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
    dtype, n_dims, packed = kind
    return from_dtype(dtype) if n_dims is None else types.Array(from_dtype(dtype), n_dims, "C" if packed else "A")


def _make_call(function: Any, arguments: Sequence[types.Type], *, by_units: bool) -> Any:
    """A compiled function (block, number of a task) that calls the loop."""

    @intrinsic
    def call(typingctx, block, index):  # type: ignore[no-untyped-def]
        resolved = resolve(typingctx, function, ([types.int64] * (2 if by_units else 1)) + list(arguments))

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            block, index = args
            values, word = [index], 0
            if by_units:
                units, step = load_word(builder, block, 0), load_word(builder, block, 1)
                first, word = builder.mul(index, step), 2
                stop = builder.add(first, step)
                values = [first, builder.select(builder.icmp_signed("<", stop, units), stop, units)]
            for kind in arguments:
                if isinstance(kind, types.Array):
                    address, n = load_word(builder, block, word), kind.ndim
                    word += 1
                    shape, steps = ([load_word(builder, block, word + at + d) for d in range(n)] for at in (0, n))
                    word += 2 * n
                    values.append(array_view(context, builder, kind, address, shape, steps))
                else:
                    place = builder.add(block, _i64(word * _WORD_NBYTES))
                    pointer = item_pointer(context, builder, kind, place)
                    values.append(context.unpack_value(builder, kind, pointer))
                    word += -(-as_dtype(kind).itemsize // _WORD_NBYTES)
            emit_call(context, builder, function, resolved, values)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return call
