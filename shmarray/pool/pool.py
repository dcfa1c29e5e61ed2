"""The worker processes of one caller, and the loop that dispatches a job to them.

A pool of n lanes has n workers. A job that the caller may join runs on the caller and workers 1 to n - 1; any other on
workers 1 to n. So the last worker is started only when it is first needed, and the caller's core is never shared.

Invariants: a dead worker never makes a dispatch hang (its pidfd is watched every few milliseconds), and what it was
doing is told exactly: chunks done, untouched, failed, or of unknown content. Workers end with the pool, and with the
caller.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import logging
import os
import pickle
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shmarray import registry
from shmarray.configuration import config
from shmarray.errors import WorkerDiedError
from shmarray.pool.channel import ChannelClosedError
from shmarray.pool.cores import available_cores
from shmarray.pool.lane import Job, Lane, SegmentKey
from shmarray.pool.outcome import COMPLETE, Death, Failure, Outcome, describe_death
from shmarray.pool.output import OutputRelay
from shmarray.pool.page import ACTIVE, COUNT, FAILED, FPE, MAX_LANES, READY, ChunkState, DispatchPage
from shmarray.pool.process import WorkerProcess

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["JobTicket", "Pool", "WorkerInfo", "close_all", "get_pool", "held_descriptors", "new_number", "worker_pids"]

logger = logging.getLogger("shmarray.pool")

_BITE_NS = 20_000_000  # how long compiled code may keep Python from seeing a signal or a death
_STOP_GRACE_S = 0.3  # how long workers get to finish their chunk after a cancel, before they are killed
_MAX_FAILED_STARTS = 3

_numbers = itertools.count(1)


class WorkerInfo(NamedTuple):
    """A worker as `pool.workers` shows it."""

    pid: int
    state: str  #: "starting", "idle", "busy" or "dead"
    task: str  #: what it works on, "" when nothing


class JobTicket:
    """A job as a pool knows it: its number, its pickle, and what must be sent before it.

    Parameters
    ----------
    job : Job
    name : str
        For people.
    segments : mapping of SegmentKey to weak reference
        What its lanes must have mapped; the caller holds these while it dispatches.
    kernels : sequence of (int, bytes)
        Numbers and payloads of machine code.
    """

    __slots__ = ("kernels", "name", "number", "segments", "spec")

    def __init__(
        self,
        job: Job,
        *,
        name: str,
        segments: Mapping[SegmentKey, weakref.ref[Segment]],
        kernels: Sequence[tuple[int, bytes]],
    ) -> None:
        self.number = next(_numbers)
        self.name = name
        self.spec = pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
        self.segments = segments
        self.kernels = kernels

    def __del__(self) -> None:
        for pool in list(_pools):
            pool.forget(self.number)


def new_number() -> int:
    """A number for a kernel, unlike any other job's or kernel's in this process."""
    return next(_numbers)


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
        lanes = processes if processes is not None else config.workers or available_cores()
        if lanes != int(lanes) or not 1 <= lanes < MAX_LANES:
            raise ValueError(f"processes must be an integer from 1 to {MAX_LANES - 1}; got {processes!r}")
        self.lanes = int(lanes)
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards the page and the workers; held over a whole dispatch
        self._holder: int | None = None  # the thread that holds it, so that a nested call does not wait for itself
        self._pending: deque[tuple[str, Any]] = deque()  # what workers must forget or unmap, told when the lock is free
        self._workers: list[WorkerProcess] = []
        self._page: DispatchPage | None = None
        self._caller: Lane | None = None
        self._relay: OutputRelay | None = None
        self._task = ""
        self._spin_ns = config.spin_us * 1000
        self._failed_starts = 0
        self._closed = False
        _pools.add(self)

    # ------------------------------------------------------------------ what users see

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers; they are started if they were not. The caller's own lane is not among them."""
        with contextlib.ExitStack() as stack:
            if self._holder != threading.get_ident():
                free = self._lock.acquire(blocking=not self._task)  # during a dispatch: look without waiting
                if free:
                    stack.callback(self._lock.release)
                    self._check_open()
                    self._start(self.lanes)
                    self._replace_dead()
            return [self._describe(worker) for worker in self._workers]

    def _describe(self, worker: WorkerProcess) -> WorkerInfo:
        page = self._page
        if not worker.alive:
            return WorkerInfo(worker.pid, "dead", "")
        if page is not None and page.words[page.slot(worker.lane, ACTIVE)]:
            return WorkerInfo(worker.pid, "busy", self._task)
        return WorkerInfo(worker.pid, "idle" if self._is_ready(worker) else "starting", "")

    def close(self) -> None:
        """Let the workers finish and end them. A closed pool takes no more work."""
        self._end(grace_s=2.0)

    def terminate(self) -> None:
        """End the workers at once."""
        self._end(grace_s=0.0)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._workers)} started"
        return f"<{type(self).__name__} of {self.lanes} lanes, {state}>"

    # ------------------------------------------------------------------ dispatch

    @property
    def held_by_this_thread(self) -> bool:
        """Whether this thread is inside a dispatch already (a signal handler, a progress callback)."""
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
        self._lock.acquire()
        self._holder = threading.get_ident()
        self._task = ticket.name
        try:
            self._check_open()
            limit = self.lanes if caller is None else self.lanes - 1
            if len(self._workers) < limit or self._page is None:
                self._start(limit)
            dispatch = _Dispatch(self, ticket, limit, deadline, watch)
            if dispatch.publish(start, stop, caller):
                return COMPLETE
            return dispatch.sort_out()
        finally:
            self._task = ""
            self._holder = None
            self._lock.release()
            if self._pending:
                self._tell_pending()

    def forget(self, number: int) -> None:
        """Workers may drop a job or kernel; they are told when they next have time."""
        if any(number in worker.told for worker in self._workers):
            self._pending.append(("forget", number))

    def unmap(self, key: SegmentKey) -> None:
        """A segment's pages have left the caller: workers that were lent it give them back too."""
        if any(key in worker.lent for worker in self._workers):
            self._pending.append(("unmap", key))
            self._tell_pending()

    # ------------------------------------------------------------------ workers

    def _check_open(self) -> None:
        if self._closed:
            owner = "is closed" if self._pid == os.getpid() else "belongs to the parent process"
            raise ValueError(f"this pool {owner}; make another, or use shmarray.get_pool()")

    def _start(self, count: int) -> None:
        if self._page is None:
            self._page = DispatchPage.create()
            self._caller = Lane(0, self._page)
            self._relay = OutputRelay()
        if count > len(self._workers):
            assert self._relay is not None
            self._relay.start()
            for lane in range(len(self._workers) + 1, count + 1):
                self._workers.append(self._spawn(lane))

    def _spawn(self, lane: int) -> WorkerProcess:
        assert self._page is not None
        assert self._relay is not None
        self._page.clear_lane(lane)
        worker = WorkerProcess(lane, self._page.fd, self._relay.worker_fds)
        logger.debug("started worker %d (pid %d)", lane, worker.pid)
        settings = {
            "spin_ns": self._spin_ns,
            "config": {name: getattr(config, name) for name in ("namespace", "max_nbytes", "handle_ttl_s")},
            "log_level": logging.getLogger().level,
            "shmarray_log_level": logging.getLogger("shmarray").level,
        }
        with contextlib.suppress(ChannelClosedError):
            worker.channel.send(("settings", settings))
        return worker

    def _is_ready(self, worker: WorkerProcess) -> bool:
        return self._page is not None and int(self._page.words[self._page.slot(worker.lane, READY)]) == worker.pid

    def _replace(self, worker: WorkerProcess) -> Death:
        """Bury a dead worker and start another in its lane."""
        self._failed_starts = 0 if self._is_ready(worker) else self._failed_starts + 1
        death = Death(worker.pid, *worker.exit_status())
        worker.close()
        if self._failed_starts >= _MAX_FAILED_STARTS:
            self._failed_starts = 0
            for other in self._workers[worker.lane :]:
                other.kill()
                other.close()
            del self._workers[worker.lane - 1 :]
            assert self._relay is not None
            self._relay.drain()
            raise WorkerDiedError(
                f"{_MAX_FAILED_STARTS} workers in a row died before they were up (last: {describe_death(death)}); "
                "what they said went to standard error",
                task="start",
                **death._asdict(),
            )
        logger.warning("worker %d (pid %d) died: %s; it is replaced", worker.lane, death.pid, describe_death(death))
        self._workers[worker.lane - 1] = self._spawn(worker.lane)
        return death

    def _replace_dead(self) -> None:
        for worker in list(self._workers):
            if not worker.alive:
                self._replace(worker)

    def _tell(self, worker: WorkerProcess, ticket: JobTicket) -> None:
        """Send a worker what it needs for a job, once."""
        channel = worker.channel
        if ticket.number in worker.told:
            channel.flush()
            return
        for number, payload in ticket.kernels:
            if number not in worker.told:
                channel.send(("kernel", number, payload))
                worker.told.add(number)
        for key, reference in ticket.segments.items():
            if key not in worker.lent:
                segment = reference()
                if segment is None:  # cannot be: the plan that is dispatched holds its arrays
                    raise RuntimeError("a segment of a running job is gone")
                registry.lent(segment)
                fd = segment.open_unlocked()
                try:
                    channel.send(("map", key, max(segment.nbytes, 1), segment.mode == "r+"), [fd])
                finally:
                    os.close(fd)
                worker.lent.add(key)
        channel.send(("job", ticket.number, ticket.spec))
        worker.told.add(ticket.number)

    def _tell_pending(self) -> None:
        # Called from destructors too, at any moment of any thread: never waits. Whoever holds the lock calls again.
        if self._holder == threading.get_ident() or not self._lock.acquire(blocking=False):
            return
        try:
            page = self._page
            told = False
            while self._pending:
                kind, value = self._pending.popleft()
                for worker in self._workers:
                    known: set[Any] = worker.lent if kind == "unmap" else worker.told
                    if value in known:
                        known.discard(value)
                        with contextlib.suppress(ChannelClosedError):
                            worker.channel.send((kind, value))
                            told = told or kind == "unmap"  # forgetting can wait for the next message
            if told and page is not None and not self._closed:
                _calls().call(page.address)
        finally:
            self._lock.release()

    def _end(self, *, grace_s: float) -> None:
        if self._closed or self._pid != os.getpid():
            return
        if self.held_by_this_thread:
            raise RuntimeError("a pool cannot be closed from inside a call that it is running")
        locked = self._lock.acquire(timeout=grace_s + 1.0)
        try:
            self._closed = True
            workers, self._workers = self._workers, []
            page, relay = self._page, self._relay
            for worker in workers:
                with contextlib.suppress(ChannelClosedError):
                    worker.channel.send(("stop",))
            if page is not None and workers and locked:
                _calls().call(page.address)
            until = time.monotonic() + grace_s
            for worker in workers:
                # One that is still importing has nothing to finish; without the lock another thread is in a dispatch.
                if not locked or not self._is_ready(worker) or not worker.wait(max(0.0, until - time.monotonic())):
                    worker.kill()
                worker.close()
            if relay is not None:
                relay.close()
            if locked:  # else the other thread still looks at the page; it goes with its last reference
                self._page = self._caller = self._relay = None
        finally:
            if locked:
                self._lock.release()

    def _abandon(self) -> None:
        """In a forked child: the workers are the parent's; let go of its descriptors, kill nobody."""
        self._closed = True
        for worker in self._workers:
            worker.close(reap=False)
        self._workers = []
        self._page = self._caller = None
        if self._relay is not None:
            self._relay.abandon()
        self._lock = threading.Lock()
        self._holder = None


