"""The driver of ready-made kernels that see whole arrays and are told which units of work are theirs.

A kernel is a compiled function `kernel(first, last, *values)`; chunk number i is its units from `i * step` to
`(i + 1) * step`. What a unit is (a row, a block of columns) is the kernel's affair; the driver knows the count alone.

The block of numbers that a driver reads (64-bit words)::

    0      units altogether
    1      units of a chunk
    2      of an array: address, extents, strides; of a scalar: address; one after another

Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np import arrayobj

from shmarray.engine.calls import emit_call, resolve
from shmarray.engine.memory import item_pointer, read_word
from shmarray.kernels.vectors import wide_vectors
from shmarray.pool.atomics import monotonic_ns
from shmarray.pool.dispatch import claim, finish, over_budget

__all__ = ["make_driver"]

_i64 = ir.IntType(64)


def make_driver(function: Any, kinds: Sequence[types.Type]) -> Callable[[int, int, int, int], int]:
    """A driver, to be compiled for four int64 arguments (page, block, lane, budget in nanoseconds).

    Parameters
    ----------
    function : numba dispatcher
        `kernel(first, last, *values)`; what it returns is dropped.
    kinds : sequence of type
        Of the values: arrays and scalars.
    """
    call = _make_call(function, list(kinds))

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        wide_vectors()
        started = monotonic_ns()
        units, step = read_word(block, 0), read_word(block, 1)
        while True:
            index = claim(page, lane)
            if index < 0:
                return 0
            call(block, index * step, min(units, (index + 1) * step))
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


def _make_call(function: Any, kinds: list[types.Type]) -> Any:
    """A compiled function (block, first, last) that calls the kernel."""

    @intrinsic
    def call(typingctx, block, first, last):  # type: ignore[no-untyped-def]
        resolved = resolve(typingctx, function, (types.int64, types.int64, *kinds))

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            block, first, last = args
            word = 2

            def take(count: int) -> list[Any]:
                nonlocal word
                pointer = builder.inttoptr(block, _i64.as_pointer())
                taken = [builder.load(builder.gep(pointer, [_i64(word + i)])) for i in range(count)]
                word += count
                return taken

            values = [first, last]
            for kind in kinds:
                (address,) = take(1)
                if isinstance(kind, types.Array):
                    made = arrayobj.make_array(kind)(context, builder)
                    item = context.get_data_type(kind.dtype)
                    arrayobj.populate_array(
                        made,
                        data=builder.inttoptr(address, item.as_pointer()),
                        shape=take(kind.ndim),
                        strides=take(kind.ndim),
                        itemsize=context.get_constant(types.intp, context.get_abi_sizeof(item)),
                        meminfo=None,
                    )
                    values.append(made._getvalue())
                else:
                    values.append(context.unpack_value(builder, kind, item_pointer(context, builder, kind, address)))
            emit_call(context, builder, function, resolved, values)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    return call
