"""Who does what, and what happens when one of them dies?

The workers of a pool, the tasks that wait for them, and whoever moves the one to the other. There is no thread between
a caller and its workers: a call hands its tasks out itself, and the thread that waits for a result *serves* the pool
meanwhile, taking in all results and handing out what comes next. One thread of the pool's own, the *keeper*, does so
when nobody waits; it also sees deaths, replaces workers and runs callbacks.

Invariants: workers share nothing, so the death of one concerns the tasks it was given, no others. Everything here
happens with `_lock` held, except sleeping and callbacks. The keeper looks at results only while no thread serves
(`_armed`), so the two never compete.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import sys
import threading
import time
import traceback
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from shmarray.errors import WorkerDiedError
from shmarray.multiprocessing.jobs import IMapIterator, Job, Task
from shmarray.multiprocessing.member import Member, SentBatch
from shmarray.multiprocessing.payloads import loads
from shmarray.multiprocessing.work import Status, describe_call, records
from shmarray.pool import WorkerInfo, available_cores
from shmarray.pool.outcome import describe_death
from shmarray.segment.interrupts import held_back

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from shmarray.multiprocessing.jobs import Pace

__all__ = ["CLOSE", "RUN", "TERMINATE", "Crew"]

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"  # as in multiprocessing.pool

_AHEAD = 2  # batches that a worker has at most: one at hand, one to go on with
_START_ATTEMPTS = 3  # workers that die before they are ready, in a row, before the pool gives up
_TERMINATION_GRACE_S = 5.0  # between SIGTERM and SIGKILL
_SPIN_S = 50e-6  # how long a thread that waits looks for results before it sleeps, if there is a core to spare

_numbers = itertools.count(1)
_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


class Crew:
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
        self.size = size
        self.state = RUN
        self.members: list[Member] = []
        self._make_process = make_process
        self._start = (initializer, tuple(initargs), spin_us)
        self._max_tasks = max_tasks
        self._lock = threading.RLock()
        self._busy = False  # the lock's holder is moving tasks; calls from inside leave that to it
        self._leaving: list[Member] = []
        self._jobs: set[Job] = set()  # not done
        self._queue: deque[Job] = deque()  # with tasks that were not taken
        self._again: deque[Task] = deque()  # that were given back, or whose worker died
        self._callbacks: SimpleQueue[tuple[Callable[[Any], object], Any, Callable[[], None]] | None] = SimpleQueue()
        self._caller: threading.Thread | None = None  # runs them
        self._failed_starts = 0
        self._starting: Member | None = None
        self._known_main = _main_functions() if inherits_main else None
        self._server: int | None = None  # the thread that serves
        self._by_fd: dict[int, Member] = {}  # by the descriptor of the socket and of the process
        self._nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # for the serving thread
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # for the keeper
        self._sockets = select.epoll()
        self._events = select.epoll()
        self._sockets.register(self._nudge, select.EPOLLIN)
        self._events.register(self._wake, select.EPOLLIN)
        self._events.register(self._sockets.fileno(), 0)
        # Else it would keep a worker from its core.
        self._spin_s = _SPIN_S if available_cores() > size else 0.0
        self._armed = False  # the keeper looks at the sockets
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
        try:
            with held_back(), self._lock:
                self.check_running()
                if len(self.members) < self.size:  # they did not start: try again
                    self._failed_starts = 0
                    self._fill_up()
                self._jobs.add(job)
                self._queue.append(job)
                self._move()
                if not wait:
                    self._arm()
            if wait:
                self.wait(job, lambda: job.done, None, watch)
        except BaseException:  # Ctrl-C, for one: nobody will ask for the results
            self.drop(job)
            raise

    def submit_fed(self, job: IMapIterator, chunks: Iterable[Any]) -> None:
        """Have a job done whose arguments may be slow to come: a thread of its own waits for them."""
        self.submit(job)
        threading.Thread(target=self._feed, args=(job, chunks), name="shmarray-pool-feeder", daemon=True).start()

    def _feed(self, job: IMapIterator, chunks: Iterable[Any]) -> None:
        error = None
        try:
            job.hungry.set()
            for chunk in chunks:
                while not job.hungry.wait(0.5) and job in self._jobs:
                    pass
                with self._lock:
                    if job not in self._jobs:
                        return
                    job.feed(chunk)
                    if job not in self._queue:
                        self._queue.append(job)
                    self._move()
                    self._arm()
                del chunk
        except Exception as raised:
            error = raised
        with self._lock:
            if job in self._jobs:
                job.end_feeding(error)

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
            self._arm()

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
                self._arm()

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
        if threading.current_thread() is not self._keeper:
            self._keeper.join()

    def join(self) -> None:
        """Wait until all work is done and the workers have ended."""
        waiter: Any = types.SimpleNamespace(waiting=[])
        self.wait(waiter, lambda: not self._jobs, None)
        self._keeper.join()
        if self._caller is not None and self._caller is not threading.current_thread():
            self._caller.join()

    def call_back(self, function: Callable[[Any], object], value: Any, finish: Callable[[], None]) -> None:
        """Call a function of the user's, in a thread that nothing else waits for, and then `finish`."""
        if self._caller is None:
            self._caller = threading.Thread(target=self._run_callbacks, name="shmarray-pool-callbacks", daemon=True)
            self._caller.start()
        self._callbacks.put((function, value, finish))

    def end(self, job: Job) -> None:
        """A job is done."""
        self._jobs.discard(job)
        if job.key:
            for member in self.members:
                if job.key in member.known:
                    member.known.discard(job.key)
                    member.forget.append(job.key)
        if self._server is not None and self._server != threading.get_ident():
            self._tell(self._nudge)
        self._dismiss_if_over()

    # ------------------------------------------------------------------ waiting

    def wait(
        self,
        job: Job,
        ready: Callable[[], bool],
        timeout_s: float | None,
        watch: Callable[[], object] | None = None,
    ) -> None:
        """Wait until `ready()`, serving the pool unless another thread does; `watch` is called now and then."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        me = threading.get_ident()
        inside = self._server == me  # a signal handler, while this thread sleeps in `_serve`
        while not ready():
            try:
                if inside or self._begin_serving():
                    self._serve(ready, until, watch)
                else:
                    self._wait_for_server(job, ready, until)
            finally:
                if not inside and self._server == me:
                    self._end_serving()
            if until is not None and time.monotonic() >= until:
                return

    def _wait_for_server(self, job: Job, ready: Callable[[], bool], until: float | None) -> None:
        event = threading.Event()
        with held_back(), self._lock:
            job.waiting.append(event)
            if ready() or self._server is None:
                event.set()
        try:
            event.wait(None if until is None else max(0.0, until - time.monotonic()))
        finally:
            with held_back(), self._lock:
                job.waiting.remove(event)

    def _begin_serving(self) -> bool:
        with held_back(), self._lock:
            if self._server is not None:
                return False
            self._server = threading.get_ident()
            if self._armed:
                self._armed = False
                self._events.modify(self._sockets.fileno(), 0)
            return True

    def _end_serving(self) -> None:
        with held_back(), self._lock:
            self._server = None
            self._arm()

    def _arm(self) -> None:
        """Nobody serves: have the keeper do it, if there is something to wait for."""
        if self._server is None and self._jobs and not self._armed:
            self._armed = True
            self._events.modify(self._sockets.fileno(), select.EPOLLIN)

    def _serve(self, ready: Callable[[], bool], until: float | None, watch: Callable[[], object] | None) -> None:
        if self._busy and self._lock._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError("a pool's result was waited for by what it was pickling, which cannot come to an end")
        poll = self._sockets.poll
        timeout = 0.0
        spin_until = time.monotonic() + self._spin_s
        while True:
            events = poll(timeout)
            if events:
                with held_back(), self._lock:
                    self._take_in(events)
                if watch is not None:
                    watch()
                spin_until = time.monotonic() + self._spin_s
            if ready():
                return
            timeout = 0.0
            now = time.monotonic()
            if until is not None and now >= until:
                return
            if now >= spin_until:
                timeout = -1.0 if until is None else until - now

    # ------------------------------------------------------------------ handing out

    def _move(self) -> None:
        """Hand out what there is to those who have room."""
        if self._busy:
            return  # from inside of this very loop: it goes on until nothing is left
        self._busy = True
        try:
            while not self._hand_out():
                pass
        finally:
            self._busy = False

    def _hand_out(self) -> bool:
        """One round; False if it should be followed by another."""
        for ahead in range(_AHEAD):
            for member in list(self.members):
                if len(member.batches) == ahead and not self._give(member):
                    return ahead > 0 or not self._take_from_others()
        return True

    def _give(self, member: Member) -> bool:
        """Give a worker a batch; whether there was one to give."""
        left = self._max_tasks - member.given if self._max_tasks else sys.maxsize
        if left <= 0 or member.leaving:
            return True  # there may be, for others
        task = self._next_task(None)
        if task is None:
            return False
        tasks = [task]
        pace = task.job.pace
        count = min(pace.batch_tasks, left)
        if count > 1 and task.payload.segment is None:  # type: ignore[union-attr]
            waiting = len(self._again) + len(self._queue) + (self._queue[0].pending if self._queue else 0)
            fair = waiting if pace.is_indivisible(waiting + 1) else waiting // (2 * len(self.members))
            for _ in range(min(count - 1, fair)):
                task = self._next_task(pace)
                if task is None:
                    break
                tasks.append(task)
                if task.payload.segment is not None:  # type: ignore[union-attr]
                    break  # a message carries few descriptors
        self._send(member, tasks)
        return True

    def _send(self, member: Member, tasks: list[Task]) -> None:
        functions = {}
        for task in tasks:
            key = task.job.key
            if key and key not in member.known:
                member.known.add(key)
                functions[key] = task.job.function_data
        try:
            member.send(SentBatch(next(_numbers), tasks), functions)
        except OSError as error:  # no descriptors or memory left
            member.known -= functions.keys()
            for task in tasks:
                task.job.deliver(task.index, False, error)
            return
        if member.channel.waiting:
            self._sockets.modify(member.channel.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _next_task(self, pace: Pace | None) -> Task | None:
        """The next task, pickled; of that pace, if one is given."""
        while True:
            if self._again:
                if pace is not None and self._again[0].job.pace is not pace:
                    return None
                task: Task | None = self._again.popleft()
            elif self._queue:
                job = self._queue[0]
                if pace is not None and job.pace is not pace:
                    return None
                task = job.take()
                if task is None:
                    with contextlib.suppress(ValueError):
                        self._queue.remove(job)
                    continue
            else:
                return None
            assert task is not None
            if task.job.dropped:
                continue
            if task.payload is None or task.by_value != task.job.by_value:
                try:
                    task.payload = task.job.encode(task)
                except Exception as error:
                    task.job.deliver(task.index, False, error)
                    continue
            return task

    def _take_from_others(self) -> bool:
        """Nothing waits, and somebody is idle: take from others what they have not begun, if there is something."""
        idle = [member for member in self.members if not member.batches and not member.leaving]
        for owner in self.members:
            if len(owner.batches) > 1 or (owner.batches and not owner.ready and any(one.ready for one in idle)):
                tasks = [task for batch in owner.take_back() for task in batch.open.values()]
                if tasks:
                    self._again.extendleft(reversed(tasks))
                    return True
        return False

    # ------------------------------------------------------------------ taking in

    def _take_in(self, events: list[tuple[int, int]]) -> None:
        self._busy = True
        try:
            self._hear_all(events)
        finally:
            self._busy = False
        self._move()

    def _hear_all(self, events: list[tuple[int, int]]) -> None:
        for descriptor, event in events:
            member = self._by_fd.get(descriptor)
            if member is None:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._nudge)
                continue
            if event & select.EPOLLOUT and member.channel.flush():
                self._sockets.modify(descriptor, select.EPOLLIN)
            received = member.hear()
            if received is not None:
                self._hear(member, *received)

    def _hear(self, member: Member, report: tuple[int, bytes, tuple[int, ...], int, int], fds: list[int]) -> None:
        number, data, given_back, elapsed_ns, nbytes = report
        descriptor = fds[0] if fds else -1
        try:
            if number == 0:
                self._hear_of_start(member, data)
                return
            batch = member.batches.get(number)
            if batch is None:
                return
            for position, status, payload in records(data):
                task = batch.open.pop(position, None)
                if task is not None:
                    self._settle(task, status, payload, nbytes, descriptor)
            for position in given_back:
                self._again.appendleft(batch.open.pop(position))
            member.given -= len(given_back)
            batch.size -= len(given_back)
            if elapsed_ns:
                del member.batches[number]
                batch.pace.learn(elapsed_ns, batch.size)
                if self._max_tasks and member.given >= self._max_tasks and not member.batches:
                    self._replace(member)
        finally:
            for fd in fds:
                os.close(fd)

    def _hear_of_start(self, member: Member, data: bytes) -> None:
        if not data:
            member.ready = True
            self._failed_starts = 0
        else:
            with contextlib.suppress(Exception):
                member.complaint = loads(data)

    def _settle(self, task: Task, status: int, payload: memoryview, nbytes: int, descriptor: int) -> None:
        """A task has come to something."""
        job = task.job
        if job.dropped:
            return
        if status == Status.UNREADABLE and not task.by_value:
            job.send_by_value()
            task.payload = None
            self._again.append(task)
            return
        try:
            value = loads(payload, nbytes, descriptor)
        except Exception as error:
            error.add_note(f"raised while the result of {describe_call(job.function)} was unpickled")
            job.deliver(task.index, False, error)
        else:
            job.deliver(task.index, status == Status.RETURNED, value)

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
                    f"(the last: {describe_death(death)})"
                    + ("; their initializer raised" if complaint else ""),
                    task="start",
                    **death._asdict(),
                )
                error.__cause__ = complaint
                self._fail_all(error)
        elif not expected and (self.state == RUN or self._jobs) and self.state != TERMINATE:
            self._try_to_fill_up()
        self._move()

    def _try_to_fill_up(self) -> None:
        try:
            self._fill_up()
        except Exception as error:  # no process to be had
            if not self.members:
                failure = WorkerDiedError(f"no worker could be started: {error}", **_NOBODY)
                failure.__cause__ = error
                self._fail_all(failure)

    def _fail_all(self, error: WorkerDiedError) -> None:
        self._queue.clear()
        self._again.clear()
        for job in list(self._jobs):
            job.fail(error)

    def _take_over(self, member: Member) -> list[Task]:
        """The tasks of a dead worker go to others; returns the one that it died of."""
        back: list[Task] = [task for batch in member.take_back() for task in batch.open.values()]
        number, begun, data = member.at_hand()
        lost = []
        batch = member.batches.pop(number, None)
        if batch is not None:
            for position, status, payload in records(data):
                task = batch.open.pop(position, None)
                if task is not None:
                    self._settle(task, status, payload, 0, -1)
            culprit = batch.open.pop(begun - 1, None)
            if culprit is not None:
                lost.append(culprit)
            back[:0] = batch.open.values()
        for batch in member.batches.values():
            back[:0] = batch.open.values()
        member.batches.clear()
        if self.state != TERMINATE:
            self._again.extendleft(reversed(back))
        return lost

    def _lose(self, task: Task, death: Any) -> None:
        job = task.job
        task.deaths += 1
        if job.dropped or job.done:
            return
        if task.deaths <= job.retries:
            self._again.appendleft(task)
            return
        call = describe_call(job.function)
        times = "" if task.deaths == 1 else f" (it is worker number {task.deaths} that this task has ended)"
        error = WorkerDiedError(
            f"worker {death.pid} ended in task {task.index} of {call}: {describe_death(death)}{times}; others go on",
            task=call,
            index=task.index,
            **death._asdict(),
        )
        job.deliver(task.index, False, error)

    # ------------------------------------------------------------------ the keeper

    def _keep(self) -> None:
        while True:
            timeout = -1.0
            if self._kill_at is not None:
                timeout = max(0.0, self._kill_at - time.monotonic())
            events = self._events.poll(timeout)
            with self._lock:
                for descriptor, _ in events:
                    if descriptor == self._wake:
                        with contextlib.suppress(BlockingIOError):
                            os.eventfd_read(self._wake)
                    elif descriptor == self._sockets.fileno():
                        if self._armed:
                            self._take_in(self._sockets.poll(0))
                            self._disarm_if_idle()
                    else:
                        member = self._by_fd.get(descriptor)
                        if member is not None:
                            self._bury(member)
                if self._kill_at is not None and time.monotonic() >= self._kill_at:
                    self._kill_at = None
                    for member in [*self.members, *self._leaving]:
                        member.kill()
                if self.state != RUN and not self.members and not self._leaving:
                    self._callbacks.put(None)
                    if self._server is None:
                        self._close_descriptors()
                    return

    def _disarm_if_idle(self) -> None:
        if not self._jobs:
            self._armed = False
            self._events.modify(self._sockets.fileno(), 0)

    def _run_callbacks(self) -> None:
        while (callback := self._callbacks.get()) is not None:
            function, value, finish = callback
            try:
                function(value)
            except BaseException:  # the original's thread would be dead, and all calls with it
                traceback.print_exc()
            with self._lock:
                finish()
            del callback, function, value, finish

    @staticmethod
    def _tell(descriptor: int) -> None:
        if descriptor >= 0:
            os.eventfd_write(descriptor, 1)

    def _close_descriptors(self) -> None:
        self._sockets.close()
        self._events.close()
        for descriptor in (self._nudge, self._wake):
            os.close(descriptor)
        self._nudge = self._wake = -1

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
