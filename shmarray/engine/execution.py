"""From a plan to its result: alone or across workers, again where that is safe, and an error where it is not.

Invariant: when `run` returns, every chunk was applied exactly once or (out of place) completely; otherwise it raises,
and the error names the chunks.
"""

from __future__ import annotations

import signal
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from shmarray.configuration import config
from shmarray.engine.job import Binder, LocalBinder
from shmarray.engine.progress import Progress, watching
from shmarray.errors import (
    ChunksUnknownError,
    KernelError,
    KernelIndexError,
    KernelTimeoutError,
    WorkerDiedError,
)
from shmarray.pool import (
    COMPLETE,
    MAX_CHUNKS,
    MOST_OWN_DEATHS,
    Death,
    Failure,
    JobTicket,
    Lane,
    Outcome,
    Pool,
    SegmentKey,
    current_worker,
    describe_death,
    get_pool,
    last_words,
    run_alone,
)

if TYPE_CHECKING:
    from shmarray.engine.operands import Operand
    from shmarray.segment import Segment

__all__ = ["Options", "Plan", "run", "run_part"]


@dataclass(frozen=True, slots=True)
class Options:
    """The keywords that every call takes.

    Attributes
    ----------
    workers_alone : bool
        The caller only watches; so what it has as private memory has to be copied for the workers.
    """

    pool: Pool | None = None
    progress: Progress = False
    timeout: float | None = None
    retries: int = 2
    crash_safe: bool = False
    workers_alone: bool = field(init=False, default=False)

    @classmethod
    def of(cls, name: str, keywords: dict[str, Any], own: Sequence[str] = ("out",)) -> Options:
        """What a call of the kernel `name` was given as keywords, checked; `own` are those that it takes beside."""
        unknown = keywords.keys() - _KEYWORDS
        if unknown:
            raise TypeError(
                f"{name} takes the keywords {', '.join((*own, *_KEYWORDS))}; got {', '.join(sorted(unknown))}. "
                "Arguments of the function itself are given by position"
            )
        return cls(**keywords) if keywords else DEFAULT

    def __post_init__(self) -> None:
        if self.timeout is not None:
            _check("timeout", self.timeout, Real, "a positive number of seconds, or None", lambda seconds: seconds > 0)
            object.__setattr__(self, "timeout", min(self.timeout, 1e9))  # inf, too, in what clocks and locks take
        _check("retries", self.retries, Integral, "0 or a positive integer", lambda count: count >= 0)
        pool: Any = self.pool
        if pool is not None and not isinstance(pool, Pool):
            # A pool of processes for Python calls has lanes for kernels beside them; see shmarray.multiprocessing.
            engine = getattr(pool, "engine", None)
            if not isinstance(engine, Pool):
                raise TypeError(f"pool must be a shmarray.Pool, get_pool() or None; got {type(pool).__name__}")
            object.__setattr__(self, "pool", engine)
        if not isinstance(self.crash_safe, bool):
            raise TypeError(f"crash_safe must be True or False; got {self.crash_safe!r}")
        # Worked out here: every call of every kernel asks for it.
        object.__setattr__(self, "workers_alone", self.timeout is not None or self.crash_safe)


def _check(keyword: str, value: Any, kind: Any, expected: str, is_good: Callable[[Any], bool]) -> None:
    """`TypeError` or `ValueError` for a keyword's value that cannot be."""
    if not isinstance(value, kind):
        raise TypeError(f"{keyword} must be {expected}; got {value!r}")
    if not is_good(value):
        raise ValueError(f"{keyword} must be {expected}; got {value!r}")


_KEYWORDS = ("pool", "progress", "timeout", "retries", "crash_safe")
DEFAULT = Options()


