"""A job that copies chunks between arrays: from a scratch to where they belong, or the other way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shmarray.chunks import ChunkGrid
from shmarray.engine.job import Binder, Place
from shmarray.engine.operands import Array, Operand
from shmarray.engine.plan import Plan
from shmarray.engine.python_job import ArraySpec, claiming
from shmarray.pool import Lane
from shmarray.registry.scratch import bytes_at
from shmarray.segment.failpoints import ARMED, reach

__all__ = ["CopyJob", "plan_copy"]


@dataclass(frozen=True, slots=True)
class CopyJob:
    """Copy chunk by chunk; any chunk can be copied again.

    Attributes
    ----------
    pairs : tuple of (ArraySpec, ArraySpec)
        From where, to where; all of the grid's shape.
    grid : ChunkGrid
    states : Place, optional
        A byte a chunk that becomes 1 when all copies of the chunk are made.
    """

    pairs: tuple[tuple[ArraySpec, ArraySpec], ...]
    grid: ChunkGrid
    states: Place | None

    def bind(self, binder: Binder) -> Callable[[Lane, int], int]:
        views = [(source.view(binder), target.view(binder)) for source, target in self.pairs]
        states = None
        if self.states is not None:
            key, offset = self.states
            states = bytes_at(offset if key is None else binder.addresses[key] + offset, len(self.grid))

        def do(index: int) -> None:
            core = self.grid.slices(index)
            for source, target in views:
                if ARMED:
                    reach("copy.array")
                target[core] = source[core]
            if states is not None:
                if ARMED:
                    reach("copy.done")
                states[index] = 1

        return claiming(lambda: do)


def plan_copy(name: str, pairs: Sequence[tuple[Array, Array]], grid: ChunkGrid, states: Operand | None = None) -> Plan:
    """A plan that copies (from, to) pairs of arrays of the grid's shape, in the workers alone.

    `states` are the bytes of :class:`CopyJob`, in a segment that one of the pairs is in.
    """
    operands = [(Operand.of(source), Operand.of(target)) for source, target in pairs]
    specs = tuple(
        (ArraySpec.of(source, grid.shape, writable=False), ArraySpec.of(target, grid.shape, writable=True))
        for source, target in operands
    )
    place = None if states is None else states.place
    every = [operand for pair in operands for operand in pair]
    return Plan(name, len(grid), CopyJob(specs, grid, place), every, in_place=False, caller_joins=False)
