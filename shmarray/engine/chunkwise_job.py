"""The job of a compiled whole-chunk function: a block, and what is wrong with an array of another shape in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from shmarray.chunks import ChunkGrid
from shmarray.engine.job import Binder, BlockJob
from shmarray.engine.python_job import chunk_window, wrong_shape
from shmarray.pool import Lane

__all__ = ["ChunkwiseJob"]


@dataclass(frozen=True, slots=True)
class ChunkwiseJob(BlockJob):
    """Machine code raises constant messages; the shape that it complains of stands in the block.

    Attributes
    ----------
    name : str
        The function's.
    grid : ChunkGrid
    halo : tuple of int
    returned : range
        The words that get the shape; -1 before.
    """

    name: str = ""
    grid: ChunkGrid = field(default_factory=lambda: ChunkGrid((), ()))
    halo: tuple[int, ...] = ()
    returned: range = range(0)

    def bind(self, binder: Binder) -> Callable[[Lane, int], int]:
        run, memory = self._bind(binder)
        words = memory[self.returned.start : self.returned.stop]

        def explaining(lane: Lane, budget_ns: int) -> int:
            try:
                return run(lane, budget_ns)
            except ValueError as error:
                shape = tuple(words.tolist())
                words[:] = -1
                if -1 in shape:  # the function itself has raised it
                    raise
                info, _ = chunk_window(self.grid, self.halo, lane.current)
                raise wrong_shape(self.name, shape, info) from error.__cause__

        return explaining
