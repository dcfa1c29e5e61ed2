"""One claimant of chunks: what a job sees of the process that runs it.

A job is bound to a lane once (its operands' addresses differ from process to process) and then run as often as
it is dispatched. The caller's lane is number 0; a worker's is the number of its slot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from shmarray.pool.page import CURRENT, FAILED, FPE, START, ChunkState, DispatchPage

__all__ = ["Job", "Lane", "SegmentKey"]

#: Device and inode number: which segment, in any process.
SegmentKey: TypeAlias = tuple[int, int]


class Lane:
    """A slot of a dispatch page and what its process has mapped."""

    def __init__(self, number: int, page: DispatchPage) -> None:
        from shmarray.pool.dispatch import calls

        self.number = number
        self.page = page
        self.calls = calls()
        self.addresses: dict[SegmentKey, int] = {}  #: where each segment is mapped here

    def entry(self, kernel: int) -> Callable[..., int]:
        """The machine code of kernel number `kernel`."""
        raise KeyError(kernel)

    def claim(self) -> int:
        """The next chunk for this lane, -1 when none is left."""
        return self.calls.claim(self.page.address, self.number)

    def finish(self, index: int) -> None:
        """Mark a claimed chunk as done."""
        self.calls.finish(self.page.address, self.number, index)

    @property
    def current(self) -> int:
        """The index of the chunk at hand; -1 where none was begun."""
        return int(self.page.words[self.page.slot(self.number, CURRENT)])

    def mark_failed(self) -> int:
        """The chunk at hand raised: mark it, let nobody start another, and tell its index (-1: none was begun)."""
        page = self.page
        page.words[page.slot(self.number, FAILED)] = 1
        index = self.current
        if index >= 0:
            page.states[index - int(page.words[START // 8])] = ChunkState.FAILED
        self.calls.cancel(page.address)
        return index

    def note_floating_flags(self, flags: int) -> None:
        """Add floating-point exception flags (NumPy's bits) to those of this epoch."""
        self.page.words[self.page.slot(self.number, FPE)] |= flags


class Job(Protocol):
    """What a lane can run. Jobs pickle; what they name (segments, kernels) has been sent before them."""

    def bind(self, binder: Any) -> Callable[[Lane, int], int]:
        """A function that claims chunks on a lane: until none is left (0), or for some nanoseconds (then 1).

        `binder` has `addresses` and `entry` as a `Lane` has.
        """
        ...
