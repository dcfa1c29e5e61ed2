"""The driver of scalar functions: claim a chunk, walk its rows, apply the function to each item.

The block of numbers that a driver reads (64-bit words)::

    0                 number of dimensions n
    1 + 4 d           extent, chunk, count, weight of dimension d (see `shmarray.engine.layout`)
    1 + 4 n + k(1+n)  operand k: address, then its stride in each dimension; inputs first, outputs last

The last dimension is the row. Where all strides in it are the items' sizes the row loop is told to the compiler as
free of dependences between its turns (`llvm.loop.parallel_accesses`), which holds since an output either is an input,
element for element, or shares no memory with any (the caller of the engine has checked). So it vectorises without
run-time alias checks, in place too. Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.cpython.unsafe.tuple import tuple_setitem
from numba.extending import intrinsic

from shmarray.engine.memory import read_word
from shmarray.kernels.vectors import wide_vectors
from shmarray.pool.atomics import monotonic_ns
from shmarray.pool.dispatch import claim, finish, over_budget

__all__ = ["ARITY", "make_driver"]

#: Integers that a driver takes: page, block, lane, budget in nanoseconds.
ARITY = 4

_i32, _i64 = ir.IntType(32), ir.IntType(64)


def make_driver(
    function: Any, inputs: Sequence[tuple[types.Type, bool]], outputs: Sequence[types.Type]
) -> Callable[[int, int, int, int], int]:
    """A driver, to be compiled for `ARITY` int64 arguments.

    Parameters
    ----------
    function : numba dispatcher
        Takes one scalar an input, gives one value or a tuple with one an output.
    inputs : sequence of (type, bool)
        The items' types, and whether an operand is one value for all.
    outputs : sequence of type
        The items' types of the outputs; values are cast to them.
    """
    apply_row = _make_row(function, inputs, outputs)
    n_operands = len(inputs) + len(outputs)
    zeros = (0,) * n_operands

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        wide_vectors()
        started = monotonic_ns()
        n_dims = read_word(block, 0)
        row = n_dims - 1
        while True:
            index = claim(page, lane)
            if index < 0:
                return 0
            # Of the row: where it starts and how long it is. Of the other dimensions: how many rows.
            dim = 1 + 4 * row
            chunk = read_word(block, dim + 1)
            begin = (index // read_word(block, dim + 3)) % read_word(block, dim + 2) * chunk
            length = min(chunk, read_word(block, dim) - begin)
            n_rows = 1
            for d in range(row):
                dim = 1 + 4 * d
                chunk = read_word(block, dim + 1)
                first = (index // read_word(block, dim + 3)) % read_word(block, dim + 2) * chunk
                n_rows *= min(chunk, read_word(block, dim) - first)
            strides = zeros
            for k in range(n_operands):
                strides = tuple_setitem(strides, k, read_word(block, 1 + 4 * n_dims + k * (1 + n_dims) + 1 + row))
            for r in range(n_rows):
                addresses = zeros
                for k in range(n_operands):
                    operand = 1 + 4 * n_dims + k * (1 + n_dims)
                    addresses = tuple_setitem(
                        addresses, k, read_word(block, operand) + begin * read_word(block, operand + 1 + row)
                    )
                rest = r
                for back in range(row):
                    d = row - 1 - back
                    dim = 1 + 4 * d
                    chunk = read_word(block, dim + 1)
                    first = (index // read_word(block, dim + 3)) % read_word(block, dim + 2) * chunk
                    extent = min(chunk, read_word(block, dim) - first)
                    here = first + rest % extent
                    rest //= extent
                    for k in range(n_operands):
                        step = read_word(block, 1 + 4 * n_dims + k * (1 + n_dims) + 1 + d)
                        addresses = tuple_setitem(addresses, k, addresses[k] + here * step)
                apply_row(addresses, strides, length)
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


def _make_row(function: Any, inputs: Sequence[tuple[types.Type, bool]], outputs: Sequence[types.Type]) -> Any:
    """A compiled function (addresses, strides, length) that applies the scalar function along one row."""
    n_inputs, n_operands = len(inputs), len(inputs) + len(outputs)
    items = [item for item, _ in inputs] + list(outputs)
    constant = [is_constant for _, is_constant in inputs] + [False] * len(outputs)
    argtypes = tuple(item for item, _ in inputs)

    @intrinsic
    def apply_row(typingctx, addresses, strides, length):  # type: ignore[no-untyped-def]
        result = typingctx.resolve_function_type(types.Dispatcher(function), argtypes, {})

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            starts = cgutils.unpack_tuple(builder, args[0], n_operands)
            steps = cgutils.unpack_tuple(builder, args[1], n_operands)
            length = args[2]
            call = context.get_function(types.Dispatcher(function), result)
            for library in getattr(call, "libs", ()):
                context.active_code_library.add_linking_library(library)
            sizes = [context.get_abi_sizeof(context.get_data_type(item)) for item in items]
            values: list[Any] = [None] * n_operands
            for k in range(n_inputs):
                if constant[k]:
                    pointer = _item_pointer(context, builder, items[k], starts[k])
                    values[k] = context.unpack_value(builder, items[k], pointer)

            def loop(contiguous: bool) -> None:
                group = _DistinctNode(builder.module) if contiguous else None
                with cgutils.for_range(builder, length) as turn:
                    places: list[Any] = []
                    for k in range(n_operands):
                        if constant[k]:
                            places.append(None)
                            continue
                        step = _i64(sizes[k]) if contiguous else steps[k]
                        if contiguous:
                            base = _item_pointer(context, builder, items[k], starts[k])
                            places.append(builder.gep(base, [turn.index], inbounds=True))
                        else:
                            address = builder.add(starts[k], builder.mul(turn.index, step))
                            places.append(_item_pointer(context, builder, items[k], address))
                    here = list(values)
                    with _in_group(builder, group):
                        for k in range(n_inputs):
                            if not constant[k]:
                                here[k] = context.unpack_value(builder, items[k], places[k])
                    value = call(builder, here[:n_inputs])
                    parts = [value]
                    kinds = [result.return_type]
                    if isinstance(result.return_type, types.BaseTuple):
                        parts = cgutils.unpack_tuple(builder, value, len(outputs))
                        kinds = list(result.return_type)
                    with _in_group(builder, group):
                        for place, part, kind, item in zip(places[n_inputs:], parts, kinds, outputs, strict=True):
                            context.pack_value(builder, item, context.cast(builder, part, kind, item), place)
                    body = builder.block
                if group is not None:
                    _mark_parallel(body, group)

            contiguous = cgutils.true_bit
            for k in range(n_operands):
                if not constant[k]:
                    contiguous = builder.and_(contiguous, builder.icmp_signed("==", steps[k], _i64(sizes[k])))
            with builder.if_else(contiguous) as (then, otherwise):
                with then:
                    loop(True)
                with otherwise:
                    loop(False)
            return context.get_dummy_value()

        row = types.UniTuple(types.int64, n_operands)
        return types.void(row, row, types.int64), codegen

    return apply_row


def _item_pointer(context: Any, builder: Any, item: types.Type, address: Any) -> Any:
    kind = context.data_model_manager[item].get_data_type()
    return builder.inttoptr(address, kind.as_pointer())


@contextmanager
def _in_group(builder: Any, group: _DistinctNode | None) -> Iterator[None]:
    """Put the loads and stores emitted inside into an access group of a loop."""
    before = {id(instruction) for instruction in builder.block.instructions}
    yield
    if group is not None:
        for instruction in builder.block.instructions:
            if id(instruction) not in before and instruction.opname in ("load", "store"):
                instruction.set_metadata("llvm.access.group", group)


def _mark_parallel(body: Any, group: _DistinctNode) -> None:
    """Say that turns of the loop whose last block is `body` do not depend on each other through the group's
    accesses."""
    module = body.function.module
    loop = _DistinctNode(module)
    loop.operands = (loop, module.add_metadata(["llvm.loop.parallel_accesses", group]))
    body.terminator.set_metadata("llvm.loop", loop)


class _DistinctNode(ir.values.MDValue):  # type: ignore[misc]  # llvmlite has no types
    """A metadata node with an identity of its own, as loops and access groups need; llvmlite writes only uniqued
    ones."""

    def __init__(self, module: Any) -> None:
        super().__init__(module, (), name=str(len(module.metadata)))

    def descr(self, buf: list[str]) -> None:
        references = ", ".join(operand.get_reference() for operand in self.operands)
        buf += (f"distinct !{{ {references} }}", "\n")

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)
