"""A call with everything decided but where it runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from shmarray.engine.job import Binder, LocalBinder
from shmarray.pool import JobTicket, Lane, SegmentKey
from shmarray.registry import condition

if TYPE_CHECKING:
    from shmarray.engine.operands import Operand
    from shmarray.segment import Segment

__all__ = ["Plan", "in_words"]


class Plan:
    """A call with everything decided but where it runs.

    A plan may be kept and run again while the same arrays are alive: it holds addresses and weak references only, so it
    never keeps a segment from going.

    Parameters
    ----------
    name : str
        The kernel's, for messages.
    n_chunks : int
    job : Job
        Binds to any lane; every segment it names is among `operands`.
    operands : sequence of Operand
        If one of them is private, the job cannot leave this process.
    in_place : bool
        An output is an input: a chunk that was begun must not be done again.
    caller_joins : bool
        Nothing in the job can harm the caller, so it takes part.
    kernels : sequence of (int, jit.Code)
        Number and machine code of what the job names.
    total : int, optional
        Chunks of the whole call, for messages and progress, where the plan is a part of it.
    outputs : sequence of Operand
        Whose content is unknown when a worker dies in the middle of an in-place chunk; those are marked as dirty then.

    Attributes
    ----------
    nbytes : int
        Of the largest operand: below `config.parallel_nbytes` the caller works alone.
    changed : tuple of weakref to Segment
        What it changes in place.
    leased : frozenset of SegmentKey
        Segments that workers hold alive as long as they map them; see `JobTicket`.
    """

    __slots__ = (
        "_bound",
        "_kernels",
        "_segments",
        "_ticket",
        "caller_joins",
        "changed",
        "in_place",
        "job",
        "leased",
        "n_chunks",
        "name",
        "nbytes",
        "private",
        "total",
    )

    def __init__(
        self,
        name: str,
        n_chunks: int,
        job: Any,
        operands: Sequence[Operand],
        *,
        in_place: bool,
        caller_joins: bool,
        kernels: Sequence[tuple[int, Any]] = (),
        total: int | None = None,
        outputs: Sequence[Operand] = (),
    ) -> None:
        self.name, self.n_chunks, self.job = name, n_chunks, job
        self.nbytes = max(operand.array.nbytes for operand in operands)
        self.total = n_chunks if total is None else total
        self.in_place, self.caller_joins = in_place, caller_joins
        segments = {operand.segment.key: operand.segment for operand in operands if operand.segment is not None}
        self.private = any(operand.segment is None for operand in operands)
        self._segments = {key: weakref.ref(segment) for key, segment in segments.items()}
        outputs = outputs if in_place else ()
        self.changed = tuple(self._segments[one.segment.key] for one in outputs if one.segment is not None)
        self.leased: frozenset[SegmentKey] = frozenset()
        self._kernels = tuple(kernels)
        self._ticket: JobTicket | None = None
        self._bound: Callable[[Lane, int], int] | None = None

    @property
    def runs_compiled(self) -> bool:
        """Whether the job is machine code, not Python."""
        return bool(self._kernels)

    @property
    def bound(self) -> Callable[[Lane, int], int]:
        """The job on this process's own mappings; made when it first runs here, which for many it never does."""
        if self._bound is None:
            segments = {key: reference() for key, reference in self._segments.items()}
            addresses = {key: segment.address for key, segment in segments.items() if segment is not None}
            binder: Binder = LocalBinder(addresses, {number: code.entry for number, code in self._kernels})
            self._bound = self.job.bind(binder)
        return self._bound

    def ticket(self) -> JobTicket:
        """The job as workers are told of it."""
        if self._ticket is None:
            payloads = [(number, code.payload) for number, code in self._kernels]
            self._ticket = JobTicket(
                self.job,
                name=self.name,
                segments=self._segments,
                kernels=payloads,
                leased=self.leased,
                on_unknown=partial(_mark_unknown, self.changed, self.name) if self.changed else None,
            )
        return self._ticket

    def mark_unknown(self, chunks: Sequence[int], why: str) -> None:
        """Have the arrays that this call changes in place remember that these chunks are half changed."""
        if self.changed and chunks:
            _mark_unknown(self.changed, self.name, chunks, why)


def _mark_unknown(outputs: Sequence[weakref.ref[Segment]], name: str, chunks: Sequence[int], why: str) -> None:
    for reference in outputs:
        segment = reference()
        if segment is not None:
            condition.mark_dirty(segment, f"{name} changed it in place, and {in_words(sorted(chunks))} {why}")


def in_words(chunks: list[int]) -> str:
    """Some chunks, for a message.

    Examples
    --------
    >>> in_words([3]), in_words([1, 2])
    ('chunk 3', '2 chunks (1, 2)')
    """
    shown = ", ".join(map(str, chunks[:8])) + (", ..." if len(chunks) > 8 else "")
    return f"chunk {shown}" if len(chunks) == 1 else f"{len(chunks)} chunks ({shown})"
