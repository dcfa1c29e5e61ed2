"""One worker of a pool, as the pool's process sees it.

The pool keeps the worker's end of the socket open as well: packets that the worker has not taken yet can be taken back
through it. The kernel gives each packet to exactly one reader, so no task is done twice and none is lost, whatever the
worker does or dies of. That the worker is dead is told by its pidfd, never by an end of file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any
from weakref import ref

from shmarray.multiprocessing.work import Journal
from shmarray.multiprocessing.worker import run_worker
from shmarray.pool.channel import Channel, ChannelClosedError
from shmarray.pool.diagnosis import MemoryKills, why_killed
from shmarray.pool.outcome import Death

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from shmarray.multiprocessing.jobs import Task
    from shmarray.multiprocessing.pool import Pool

__all__ = ["Member", "SentBatch", "WorkerMaker"]


class SentBatch:
    """A batch that a worker has not accounted for altogether."""

    __slots__ = ("number", "open", "pace", "size")

    def __init__(self, number: int, tasks: list[Task]) -> None:
        self.number = number
        self.size = len(tasks)  #: without those that were given back
        self.pace = tasks[0].job.pace
        self.open: dict[int, Task] = dict(enumerate(tasks))  #: by position


class Member:
    """A worker process, started.

    Parameters
    ----------
    make_process : callable
        `make_process(target=..., args=...)` gives a process that is not started.
    initializer, initargs, spin_us
        See :func:`shmarray.multiprocessing.worker.run_worker`.
    announce : callable
        Told of this object before the process starts, so that a forked child can let go of its descriptors.
    """

    def __init__(
        self,
        make_process: Callable[..., BaseProcess],
        initializer: Callable[..., object] | None,
        initargs: Iterable[Any],
        spin_us: int,
        announce: Callable[[Member], object],
    ) -> None:
        self.batches: dict[int, SentBatch] = {}  #: by number, the oldest first
        self.known: set[int] = set()  #: keys of the functions that it was told of
        self.forget: list[int] = []  #: and of those that it need not know any more, to be told with the next batch
        self.given = 0  #: tasks, but those that it gave back
        self.ready = False  #: its initializer has run
        self.leaving = False  #: it was told that there will be no more
        self.complaint: BaseException | None = None  #: what its initializer raised
        self.pidfd = -1
        self._kills_before = MemoryKills.now()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel, self._their_end = Channel(ours), Channel(theirs)
        self._journal: Journal | None = None
        announce(self)
        try:
            memory = Journal.create_memory()
            # Connections carry descriptors into a process, whatever its start method and the descriptors.
            with Connection(os.dup(theirs.fileno())) as end, Connection(memory) as journal:
                self._journal = Journal(memory)
                self.process = make_process(target=run_worker, args=(end, journal, initializer, initargs, spin_us))
                _start(self.process)
            with contextlib.suppress(ProcessLookupError):  # a forkserver's child may be dead and gone by now
                assert self.process.pid is not None
                self.pidfd = os.pidfd_open(self.process.pid)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid or 0

    def send(self, batch: SentBatch, functions: dict[int, bytes]) -> None:
        """Have it do a batch, whose tasks have their payloads."""
        forget, self.forget = tuple(self.forget), []
        descriptors: list[int] = []
        entries = []
        try:
            for task in batch.open.values():
                payload = task.payload
                assert payload is not None
                if payload.segment is not None:
                    descriptors.append(payload.segment.open_unlocked())
                # A plain number: a member of an enumeration is found by its name when it is unpickled.
                entries.append((task.job.key, int(task.job.mode), payload.data, payload.nbytes))
            self.channel.send((batch.number, functions, forget, entries), descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self.batches[batch.number] = batch
        self.given += batch.size

    def dismiss(self) -> None:
        """Tell it that there will be no more."""
        self.leaving = True
        self.channel.send(None)

    def take_back(self) -> list[SentBatch]:
        """The batches that it has not looked at yet, and now will not."""
        batches = []
        while (received := self._their_end.receive()) is not None:
            message, descriptors = received
            for descriptor in descriptors:
                os.close(descriptor)
            if message is None:
                continue  # its dismissal: it died before
            number, functions, forget, _ = message
            batch = self.batches.pop(number)
            self.given -= batch.size
            self.known -= functions.keys()
            self.forget += forget
            batches.append(batch)
        return batches

    def at_hand(self) -> tuple[int, int, bytes]:
        """Of one that is dead: batch, number of its tasks that were begun, and records."""
        assert self._journal is not None
        return self._journal.read()

    def death(self) -> Death:
        """How it ended; reaps it."""
        self.process.join()
        status = self.process.exitcode
        number = -status if status is not None and status < 0 else None
        reason = why_killed(self.pid, self._kills_before) if number == signal.SIGKILL else ""
        return Death(self.pid, number, status if number is None else None, bool(reason), reason)

    def terminate(self) -> None:
        """SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.pidfd, number)

    def hear(self) -> tuple[Any, list[int]] | None:
        """The next report."""
        try:
            return self.channel.receive()
        except ChannelClosedError:
            return None

    def close(self) -> None:
        """Let go of all descriptors, in the pool's process or in a child of it."""
        self.channel.close()
        self._their_end.close()
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def _start(process: BaseProcess) -> None:
    """Start a worker that Ctrl-C, which its whole group hears, does not end before it can do better: see `_Interrupts`.

    The mask is inherited. By a forkserver too, which is not to have it, and so runs before.
    """
    method = getattr(process, "_start_method", "fork")
    for tries_left in (2, 1, 0):
        if method != "fork":
            resource_tracker.ensure_running()  # changes the mask when it starts
        if method == "forkserver":
            forkserver.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process.start()
            return
        except ConnectionError:  # the forkserver was ended, by the very signal perhaps: the next one
            if method != "forkserver" or not tries_left:
                raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerMaker:
    """Makes workers' processes for a pool without keeping it alive."""

    def __init__(self, pool: Pool) -> None:
        self._pool = ref(pool)
        self._kind = type(pool)
        self._context = pool._ctx

    def __call__(self, **keywords: Any) -> Any:
        process = (self._pool() or self._kind).Process(self._context, **keywords)
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = True
        return process
