"""Loops over rows of items, told to the compiler as free of dependences between their turns.

So they vectorise without run-time checks for aliases (`llvm.loop.parallel_accesses`). That holds since an output either
is an input, element for element, or shares no memory with any: the callers of the engine have checked.
Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from shmarray.engine.memory import item_pointer

__all__ = ["Row", "emit_rows"]

_i64 = ir.IntType(64)


class Row:
    """The loop being made, for the code of its turn: where the items of this turn are."""

    def __init__(self, places: Sequence[Any], group: _DistinctNode | None) -> None:
        self.places, self._group = places, group

    @contextmanager
    def accesses(self, builder: Any) -> Iterator[None]:
        """Loads and stores of items go inside: they are what turns do not depend on each other through."""
        before = {id(instruction) for instruction in builder.block.instructions}
        yield
        if self._group is not None:
            for instruction in builder.block.instructions:
                if id(instruction) not in before and instruction.opname in ("load", "store"):
                    instruction.set_metadata("llvm.access.group", self._group)


def emit_rows(
    context: Any,
    builder: Any,
    items: Sequence[types.Type | None],
    starts: Sequence[Any],
    steps: Sequence[Any],
    length: Any,
    turn: Callable[[Row], None],
) -> None:
    """Make a loop over a row: once for items side by side, and once for any steps.

    Parameters
    ----------
    context, builder
        numba's, inside an intrinsic.
    items : sequence of type
        Of each operand; None for one that is not walked, whose place is None.
    starts, steps : sequence of int64 values
        Of each operand: address of its first item, and bytes from one to the next.
    length : int64 value
    turn : callable
        Makes the code of one turn.
    """
    sizes = [None if item is None else _i64(context.get_abi_sizeof(context.get_data_type(item))) for item in items]

    def loop(*, packed: bool) -> None:
        group = _DistinctNode(builder.module) if packed else None
        with cgutils.for_range(builder, length) as at:
            places: list[Any] = []
            for item, start, step in zip(items, starts, steps, strict=True):
                if item is None:
                    places.append(None)
                elif packed:
                    first = item_pointer(context, builder, item, start)
                    places.append(builder.gep(first, [at.index], inbounds=True))
                else:
                    address = builder.add(start, builder.mul(at.index, step))
                    places.append(item_pointer(context, builder, item, address))
            turn(Row(places, group))
            last_block = builder.block
        if group is not None:
            _mark_parallel(last_block, group)

    is_packed = cgutils.true_bit
    for size, step in zip(sizes, steps, strict=True):
        if size is not None:
            is_packed = builder.and_(is_packed, builder.icmp_signed("==", step, size))
    with builder.if_else(is_packed) as (then, otherwise):
        with then:
            loop(packed=True)
        with otherwise:
            loop(packed=False)


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
