"""The workers of a pool: hired, watched, replaced, dismissed; and the life of the pool itself.

One thread of the pool's own, the *keeper*, sees deaths and takes results in while nobody waits for any. The user's
callbacks run in another, so that neither deaths nor results ever wait for them.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from shmarray.errors import WorkerDiedError
from shmarray.interrupts import held_back
from shmarray.multiprocessing.callbacks import Callbacks
from shmarray.multiprocessing.exchange import AHEAD, CLOSE, RUN, TERMINATE, Exchange
from shmarray.multiprocessing.jobs import Job
from shmarray.multiprocessing.member import Member
from shmarray.multiprocessing.waiting import TICK_S
from shmarray.multiprocessing.work import describe_call
from shmarray.pool.outcome import Death, describe_death

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from shmarray.multiprocessing.iterators import IMapIterator
    from shmarray.pool import WorkerInfo

__all__ = ["CLOSE", "RUN", "TERMINATE", "Crew"]

_START_ATTEMPTS = 3  # workers that die before they are ready, in a row, before the pool gives up
_TERMINATION_GRACE_S = 5.0  # between SIGTERM and SIGKILL

_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


class Crew(Exchange):
    """The workers of one pool.

    Parameters
    ----------
    size : int
        How many.
    make_process : callable
        See :class:`~shmarray.multiprocessing.member.Member`.
    initializer, initargs
        Called in each worker first.
    max_tasks : int, optional
        After so many, a worker is replaced.
    inherits_main : bool
        Workers are forked: they have this program's functions as they are now.
    spin_us : int
        How long workers look for the next batch before they sleep.
    """

    def __init__(
        self,
        size: int,
        make_process: Callable[..., BaseProcess],
        initializer: Callable[..., object] | None,
        initargs: Iterable[Any],
        max_tasks: int | None,
        *,
        inherits_main: bool,
        spin_us: int,
    ) -> None:
        super().__init__(size, max_tasks, spin_us)
        self._make_process = make_process
        self._start = (initializer, tuple(initargs), spin_us)
        self._leaving: list[Member] = []
        self._callbacks = Callbacks(self._lock)
        self._starting: Member | None = None
        self._known_main = _main_functions() if inherits_main else None
        self._kill_at: float | None = None
        self._keeper = threading.Thread(target=self._keep, name="shmarray-pool-keeper", daemon=True)
        _crews.add(self)
        try:
            for _ in range(size):
                self._hire()
        except BaseException:
            self.state = TERMINATE
            for member in self.members:
                member.kill()
                self._forget(member)
                member.death()
                member.close()
            self._close_descriptors()
            raise
        self._keeper.start()

    # ------------------------------------------------------------------ for the pool

    def submit(self, job: Job, *, wait: bool = False, watch: Callable[[], object] | None = None) -> None:
        """Have a job done; with `wait`, serve until it is."""
        me, begun = threading.get_ident(), False
        try:
            with held_back(), self._lock:
                self.check_running()
                if len(self.members) < self.size:  # they did not start: try again
                    self._failed_starts = 0
                    self._fill_up()
                self._jobs.add(job)
                self._queue.append(job)
                # Short tasks in quick succession go out together, when a worker has done what it has.
                self._move(1 if self._ticking and not wait and job.pace.is_short else AHEAD)
                if not wait:
                    self._leave(look=True)
                elif self._server is None:
                    begun = True
                    self._become_server(me)
            if wait:
                self.wait(job, lambda: job.done, None, watch, begun=begun)
        except BaseException:  # Ctrl-C, for one: nobody will ask for the results
            if begun and self._server == me:
                self._end_serving()
            self.drop(job)
            raise

    def feed(self, job: IMapIterator, chunk: Any) -> bool:
        """One more task of a job whose arguments are slow to come; False when nobody wants it any more."""
        with self._lock:
            if job not in self._jobs:
                return False
            job.feed(chunk)
            if job not in self._queue:
                self._queue.append(job)
            self._move()
            self._leave()
            return True

    def end_feeding(self, job: IMapIterator, error: BaseException | None) -> None:
        """There are no more, or getting at the next one raised this."""
        with self._lock:
            if job in self._jobs:
                job.end_feeding(error)

    def wants(self, job: Job) -> bool:
        """Whether the job is still to be done."""
        return job in self._jobs

    def check_running(self) -> None:
        """`ValueError` if the pool takes no more work."""
        if self.state != RUN:
            raise ValueError("Pool not running")

    def fill_up(self) -> None:
        """Start what workers are missing."""
        with held_back(), self._lock:
            if self.state == RUN:
                self._failed_starts = 0
                self._fill_up()
                self._move()

    def describe(self) -> list[WorkerInfo]:
        """The workers."""
        with held_back(), self._lock:
            return [_describe(member) for member in self.members]

    def drop(self, job: Job) -> None:
        """What was not begun of a job need not be done."""
        with held_back(), self._lock:
            job.dropped = True
            with contextlib.suppress(ValueError):
                self._queue.remove(job)
            self._again = deque(task for task in self._again if task.job is not job)
            self.end(job)
            self._leave()

    def must_go_by_value(self, function: Any) -> bool:
        """Whether forked workers have no such function of the main program, or an older one of that name."""
        known = self._known_main
        return (
            known is not None
            and type(function) is types.FunctionType
            and function.__module__ == "__main__"
            and known.get(function.__qualname__) is not function
        )

    def close(self) -> None:
        """Take no more work; workers end when all is done."""
        with held_back(), self._lock:
            if self.state == RUN:
                self.state = CLOSE
                self._dismiss_if_over()
                self._leave()

    def terminate(self) -> None:
        """End the workers at once. Calls that are under way raise."""
        with held_back(), self._lock:
            if self.state != TERMINATE:
                self.state = TERMINATE
                self._queue.clear()
                self._again.clear()
                for job in list(self._jobs):
                    job.forget_callbacks()
                    job.fail(WorkerDiedError("the pool was terminated before this was done", **_NOBODY))
                for member in self.members:
                    member.terminate()
                for member in self._leaving:
                    member.terminate()
                self._kill_at = time.monotonic() + _TERMINATION_GRACE_S
                self._tell(self._wake)
        # The end of the last job of a pool that nobody has any more comes here with the lock, which the keeper needs.
        if threading.current_thread() is not self._keeper and not self._lock._is_owned():  # type: ignore[attr-defined]
            self._keeper.join()

    def join(self) -> None:
        """Wait until all work is done and the workers have ended; `RuntimeError` in a callback, which is part of it."""
        if self._callbacks.is_current():
            raise RuntimeError("a callback cannot join its own pool, which waits for the callback: do it elsewhere")
        waiter: Any = types.SimpleNamespace(waiting=[])
        self.wait(waiter, lambda: not self._jobs, None)
        self._keeper.join()
        self._callbacks.join()

    def call_back(self, function: Callable[[Any], object], value: Any, finish: Callable[[], None]) -> None:
        """Call a function of the user's, in a thread that nothing else waits for, and then `finish`."""
        self._callbacks.call(function, value, finish)

    def end(self, job: Job) -> None:
        """A job is done."""
        self._jobs.discard(job)
        if job.key and not job.keeps_key:
            for member in self.members:
                if job.key in member.known:
                    member.known.discard(job.key)
                    member.forget.append(job.key)
        if self._server is not None and self._server != threading.get_ident():
            self._tell(self._nudge)
        self._dismiss_if_over()

    # ------------------------------------------------------------------ workers come and go

    def _hire(self) -> None:
        member = Member(self._make_process, *self._start, self._announce)
        self._starting = None
        self.members.append(member)
        self._by_fd[member.channel.fileno()] = member
        self._sockets.register(member.channel.fileno(), select.EPOLLIN)
        if member.pidfd >= 0:
            self._by_fd[member.pidfd] = member
            self._events.register(member.pidfd, select.EPOLLIN)

    def _announce(self, member: Member) -> None:
        self._starting = member

    def _fill_up(self) -> None:
        while len(self.members) < self.size:
            self._hire()

    def _replace(self, member: Member) -> None:
        """A worker has done as many tasks as it is to do."""
        self.members.remove(member)
        self._leaving.append(member)
        member.dismiss()
        if self.state == RUN or self._jobs:
            self._try_to_fill_up()

    def _dismiss_if_over(self) -> None:
        if self.state == CLOSE and not self._jobs:
            for member in self.members:
                if not member.leaving:
                    member.dismiss()
            self._tell(self._wake)

    def _forget(self, member: Member) -> None:
        for descriptor in (member.channel.fileno(), member.pidfd):
            self._by_fd.pop(descriptor, None)
        with contextlib.suppress(OSError):
            self._sockets.unregister(member.channel.fileno())
        if member.pidfd >= 0:
            self._events.unregister(member.pidfd)

    def _bury(self, member: Member) -> None:
        """A worker has ended: see to its tasks, and to a successor."""
        while (received := member.hear()) is not None:
            self._hear(member, *received)
        self._forget(member)
        death = member.death()
        lost = self._take_over(member)
        expected = member.leaving
        complaint, ready = member.complaint, member.ready
        member.close()
        if member in self.members:
            self.members.remove(member)
        if member in self._leaving:
            self._leaving.remove(member)
        if not ready and not expected:
            self._failed_starts += 1
        for task in lost:
            self._lose(task, death)
        if self._failed_starts >= _START_ATTEMPTS:
            if not self.members:
                error = WorkerDiedError(
                    f"{self._failed_starts} workers in a row ended before they were ready "
                    f"(the last: {describe_death(death)})" + self._why_not_started(death, complaint),
                    task="start",
                    **death._asdict(),
                )
                error.__cause__ = complaint
                self._fail_all(error)
        elif not expected and (self.state == RUN or self._jobs) and self.state != TERMINATE:
            self._try_to_fill_up()
        self._move()

    def _why_not_started(self, death: Death, complaint: BaseException | None) -> str:
        if complaint is not None:
            return "; their initializer raised"
        if self._known_main is None and death.exitcode:  # they are not forked, so they have imported the program
            return (
                "; each imports the program first: is what starts processes there under "
                '`if __name__ == "__main__":`? Their own tracebacks are on standard error'
            )
        return ""

    def _try_to_fill_up(self) -> None:
        try:
            self._fill_up()
        except Exception as error:  # no process to be had
            if not self.members:
                failure = WorkerDiedError(f"no worker could be started: {error}", **_NOBODY)
                failure.__cause__ = error
                self._fail_all(failure)

    # ------------------------------------------------------------------ the keeper

    def _keep(self) -> None:
        while True:
            events = self._events.poll(self._rest_s())
            if not events and self._ticking and self._is_hot():
                continue
            with self._lock:
                for descriptor, _ in events:
                    if descriptor == self._wake:
                        with contextlib.suppress(BlockingIOError):
                            os.eventfd_read(self._wake)
                    elif descriptor == self._sockets.fileno():
                        if self._armed:
                            self._look()
                            if not self._is_expecting():
                                self._disarm()
                    else:
                        member = self._by_fd.get(descriptor)
                        if member is not None:
                            self._bury(member)
                if self._ticking and not events:
                    self._tick()
                if self._kill_at is not None and time.monotonic() >= self._kill_at:
                    self._kill_at = None
                    for member in [*self.members, *self._leaving]:
                        member.kill()
                if self.state != RUN and not self.members and not self._leaving:
                    self._callbacks.end()
                    if self._server is None:
                        self._close_descriptors()
                    return

    def _rest_s(self) -> float:
        """How long the keeper may sleep; negative: until it is woken."""
        if self._ticking:
            return TICK_S
        return -1.0 if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())

    def __del__(self) -> None:
        if getattr(self, "_wake", -1) >= 0 and not self._keeper.is_alive():
            self._close_descriptors()

    def abandon(self) -> None:
        """In a forked child: the workers are the parent's."""
        self.state = TERMINATE
        self._lock = threading.RLock()
        self._busy = False
        self._server = None
        for member in [*self.members, *self._leaving, *([self._starting] if self._starting else [])]:
            member.close()
        self.members, self._leaving, self._starting = [], [], None
        self._jobs = set()
        self._queue.clear()
        self._again.clear()
        self._close_descriptors()


def _describe(member: Member) -> WorkerInfo:
    from shmarray.pool import WorkerInfo

    if not member.batches:
        return WorkerInfo(member.pid, "idle" if member.ready else "starting", "")
    at_hand = next(iter(next(iter(member.batches.values())).open.values()), None)
    task = "" if at_hand is None else describe_call(at_hand.job.function)
    return WorkerInfo(member.pid, "busy" if member.ready else "starting", task)


_NOBODY: dict[str, Any] = {"task": "", "pid": None, "signal": None, "exitcode": None, "out_of_memory": False}


def _main_functions() -> dict[str, Any]:
    main = sys.modules.get("__main__")
    return {name: value for name, value in vars(main).items() if type(value) is types.FunctionType} if main else {}


def _after_fork_in_child() -> None:
    for crew in list(_crews):
        crew.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
