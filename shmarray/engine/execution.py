"""From a plan to its result: alone or across workers, again where that is safe, and an error where it is not.

Invariant: when `run` returns, every chunk was applied exactly once or (out of place) completely; otherwise it raises,
and the error names the chunks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from shmarray.configuration import config
from shmarray.engine.failures import cannot_start, chunk_kills, chunks_unknown, kernel_error, timeout_error
from shmarray.engine.options import DEFAULT, Options
from shmarray.engine.plan import Plan, in_words
from shmarray.engine.progress import watching
from shmarray.pool import (
    COMPLETE,
    MAX_CHUNKS,
    MOST_OWN_DEATHS,
    Death,
    Outcome,
    Pool,
    current_worker,
    describe_death,
    get_pool,
    run_alone,
)
from shmarray.registry.condition import begin_change, end_change

__all__ = ["run", "run_part"]


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
    if not plan.changed:
        return _run(plan, options, start)
    pages = begin_change(plan.changed)  # if this program dies in the middle, the mark stays
    try:
        return _run(plan, options, start)
    finally:
        end_change(pages)


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
            raise timeout_error(plan, options, left, unknown)

    outcome = run_alone(plan.bound, start, stop, watch if deadline is None else keep_time)
    if outcome.failures:
        raise kernel_error(plan, outcome.failures)
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
            raise chunks_unknown(self.plan, self.unknown, "all other chunks are done")
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
                    raise chunks_unknown(
                        self.plan,
                        self.unknown,
                        f"the call was stopped, since the next would end so too: {in_words(left)} not begun"
                        if left
                        else "all other chunks are done",
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
            raise chunk_kills(self.plan, chunk, self.tries[chunk], death)

    # ------------------------------------------------------------------ errors

    def _error(self, outcome: Outcome) -> Exception:
        """Why the call cannot go on."""
        plan = self.plan
        left = sorted({*outcome.untouched, *outcome.interrupted, *range(self.dispatched, plan.total)})
        self._mark_unknown()
        error: Exception
        if outcome.failures:
            error = kernel_error(plan, outcome.failures)
        elif outcome.timed_out:
            error = timeout_error(
                plan, self.options, left, sorted(self.unknown), "; the workers at them were killed and are replaced"
            )
        else:
            death = outcome.cannot_start
            assert death is not None
            if self.unknown:
                return chunks_unknown(
                    self.plan, self.unknown, "workers cannot be started any more, so others are not done"
                )
            error = cannot_start(plan, death)
        if self.unknown:
            error.add_note(
                f"Workers died while they changed {in_words(sorted(self.unknown))} in place: the content is unknown"
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
