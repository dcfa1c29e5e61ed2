"""A pool: worker processes of one caller, as its user sees them, and the lock that its calls take in turn.

A pool of n lanes has n workers. A job that the caller may join runs on the caller and workers 1 to n - 1; any other on
workers 1 to n. So the last worker is started only when it is first needed, and the caller's core is never shared.

Invariants: calls of several threads run one after another; one made from inside another (by a signal handler, a
progress callback) runs in place and never waits for it. Workers end with the pool, and with the caller.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from shmarray.configuration import config
from shmarray.errors import WorkerDiedError
from shmarray.interrupts import held_back
from shmarray.pool.cores import available_cores
from shmarray.pool.crew import CannotStartError, Crew
from shmarray.pool.outcome import COMPLETE, Outcome, describe_death, last_words
from shmarray.pool.page import MAX_LANES
from shmarray.pool.round import Round, recover

if TYPE_CHECKING:
    from shmarray.pool.lane import Lane, SegmentKey
    from shmarray.pool.process import WorkerProcess
    from shmarray.pool.ticket import JobTicket

__all__ = ["Pool", "WorkerInfo", "living_pools"]

_CLOSE_GRACE_S = 2.0  # how long workers get to stop when a pool is closed
_LOOK_PATIENCE_S = 0.05  # how long `workers` waits for another thread that is not in a call
_EXIT_PATIENCE_S = 1.0  # how long the exit of the program waits for a daemon thread that is in a call

#: By identity, and without their locks or iteration over weak sets: destructors of any thread look here.
_living: dict[int, weakref.ref[Pool]] = {}


def living_pools() -> list[Pool]:
    """The pools of this process that are not closed."""
    found = [reference() for reference in list(_living.values())]
    return [pool for pool in found if pool is not None]


class WorkerInfo(NamedTuple):
    """A worker as `pool.workers` shows it."""

    pid: int
    state: str  #: "starting", "idle", "busy" or "dead"
    task: str  #: what it works on, "" when nothing


class Pool:
    """Worker processes that share the caller's arrays.

    Parameters
    ----------
    processes : int, optional
        How many lanes, each about one core's work; by default `config.workers`, or the cores this process may use.

    Examples
    --------
    >>> with Pool(1) as pool:
    ...     [worker.state in ("starting", "idle") for worker in pool.workers]
    [True]
    """

    def __init__(self, processes: int | None = None) -> None:
        lanes = processes if processes is not None else config.workers or min(available_cores(), MAX_LANES - 1)
        if lanes != int(lanes) or not 1 <= lanes < MAX_LANES:
            raise ValueError(f"processes must be an integer from 1 to {MAX_LANES - 1}; got {processes!r}")
        self.lanes = int(lanes)
        self._pid = os.getpid()
        # Guards the crew; held over a whole dispatch. Reentrant, because a signal handler may make a call just after
        # it was taken or just before it is given back: then nothing is going on, and the call may go ahead.
        self._lock = threading.RLock()
        self._holder: int | None = None  # the thread that is using the crew, so that calls from inside do not
        self.crew: Crew | None = None  #: from the first use on; for the engine's own use
        self._pending: deque[tuple[str, Any]] = deque()  # what workers must forget or unmap, told when the lock is free
        self._task = ""
        self._spin_us = config.spin_us
        self.closed = False  #: it takes no more work
        _living[id(self)] = weakref.ref(self)

    # ------------------------------------------------------------------ what users see

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers; they are started if they were not. The caller's own lane is not among them."""
        if not self.held_by_this_thread:
            with held_back():  # the lock would stay taken if Ctrl-C came just after that
                # During a call of another thread: look, and do not wait for its end.
                if self._lock.acquire(timeout=_LOOK_PATIENCE_S):
                    self._holder = threading.get_ident()
                    try:
                        self._make_ready(self.crew, self.lanes)
                    finally:
                        self._holder = None
                        self._lock.release()
            if self._pending:
                self._tell_pending()
        crew = self.crew
        return [] if crew is None else [self._describe(crew, worker) for worker in list(crew.workers)]

    def _describe(self, crew: Crew, worker: WorkerProcess) -> WorkerInfo:
        if not worker.alive:
            return WorkerInfo(worker.pid, "dead", "")
        if crew.is_active(worker):
            return WorkerInfo(worker.pid, "busy", self._task)
        return WorkerInfo(worker.pid, "idle" if crew.is_ready(worker) else "starting", "")

    def close(self) -> None:
        """Wait for calls of other threads, and end the workers. A closed pool takes no more work."""
        self._refuse_inside()
        with self._lock:
            self._end(grace_s=_CLOSE_GRACE_S)

    def terminate(self) -> None:
        """End the workers at once. A call that another thread has running raises `WorkerDiedError`."""
        self._refuse_inside()
        self._break_off()
        with self._lock:
            self._end(grace_s=0.0)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "crew", None) is not None and self._pid == os.getpid():
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            self._end(grace_s=0.0)

    def __repr__(self) -> str:
        crew = self.crew
        state = "closed" if self.closed else f"{0 if crew is None else len(crew.workers)} started"
        return f"<{type(self).__name__} of {self.lanes} lanes, {state}>"

    # ------------------------------------------------------------------ dispatch

    @property
    def held_by_this_thread(self) -> bool:
        """Whether this thread is inside a call of this pool already (a signal handler, a progress callback)."""
        return self._holder == threading.get_ident()

    def dispatch(
        self,
        ticket: JobTicket,
        start: int,
        stop: int,
        *,
        caller: Callable[[Lane, int], int] | None,
        deadline: float | None = None,
        watch: Callable[[int], object] | None = None,
    ) -> Outcome:
        """Have chunks `start` to `stop` of a job done.

        Parameters
        ----------
        ticket : JobTicket
        start, stop : int
            At most `MAX_CHUNKS` chunks.
        caller : callable, optional
            Runs the job on the caller's lane for a number of nanoseconds; 0 when no chunk is left. None: workers alone.
        deadline : float, optional
            `time.monotonic()` after which running chunks are killed.
        watch : callable, optional
            Told the number of chunks done, every few milliseconds and at the end.

        Returns
        -------
        Outcome
            What was not done and why. On an exception in this thread (Ctrl-C), running chunks get a moment to finish
            and are killed; then it propagates.
        """
        if deadline is not None and not self._wait_until_free(deadline):
            return Outcome(untouched=list(range(start, stop)), timed_out=True)
        try:
            with self._lock:
                self._holder = threading.get_ident()
                self._task = ticket.name
                try:
                    limit = self.lanes if caller is None else self.lanes - 1
                    crew = self.crew
                    if crew is None or crew.unsettled or crew.bereaved or len(crew.workers) < limit:
                        with held_back():
                            crew = self._make_ready(crew, limit)
                    round_ = Round(crew, ticket, limit, deadline, watch)
                    if round_.publish(start, stop, caller):
                        crew.worked()
                        return COMPLETE
                    return round_.sort_out()
                finally:
                    self._task = ""
                    self._holder = None
        finally:
            # Only now: what another thread wanted to tell while the lock was held waits for its holder to do it.
            if self._pending:
                self._tell_pending()

    def forget(self, number: int) -> None:
        """Workers may drop a job; they are told when there is time."""
        crew = self.crew
        if crew is not None and crew.is_told("forget", number):
            self._pending.append(("forget", number))

    def unmap(self, key: SegmentKey) -> None:
        """A segment's pages have left the caller: workers that were lent it give them back too, idle ones at once."""
        crew = self.crew
        if crew is not None and crew.is_told("unmap", key):
            self._pending.append(("unmap", key))
            self._tell_pending()

    def _tell_pending(self) -> None:
        # Called from destructors too, at any moment of any thread: never waits. Whoever holds the lock does it then.
        while self._pending and self._holder != threading.get_ident() and self._lock.acquire(blocking=False):
            try:
                self._holder = threading.get_ident()
                crew, urgent = self.crew, False
                while self._pending:
                    kind, value = self._pending.popleft()
                    urgent = urgent or kind == "unmap"  # forgetting can wait for the next message
                    if crew is not None:
                        crew.tell_all(kind, value)
                if crew is not None and urgent:
                    crew.wake()
            finally:
                self._holder = None
                self._lock.release()

    # ------------------------------------------------------------------ the crew

    def _make_ready(self, crew: Crew | None, count: int) -> Crew:
        """See to it that `count` workers are there and none of them is known to be dead."""
        if self.closed:
            owner = "is closed" if self._pid == os.getpid() else "belongs to the parent process"
            raise ValueError(f"this pool {owner}; make another, or use shmarray.get_pool()")
        if crew is None:
            crew = self.crew = Crew(self._spin_us)
        if crew.unsettled:
            recover(crew)
        try:
            crew.replace_dead()
        except CannotStartError as error:
            raise WorkerDiedError(
                f"{error} (last: {describe_death(error.death)}); what they said went to standard error"
                + last_words(error.death),
                task="start",
                **error.death._asdict(),
            ) from None
        crew.start(count)
        return crew

    def _wait_until_free(self, deadline: float) -> bool:
        """Wait for calls of other threads; whether that was in time."""
        with held_back():  # the lock would stay taken if Ctrl-C came between the next two lines
            free = self._lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
            if free:
                self._lock.release()
        return free

    def _refuse_inside(self) -> None:
        if self.held_by_this_thread:
            raise RuntimeError("a pool cannot be closed from inside a call that it is running")

    def _break_off(self) -> None:
        """Have a call that is running give up, and no other begin."""
        crew = self.crew
        if self._pid == os.getpid():
            self.closed = True
            if crew is not None:
                crew.closing = True

    def _end(self, *, grace_s: float) -> None:
        # With the lock held.
        self.closed = True
        _living.pop(id(self), None)
        crew, self.crew = self.crew, None
        if crew is not None:
            self._holder = threading.get_ident()
            try:
                with held_back() as interrupt:
                    crew.end(grace_s=grace_s, interrupt=interrupt)
            finally:
                self._holder = None

    def leave(self) -> None:
        """End the workers because the program ends, whatever other threads are doing."""
        self._break_off()
        if self._lock.acquire(timeout=_EXIT_PATIENCE_S):
            try:
                self._end(grace_s=0.5)
            finally:
                self._lock.release()
        elif self.crew is not None:
            for worker in self.crew.workers:
                worker.kill()

    def abandon(self) -> None:
        """In a forked child: the workers are the parent's; let go of its descriptors, kill nobody."""
        self.closed = True
        self._lock = threading.RLock()
        self._holder = None
        crew, self.crew = self.crew, None
        if crew is not None:
            crew.abandon()
