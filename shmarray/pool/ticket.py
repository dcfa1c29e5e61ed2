"""A job as a pool knows it, so that workers are told of it once and forget it when the caller does."""

from __future__ import annotations

import itertools
import pickle
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from shmarray.interrupts import held_back
from shmarray.pool.lane import Job, SegmentKey

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["JobTicket", "new_number", "on_end"]

_numbers = itertools.count(1)
_listeners: list[Callable[[int], object]] = []


class JobTicket:
    """A job's number, its pickle, and what must be sent before it.

    Parameters
    ----------
    job : Job
    name : str
        For people.
    segments : mapping of SegmentKey to weak reference
        What its lanes must have mapped; the caller holds these while it dispatches.
    kernels : sequence of (int, bytes)
        Numbers and payloads of machine code.
    leased : frozenset of SegmentKey
        Segments that a worker keeps alive while it maps them, as any holder does. Others it only borrows.
    on_unknown : callable, optional
        Told (chunks, why) when a call ends by an exception of the caller's, and workers were ended at these chunks.
    """

    __slots__ = ("kernels", "leased", "name", "number", "on_unknown", "runs_python", "segments", "spec")

    def __init__(
        self,
        job: Job,
        *,
        name: str,
        segments: Mapping[SegmentKey, weakref.ref[Segment]],
        kernels: Sequence[tuple[int, bytes]],
        leased: frozenset[SegmentKey] = frozenset(),
        on_unknown: Callable[[list[int], str], object] | None = None,
    ) -> None:
        self.number = next(_numbers)
        self.name = name
        self.segments = segments
        self.kernels = kernels
        self.leased, self.on_unknown = leased, on_unknown
        self.runs_python = bool(getattr(job, "runs_python", False))
        self.spec = pickle.dumps(job, pickle.HIGHEST_PROTOCOL)

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        number = getattr(self, "number", None)
        # None: its constructor did not get far. And modules lose their contents while the interpreter goes down.
        if number is not None and not _is_finalizing():
            with held_back():
                for listener in _listeners:
                    listener(number)


def on_end(listener: Callable[[int], object]) -> None:
    """Have `listener(number)` called when a ticket is no more: nobody will dispatch that job again."""
    _listeners.append(listener)


def new_number() -> int:
    """A number for a kernel, unlike any other job's or kernel's in this process."""
    return next(_numbers)