class _Dispatch:
    """One call of `Pool.dispatch`, with the pool's lock held."""

    __slots__ = ("deadline", "limit", "outcome", "page", "pool", "running", "start", "stop", "ticket", "watch")

    def __init__(
        self,
        pool: Pool,
        ticket: JobTicket,
        limit: int,
        deadline: float | None,
        watch: Callable[[int], object] | None,
    ) -> None:
        assert pool._page is not None
        self.pool, self.ticket, self.limit = pool, ticket, limit
        self.page = pool._page
        self.deadline, self.watch = deadline, watch
        self.outcome = Outcome()
        self.running: dict[int, Death] = {}  # chunk -> who died over it

    def publish(self, start: int, stop: int, caller: Callable[[Lane, int], int] | None) -> bool:
        """Open the job to all lanes, take part, and wait for the end; whether everything went well."""
        pool, address, limit, calls = self.pool, self.page.address, self.limit, _calls()
        number = self.ticket.number
        for worker in pool._workers[:limit]:
            if number not in worker.told or worker.channel.waiting:
                self._tell(worker)
        self.start, self.stop = start, stop
        calls.publish(address, number, start, stop, limit)
        try:
            if caller is not None:
                assert pool._caller is not None
                try:
                    while caller(pool._caller, _BITE_NS):
                        self._look()
                except Exception as error:
                    self.outcome.failures.append(Failure.of(pool._caller.mark_failed(), error))
            while not (settled := calls.settle(address, limit, pool._spin_ns, _BITE_NS)):
                self._look()
        except BaseException:
            self._abort()
            raise
        return settled == 1 and self.watch is None and not self.running

    def sort_out(self) -> Outcome:
        """What became of the chunks, once all is quiet."""
        page = self.page
        words = page.words
        done = 0
        for number in range(self.limit + 1):
            slot = page.slot(number, 0)
            done += int(words[slot + COUNT // 8])
            self.outcome.floating_flags |= int(words[slot + FPE // 8])
            if words[slot + FAILED // 8]:
                self._collect_failure(number)
        if done != self.stop - self.start or self.running:
            self._sort_chunks()
        if self.watch is not None:
            self.watch(int(np.count_nonzero(page.states[: self.stop - self.start] == ChunkState.DONE)))
        return self.outcome

    def _tell(self, worker: WorkerProcess) -> None:
        try:
            self.pool._tell(worker, self.ticket)
        except ChannelClosedError:  # it is dead or dying; `_look` replaces it
            worker.kill()

    def _look(self) -> None:
        """Between bites: deaths, the deadline, progress."""
        pool, page = self.pool, self.page
        for worker in pool._workers[: self.limit]:
            if not worker.alive:
                # Read the page first: burying the worker clears its slot.
                was_active = bool(page.words[page.slot(worker.lane, ACTIVE)])
                running = np.flatnonzero(page.states[: self.stop - self.start] == worker.lane + 1).tolist()
                death = pool._replace(worker)
                if was_active:
                    self.outcome.deaths.append(death)
                    for offset in running:
                        self.running.setdefault(self.start + offset, death)
                self._tell(pool._workers[worker.lane - 1])
            else:
                with contextlib.suppress(ChannelClosedError):
                    worker.channel.flush()
        if self.deadline is not None and time.monotonic() > self.deadline and not self.outcome.timed_out:
            self.outcome.timed_out = True
            _calls().cancel(page.address)
            self._kill_active()
        if self.watch is not None:
            self.watch(int(np.count_nonzero(page.states[: self.stop - self.start] == ChunkState.DONE)))

    def _kill_active(self) -> None:
        for worker in self.pool._workers[: self.limit]:
            if self.page.words[self.page.slot(worker.lane, ACTIVE)]:
                worker.kill()
                worker.wait(5.0)

    def _abort(self) -> None:
        """Leave the page closed and quiet, whatever it takes."""
        calls, page = _calls(), self.page
        page.words[page.slot(0, ACTIVE)] = 0
        calls.cancel(page.address)
        self.watch = None
        self.deadline = None
        until = time.monotonic() + _STOP_GRACE_S
        killed = False
        while True:
            try:
                if calls.settle(page.address, self.limit, 0, _BITE_NS):
                    return
                self._look()
                if not killed and time.monotonic() > until:
                    killed = True
                    self._kill_active()
            except KeyboardInterrupt:  # pressed again: no more patience, but the page must be left in order
                until = 0.0
            except WorkerDiedError:  # workers cannot be started any more: the first exception is the one to report
                return

    def _collect_failure(self, lane: int) -> None:
        if lane == 0:
            return  # the caller's own exception propagates by itself
        worker = self.pool._workers[lane - 1]
        until = time.monotonic() + 10.0
        with contextlib.suppress(ChannelClosedError):
            while time.monotonic() < until:
                received = worker.channel.receive(timeout_s=1.0)
                if received is None:
                    continue
                kind, *facts = received[0]
                if kind == "failed" and facts[0] == self.ticket.number:
                    _, chunk, pickled, line, text = facts
                    error = pickle.loads(pickled) if pickled is not None else None
                    self.outcome.failures.append(Failure(chunk, error, line, text))
                    return

    def _sort_chunks(self) -> None:
        """Which chunks are not done, by what is known of them."""
        states = self.page.states[: self.stop - self.start]
        failed = {failure.chunk for failure in self.outcome.failures}
        for offset in np.flatnonzero(states != ChunkState.DONE).tolist():
            chunk = self.start + offset
            if chunk in self.running:
                self.outcome.interrupted[chunk] = self.running[chunk]
            elif states[offset] == ChunkState.FREE:
                self.outcome.untouched.append(chunk)
            elif chunk not in failed:  # marked FAILED, but the report did not arrive
                self.outcome.failures.append(Failure(chunk, None, "the worker's report is lost", ""))


@functools.cache
def _calls() -> Any:
    from shmarray.pool.dispatch import calls

    return calls()


# ---------------------------------------------------------------------- the default pool, forks, exit

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_default: Pool | None = None
_default_lock = threading.Lock()


def get_pool() -> Pool:
    """The default pool of this process: made at the first call, its workers when they are first needed.

    It has as many lanes as `config.workers` says, or as cores that this process may use; the caller is one of them
    where a kernel cannot harm it.
    """
    global _default
    pool = _default
    if pool is None or pool._closed:
        with _default_lock:
            pool = _default
            if pool is None or pool._closed:
                pool = _default = Pool()
    return pool


def worker_pids() -> set[int]:
    """The processes of the default pool, which live as long as this one."""
    return set() if _default is None else {worker.pid for worker in _default._workers}


def held_descriptors() -> set[int]:
    """Descriptors that the default pool keeps open in this process."""
    pool = _default
    if pool is None:
        return set()
    held = set[int]().union(*(worker.descriptors for worker in pool._workers))
    if pool._page is not None:
        held.add(pool._page.fd)
    if pool._relay is not None:
        held |= pool._relay.descriptors()
    return held


def unmap_everywhere(key: SegmentKey) -> None:
    """Every pool of this process tells its workers to unmap a segment."""
    for pool in list(_pools):
        pool.unmap(key)


def close_all() -> None:
    """End all pools of this process; at exit this happens by itself."""
    for pool in list(_pools):
        pool._end(grace_s=0.5)


def _after_fork_in_child() -> None:
    global _default, _default_lock
    _default = None
    _default_lock = threading.Lock()
    for pool in list(_pools):
        pool._abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
registry.on_unmap(unmap_everywhere)
atexit.register(close_all)
