"""Calls that change arrays once or not at all: compute into a scratch, COMMIT, copy, DONE.

The kernel runs as if out of place, on a scratch in place of the arrays that it changes; so a chunk whose worker died
is done again, and chunks read the old values until all of a window are done. Then the window is committed by one store,
and copied by the workers; whoever dies, a copy can be made again (`shmarray.registry.journal`). A call whose results
fit one window has happened as a whole or not at all.

Invariant: however a call ends that the caller lives through, each chunk is done or as it was, and where that is neither
all nor none of them, the error and the arrays say so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from shmarray import registry
from shmarray.chunks import ChunkGrid
from shmarray.engine.copying import plan_copy
from shmarray.engine.execution import run_part
from shmarray.engine.operands import Array, Operand
from shmarray.engine.options import Options
from shmarray.engine.plan import Plan
from shmarray.engine.progress import watching
from shmarray.errors import WorkerDiedError
from shmarray.interrupts import held_back
from shmarray.pool import current_worker, get_pool
from shmarray.registry.journal import Changed, Journal
from shmarray.registry.scratch import Block, bytes_at
from shmarray.segment import Segment

__all__ = ["run_crash_safe"]

#: Bytes of scratch that a call takes, where its chunks do not read each other: room enough that waiting for the last
#: lane of a window costs little, and little enough that pages are touched for the first time once.
WINDOW_NBYTES = 64 * 1024 * 1024
_CHUNKS_A_LANE = 4  # a window has at least so many


def run_crash_safe(
    name: str,
    grid: ChunkGrid,
    arrays: Sequence[Array],
    make_plan: Callable[[list[Array]], Plan],
    options: Options,
    *,
    whole: bool = False,
    filled: bool = False,
) -> int:
    """Run a kernel that changes arrays, each chunk once or not at all.

    Parameters
    ----------
    name : str
        The kernel's, for messages.
    grid : ChunkGrid
    arrays : sequence of ndarray
        What is changed: of the grid's shape, in shared memory, no two sharing any.
    make_plan : callable
        Makes the plan of the kernel with other arrays, of the same shape and dtype, in place of `arrays`. Of these only
        the chunks at hand are memory: nothing else of them may be read or written.
    options : Options
    whole : bool
        Chunks read what other chunks change: nothing is committed until all are done.
    filled : bool
        The kernel changes what it finds: the scratch begins as a copy of `arrays`.

    Returns
    -------
    int
        Floating-point flags.
    """
    n_chunks = len(grid)
    if not n_chunks:
        return 0
    axis, extent, step = _windows(grid, arrays, 1 if whole else _n_lanes(options), whole=whole)
    operands = [Operand.of(array) for array in arrays]
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    flags = 0
    with (
        Journal(name, grid, axis, extent, [_changed(operand) for operand in operands]) as journal,
        watching(options.progress, n_chunks, name) as watch,
    ):
        copies = replace(options, timeout=None, progress=False)
        leased = frozenset([journal.segment.key]) if journal.named else frozenset()
        states = Operand(journal.states, journal.segment, journal.segment.address + journal.layout.states_at)
        for first in range(0, n_chunks, step):
            stop = min(n_chunks, first + step)
            begins = journal.open_window(first, stop)
            scratch = [
                _window_array(journal.segment, block, begins, axis, array)
                for block, array in zip(journal.layout.blocks, arrays, strict=True)
            ]
            plan = make_plan(scratch)
            plan.in_place, plan.leased = False, leased
            back = plan_copy(f"{name} (commit)", list(zip(scratch, arrays, strict=True)), grid, states)
            fill: Plan | None = None
            if filled:
                fill = plan_copy(f"{name} (copy)", list(zip(arrays, scratch, strict=True)), grid)
                fill.leased = leased
            back.leased = leased

            def prepare(start: int, end: int, fill: Plan | None = fill) -> None:
                if fill is not None:
                    run_part(fill, copies, start, end)

            try:
                prepare(first, stop)
                flags |= run_part(
                    plan,
                    options,
                    first,
                    stop,
                    deadline=deadline,
                    watch=None if watch is None else _shifted(watch, first),
                    prepare=prepare,
                )
            except BaseException as error:
                if not journal.abandoned:
                    _tell_what_is_done(error, name, operands, first, n_chunks)
                raise
            try:
                journal.commit()
                run_part(back, copies, first, stop)
            except BaseException as error:
                with held_back():  # committed is committed: the rest is copied here, whatever was the matter
                    journal.put_rest_in_place()
                if journal.abandoned:
                    raise  # a forked child: it is the parent's call
                if not isinstance(error, WorkerDiedError):
                    _tell_what_is_done(error, name, operands, stop, n_chunks)
                    raise
    return flags


def _n_lanes(options: Options) -> int:
    if current_worker() is not None:
        return 1
    return (options.pool or get_pool()).lanes


def _windows(grid: ChunkGrid, arrays: Sequence[Array], n_lanes: int, *, whole: bool) -> tuple[int, int, int]:
    """The axis that windows are slabs along, how many elements of it one has, and how many chunks."""
    several = [axis for axis, count in enumerate(grid.counts) if count > 1]
    if whole or not several:
        return 0, grid.shape[0] if grid.shape else 1, len(grid)
    axis = several[0]
    per_step = len(grid) // grid.counts[axis]
    nbytes = sum(array.itemsize for array in arrays) * math.prod(grid.shape) // grid.shape[axis] * grid.chunks[axis]
    steps = max(1, WINDOW_NBYTES // max(1, nbytes), -(-_CHUNKS_A_LANE * n_lanes // per_step))
    steps = min(steps, grid.counts[axis])
    return axis, min(grid.shape[axis], steps * grid.chunks[axis]), steps * per_step


def _changed(operand: Operand) -> Changed:
    segment = operand.segment
    assert segment is not None, "what is changed is in shared memory"
    return Changed(segment, operand.address - segment.address, operand.array.strides, operand.array.itemsize)


class _Held:
    """Memory at an address, with the segment that keeps it mapped where `segment_of` finds it."""

    def __init__(self, address: int, nbytes: int, base: Segment) -> None:
        self.__array_interface__ = bytes_at(address, nbytes).__array_interface__
        self.base = base


def _window_array(segment: Segment, block: Block, begins: int, axis: int, like: Array) -> Array:
    """An array of the whole grid's shape, of which the window's part lies in the scratch, and nothing anywhere else.

    The kernel numbers chunks and tells functions where they are as ever; only its addresses are shifted.
    """
    strides = block.scratch_strides
    address = segment.address + block.scratch_offset - (begins * strides[axis] if strides else 0)
    reach = sum((extent - 1) * stride for extent, stride in zip(like.shape, strides, strict=True))
    memory = np.asarray(_Held(address, reach + like.itemsize, segment))
    return np.ndarray(like.shape, like.dtype, memory, 0, strides)


def _shifted(watch: Callable[[int], object], first: int) -> Callable[[int], object]:
    return lambda done: watch(first + done)


def _tell_what_is_done(error: BaseException, name: str, operands: Sequence[Operand], done: int, n_chunks: int) -> None:
    """Where a call ends early: what of it has happened."""
    if not done:
        error.add_note(f"{name} has changed nothing: it is crash-safe, and ended before it committed anything")
    elif done < n_chunks:
        what = f"chunks 0 to {done - 1} of {n_chunks} are done, the others are as they were before"
        error.add_note(f"{name}: {what}")
        for segment in {operand.segment.key: operand.segment for operand in operands if operand.segment}.values():
            registry.condition.mark_dirty(segment, f"{name} ended early: {what}")
