"""How do tasks get to workers, and results to their jobs?

Invariants: workers share nothing, so the death of one concerns the tasks that it was given, no others. Everything
happens with the lock held.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from shmarray.errors import WorkerDiedError
from shmarray.multiprocessing.jobs import Job, Task
from shmarray.multiprocessing.member import Member, SentBatch
from shmarray.multiprocessing.payloads import loads
from shmarray.multiprocessing.waiting import Waiting
from shmarray.multiprocessing.work import Status, describe_call, records
from shmarray.pool.outcome import describe_death

if TYPE_CHECKING:
    from shmarray.multiprocessing.pace import Pace

__all__ = ["AHEAD", "CLOSE", "RUN", "TERMINATE", "Exchange"]

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"  # as in multiprocessing.pool

AHEAD = 2  # batches that a worker has at most: one at hand, one to go on with

_numbers = itertools.count(1)


class Exchange(Waiting):
    """Tasks that wait, workers that have some, and what moves the one to the other.

    Parameters
    ----------
    size : int
        How many workers there are to be.
    max_tasks : int, optional
        What one of them does at most.
    spin_us : int
        See :class:`~shmarray.multiprocessing.waiting.Waiting`.
    """

    def __init__(self, size: int, max_tasks: int | None, spin_us: int) -> None:
        super().__init__(spin_us)
        self.size = size
        self.state = RUN
        self._max_tasks = max_tasks
        self._queue: deque[Job] = deque()  # with tasks that were not taken
        self._again: deque[Task] = deque()  # that were given back, or whose worker died
        self._failed_starts = 0  # workers in a row that died before they were ready
        self._by_fd: dict[int, Member] = {}  # by the descriptor of the socket and of the process

    # ------------------------------------------------------------------ handing out

    def _move(self, most: int = AHEAD) -> None:
        """Hand out what there is to those who have room: fewer than `most` batches."""
        if self._busy:
            return  # from inside of this very loop: it goes on until nothing is left
        self._busy = True
        try:
            while not self._hand_out(most):
                pass
        finally:
            self._busy = False

    def _hand_out(self, most: int) -> bool:
        """One round; False if it should be followed by another."""
        if not (self._queue or self._again):
            return not self._take_from_others()
        for ahead in range(most):
            for member in list(self.members):
                if len(member.batches) == ahead and not self._give(member):
                    return ahead > 0 or not self._take_from_others()
        return True

    def _give(self, member: Member) -> bool:
        """Give a worker a batch; whether there was one to give."""
        if not (self._queue or self._again):
            return False
        left = self._room(member)
        if left <= 0:
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
                if job.may_be_endless and len(self._queue) > 1:
                    self._queue.rotate(-1)  # others have their turn too
            else:
                return None
            assert task is not None
            if task.job.dropped:
                continue
            if task.payload is None or task.by_value != task.job.by_value:
                try:
                    task.payload = task.job.encode(task)
                except BaseException as error:  # whatever a `__reduce__` raises, it concerns its own task alone
                    task.job.deliver(task.index, False, error)
                    continue
            return task

    def _take_from_others(self) -> bool:
        """Nothing waits, and somebody is idle: take from others what they have not begun, if there is something."""
        for owner in self.members:
            if len(owner.batches) > 1 or (owner.batches and not owner.ready):
                break
        else:
            return False
        idle = [member for member in self.members if not member.batches and self._room(member) > 0]
        for owner in list(self.members):
            if idle and (len(owner.batches) > 1 or (owner.batches and not owner.ready and any(m.ready for m in idle))):
                tasks = [task for batch in owner.take_back() for task in batch.open.values()]
                if tasks:
                    self._again.extendleft(reversed(tasks))
                    # To the end, so that the others come first now: it would get the same tasks again, and again.
                    self.members.remove(owner)
                    self.members.append(owner)
                    return True
        return False

    def _room(self, member: Member) -> int:
        """How many more tasks a worker is to do in its life."""
        if member.leaving:
            return 0
        return self._max_tasks - member.given if self._max_tasks else sys.maxsize

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

    def _replace(self, member: Member) -> None:
        """A worker has done as many tasks as it is to do."""
        raise NotImplementedError

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
        except BaseException as error:  # signals are held back, so it is the result's own
            error.add_note(f"raised while the result of {describe_call(job.function)} was unpickled")
            job.deliver(task.index, False, error)
        else:
            job.deliver(task.index, status == Status.RETURNED, value)

    # ------------------------------------------------------------------ deaths

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