class Plan:
    """A call with everything decided but where it runs.

    A plan may be kept and run again while the same arrays are alive: it holds addresses and weak references only, so it
    never keeps a segment from going.

    Parameters
    ----------
    name : str
        The kernel's, for messages.
    n_chunks : int
    nbytes : int
        Of the largest operand: below `config.parallel_nbytes` the caller works alone.
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
    leased : frozenset of SegmentKey
        Segments that workers hold alive as long as they map them; see `JobTicket`.
    """

    __slots__ = (
        "_bound",
        "_kernels",
        "_outputs",
        "_segments",
        "_ticket",
        "caller_joins",
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
        nbytes: int,
        job: Any,
        operands: Sequence[Operand],
        *,
        in_place: bool,
        caller_joins: bool,
        kernels: Sequence[tuple[int, Any]] = (),
        total: int | None = None,
        outputs: Sequence[Operand] = (),
    ) -> None:
        self.name, self.n_chunks, self.nbytes, self.job = name, n_chunks, nbytes, job
        self.total = n_chunks if total is None else total
        self.in_place, self.caller_joins = in_place, caller_joins
        segments = {operand.segment.key: operand.segment for operand in operands if operand.segment is not None}
        self.private = any(operand.segment is None for operand in operands)
        self._segments = {key: weakref.ref(segment) for key, segment in segments.items()}
        outputs = outputs if in_place else ()
        self._outputs = tuple(self._segments[one.segment.key] for one in outputs if one.segment is not None)
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
                on_unknown=partial(_mark_unknown, self._outputs, self.name) if self._outputs else None,
            )
        return self._ticket

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Have the arrays that this call changes in place show that it is under way, and if its program dies, was."""
        from shmarray.registry import condition

        segments = [segment for reference in self._outputs if (segment := reference()) is not None]
        for segment in segments:
            condition.mark_changing(segment, changing=True)
        try:
            yield
        finally:
            for segment in segments:
                condition.mark_changing(segment, changing=False)

    @property
    def changes(self) -> bool:
        """Whether it changes shared arrays in place."""
        return bool(self._outputs)

    def mark_unknown(self, chunks: Sequence[int], why: str) -> None:
        """Have the arrays that this call changes in place remember that these chunks are half changed."""
        if self._outputs and chunks:
            _mark_unknown(self._outputs, self.name, chunks, why)


def _mark_unknown(outputs: Sequence[weakref.ref[Segment]], name: str, chunks: Sequence[int], why: str) -> None:
    from shmarray.registry import condition

    for reference in outputs:
        segment = reference()
        if segment is not None:
            condition.mark_dirty(segment, f"{name} changed it in place, and {_count(sorted(chunks))} {why}")


def run(plan: Plan, options: Options = DEFAULT, *, start: int = 0) -> int:
    """Do the chunks of a plan, from number `start` on.

    Returns
    -------
    int
        Floating-point flags that its chunks noted.

    Raises
    ------
    KernelError, KernelTimeoutError, WorkerDiedError, ChunksUnknownError
    """
    if start >= plan.n_chunks:
        return 0
    if plan.changes:
        with plan.changing():
            return _run(plan, options, start)
    return _run(plan, options, start)


def _run(plan: Plan, options: Options, start: int) -> int:
    pool = _pool_for(plan, options)
    if pool is None:
        if options.progress is False:
            return _run_alone(plan, options, start, plan.n_chunks)
        with watching(options.progress, plan.total, plan.name, before=start) as watch:
            return _run_alone(plan, options, start, plan.n_chunks, watch)
    if options.progress is False and not options.workers_alone and plan.n_chunks <= MAX_CHUNKS:
        caller = (plan._bound or plan.bound) if plan.caller_joins else None
        outcome = pool.dispatch(plan.ticket(), start, plan.n_chunks, caller=caller)
        if outcome is COMPLETE:
            return 0
        return _Recovery(plan, options, pool, None).finish(outcome)
    with watching(options.progress, plan.total, plan.name, before=start) as watch:
        return _Recovery(plan, options, pool, watch).run(start, plan.n_chunks)


def run_part(
    plan: Plan,
    options: Options,
    start: int,
    stop: int,
    *,
    deadline: float | None = None,
    watch: Callable[[int], object] | None = None,
    prepare: Callable[[int, int], object] | None = None,
) -> int:
    """Do chunks `start` to `stop` of a plan.

    Parameters
    ----------
    deadline : float, optional
        `time.monotonic()` by which the call that this is a part of must be done; `options.timeout` is for its message.
    watch : callable, optional
        Told how many of these chunks are done.
    prepare : callable, optional
        `prepare(first, stop)` is called before chunks are done again.
    """
    pool = _pool_for(plan, options)
    if pool is None:
        return _run_alone(plan, options, start, stop, watch, deadline)
    recovery = _Recovery(plan, options, pool, watch, deadline=deadline, prepare=prepare)
    return recovery.run(start, stop)


def _run_alone(
    plan: Plan,
    options: Options,
    start: int,
    stop: int,
    watch: Callable[[int], object] | None = None,
    deadline: float | None = None,
) -> int:
    """Do chunks on this thread. A deadline is kept between bites only: nobody is there to end a chunk."""
    if deadline is None and options.timeout is not None:
        deadline = time.monotonic() + options.timeout
    shown = watch

    def keep_time(done: int) -> None:
        if shown is not None:
            shown(done)
        if deadline is not None and time.monotonic() > deadline and start + done < stop:
            left = list(range(start + done, plan.total))
            unknown = left[:1] if plan.in_place else []
            plan.mark_unknown(unknown, "may be half changed: the call has passed its timeout")
            raise _timeout_error(plan, options, left, unknown)

    outcome = run_alone(plan.bound, start, stop, watch if deadline is None else keep_time)
    if outcome.failures:
        raise _kernel_error(plan, outcome.failures)
    return outcome.floating_flags


def _pool_for(plan: Plan, options: Options) -> Pool | None:
    """The pool to dispatch to; None to work alone."""
    if plan.private or current_worker() is not None:  # addresses of this process mean nothing to another
        return None
    pool = options.pool
    alone = plan.n_chunks < 2 or plan.nbytes < config.parallel_nbytes
    joins = plan.caller_joins and not options.workers_alone
    if joins and alone:
        return None
    if pool is None:
        pool = get_pool()
    if joins and pool.lanes == 1:
        return None
    return None if pool.held_by_this_thread else pool


class _Recovery:
    """A call that may take several dispatches: many chunks, deaths, a deadline, progress."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        pool: Pool,
        watch: Callable[[int], object] | None,
        *,
        deadline: float | None = None,
        prepare: Callable[[int, int], object] | None = None,
    ) -> None:
        self.plan, self.options, self.pool, self.watch, self.prepare = plan, options, pool, watch, prepare
        self.deadline = deadline
        if deadline is None and options.timeout is not None:
            self.deadline = time.monotonic() + options.timeout
        self.flags = 0
        self.done_before = 0
        self.dispatched = plan.n_chunks  # chunks below this number have been tried
        self.tries: dict[int, int] = {}  # chunk -> how often a worker died over it
        self.unknown: dict[int, Death] = {}  # chunks that were being changed in place

    def run(self, start: int, stop: int) -> int:
        for first in range(start, stop, MAX_CHUNKS):
            self.dispatched = min(stop, first + MAX_CHUNKS)
            self._settle(self._dispatch(first, self.dispatched))
        return self._result()

    def finish(self, outcome: Outcome) -> int:
        """Go on from the first outcome of a call that was dispatched whole."""
        self.flags |= outcome.floating_flags
        self._settle(outcome)
        return self._result()

    def _result(self) -> int:
        if self.unknown:
            self._mark_unknown()
            raise self._chunks_unknown("all other chunks are done")
        return self.flags

    def _mark_unknown(self) -> None:
        for death, chunks in _by_value(self.unknown).items():
            self.plan.mark_unknown(chunks, f"of unknown content: worker {death.pid} died ({describe_death(death)})")

    def _dispatch(self, start: int, stop: int, *, workers_alone: bool = False) -> Outcome:
        plan = self.plan
        joins = plan.caller_joins and not self.options.workers_alone and not workers_alone
        before = self.done_before
        watch = None if self.watch is None else (lambda done: self.watch(before + done))  # type: ignore[misc]
        outcome = self.pool.dispatch(
            plan.ticket(), start, stop, caller=plan.bound if joins else None, deadline=self.deadline, watch=watch
        )
        self.done_before += stop - start - len(outcome.untouched) - len(outcome.interrupted)
        self.flags |= outcome.floating_flags
        return outcome

    def _settle(self, outcome: Outcome) -> None:
        """Do what an outcome leaves to be done, until nothing is left or it must not go on."""
        while not outcome.complete:
            if self.plan.in_place:
                self.unknown |= outcome.interrupted
                if sum(death.is_own_fault for death in set(self.unknown.values())) >= MOST_OWN_DEATHS:
                    self._mark_unknown()
                    left = sorted({*outcome.untouched, *range(self.dispatched, self.plan.total)})
                    raise self._chunks_unknown(
                        f"the call was stopped, since the next would end so too: {_count(left)} not begun"
                        if left
                        else "all other chunks are done"
                    )
            if outcome.cannot_start is not None and self._may_work_alone(outcome):
                self._work_alone(outcome)
                return
            if outcome.timed_out or outcome.failures or outcome.cannot_start is not None:
                raise self._error(outcome)
            again = list(outcome.untouched)
            if not self.plan.in_place:
                for chunk, death in outcome.interrupted.items():
                    self._count_try(chunk, death)
                    again.append(chunk)
            outcome = Outcome()
            for first, last in _ranges(sorted(again)):
                if outcome.complete:
                    if self.prepare is not None:
                        self.prepare(first, last)
                    outcome.add(self._dispatch(first, last, workers_alone=bool(self.tries)))
                else:
                    outcome.untouched += range(first, last)

    def _may_work_alone(self, outcome: Outcome) -> bool:
        """Whether the caller can do what workers that do not come up leave undone."""
        safe = self.plan.caller_joins and not self.options.workers_alone and not self.tries
        return safe and not (outcome.timed_out or outcome.failures or outcome.interrupted)

    def _work_alone(self, outcome: Outcome) -> None:
        plan = self.plan
        for first, last in _ranges(sorted(outcome.untouched)):
            self.flags |= _run_alone(plan, self.options, first, last)

    def _count_try(self, chunk: int, death: Death) -> None:
        self.tries[chunk] = self.tries.get(chunk, 0) + 1
        if self.tries[chunk] > self.options.retries:
            times = "once" if self.tries[chunk] == 1 else f"{self.tries[chunk]} times"
            raise WorkerDiedError(
                f"{self.plan.name}: chunk {chunk} ended its worker {times} "
                f"(last: pid {death.pid}, {describe_death(death)}){_likely_cause(self.plan, death)}"
                + last_words(death),
                task=self.plan.name,
                chunk=chunk,
                **death._asdict(),
            )

    # ------------------------------------------------------------------ errors

    def _error(self, outcome: Outcome) -> Exception:
        """Why the call cannot go on."""
        plan = self.plan
        left = sorted({*outcome.untouched, *outcome.interrupted, *range(self.dispatched, plan.total)})
        self._mark_unknown()
        error: Exception
        if outcome.failures:
            error = _kernel_error(plan, outcome.failures)
        elif outcome.timed_out:
            error = _timeout_error(
                plan, self.options, left, sorted(self.unknown), "; the workers at them were killed and are replaced"
            )
        else:
            death = outcome.cannot_start
            assert death is not None
            if self.unknown:
                return self._chunks_unknown("workers cannot be started any more, so others are not done")
            error = WorkerDiedError(
                f"{plan.name}: several workers in a row died before they did anything (last: pid {death.pid}, "
                f"{describe_death(death)}); what they said went to standard error" + last_words(death),
                task=plan.name,
                **death._asdict(),
            )
        if self.unknown:
            error.add_note(
                f"Workers died while they changed {_count(sorted(self.unknown))} in place: the content is unknown"
            )
        return error

    def _chunks_unknown(self, others: str) -> ChunksUnknownError:
        chunks = sorted(self.unknown)
        deaths = {death.pid: death for death in self.unknown.values()}
        death = self.unknown[chunks[0]]
        how = f"pid {death.pid}: {describe_death(death)}"
        who = "a worker died" if len(deaths) == 1 else f"{len(deaths)} workers died"
        remedy = "next time write to a separate out=, which is retried, or pass crash_safe=True"
        return ChunksUnknownError(
            f"{self.plan.name}: {who} ({how}) in the middle of changing {_count(chunks)} in place, whose content is "
            f"unknown now; {others}{_likely_cause(self.plan, death)}. Compute these anew, and {remedy}"
            + last_words(death),
            chunks=chunks,
            task=self.plan.name,
            **death._asdict(),
        )


def _timeout_error(
    plan: Plan, options: Options, left: list[int], unknown: list[int], what_became: str = ""
) -> KernelTimeoutError:
    return KernelTimeoutError(
        f"{plan.name} was not done within its timeout of {options.timeout:g} s: {_count(left)} of {plan.total} not done"
        + what_became,
        kernel=plan.name,
        timeout_s=options.timeout,
        chunks=tuple(left),
        unknown=tuple(unknown),
    )


def _likely_cause(plan: Plan, death: Death) -> str:
    """What compiled code did that ended so."""
    if plan.runs_compiled and death.signal in (signal.SIGSEGV, signal.SIGBUS) and not death.reason:
        return ". Most likely it used an index out of range: debug=True checks every index and names the wrong one"
    return ""


def _kernel_error(plan: Plan, failures: Sequence[Failure]) -> KernelError:
    """What the first of the failed chunks raised, as an error of the call."""
    failure = min(failures, key=lambda failure: failure.chunk)
    cause = failure.error if failure.error is not None else RuntimeError(failure.line)
    kind = KernelIndexError if isinstance(cause, IndexError) else KernelError
    where = f"in chunk {failure.chunk} of {plan.total}" if failure.chunk >= 0 else "before its first chunk"
    error = kind(f"{plan.name} raised {where}: {failure.line}", kernel=plan.name, chunk=failure.chunk)
    if failure.traceback:
        cause.add_note(f"In the worker:\n{failure.traceback}")
    error.__cause__ = cause
    plan.mark_unknown(
        [each.chunk for each in failures if each.chunk >= 0], "raised in the middle, so half of it may be done"
    )
    return error


def _by_value(unknown: dict[int, Death]) -> dict[Death, list[int]]:
    """Chunks by who died over them."""
    chunks: dict[Death, list[int]] = {}
    for chunk, death in sorted(unknown.items()):
        chunks.setdefault(death, []).append(chunk)
    return chunks


def _ranges(chunks: list[int]) -> Iterator[tuple[int, int]]:
    """Sorted integers as runs [first, last), none longer than a dispatch takes."""
    start = 0
    for position in range(1, len(chunks) + 1):
        at_end = position == len(chunks)
        if at_end or chunks[position] != chunks[position - 1] + 1 or position - start == MAX_CHUNKS:
            yield chunks[start], chunks[position - 1] + 1
            start = position


def _count(chunks: list[int]) -> str:
    shown = ", ".join(map(str, chunks[:8])) + (", ..." if len(chunks) > 8 else "")
    return f"chunk {shown}" if len(chunks) == 1 else f"{len(chunks)} chunks ({shown})"
