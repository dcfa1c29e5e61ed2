"""The workers of a pool: started, told what they need, replaced when they die, ended.

Invariant: a worker knows a job before it is expected to take part in it, and no lane of the page ever has two live
processes. All methods but `is_told` are for whoever holds the pool's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import weakref
from typing import TYPE_CHECKING, Any

from shmarray import registry
from shmarray.configuration import config
from shmarray.interrupts import held_back
from shmarray.pool import logs
from shmarray.pool.channel import ChannelClosedError
from shmarray.pool.lane import Lane
from shmarray.pool.outcome import Death, describe_death, last_words
from shmarray.pool.output import OutputRelay
from shmarray.pool.page import ACTIVE, COUNT, CURRENT, EPOCH, READY, DispatchPage
from shmarray.pool.process import WorkerProcess
from shmarray.segment.failpoints import ARMED, reach

if TYPE_CHECKING:
    from shmarray.pool.ticket import JobTicket

__all__ = ["CannotStartError", "Crew"]

_MAX_FAILED_STARTS = 3
_MAX_KERNELS = 256  # loaded machine code that a worker keeps
_MAX_WAITING = 64  # messages kept for a worker that does not read (stopped, say); each may hold descriptors


class CannotStartError(Exception):
    """Several workers in a row died before they did anything."""

    def __init__(self, death: Death) -> None:
        super().__init__(f"{_MAX_FAILED_STARTS} workers in a row died before they did anything")
        self.death = death


class Crew:
    """Worker processes, the dispatch page they share with this process, and what carries their output.

    Attributes
    ----------
    page : DispatchPage
    caller : Lane
        This process's own lane.
    workers : list of WorkerProcess
        The one in lane n is number n - 1.
    relay : OutputRelay
    unsettled : bool
        An epoch is open, or was left so by an exception; the page is in order when False.
    bereaved : bool
        A worker has died since somebody looked; set by the relay's thread.
    closing : bool
        The pool is being terminated from another thread, or is the parent's: a running call is to give up.
    """

    def __init__(self, spin_us: int) -> None:
        self.spin_ns = spin_us * 1000
        self.page = DispatchPage.create()
        self.caller = Lane(0, self.page)
        self.calls = self.caller.calls
        self.workers: list[WorkerProcess] = []
        self.unsettled = self.bereaved = self.closing = False
        self._failed_starts = 0
        # Weak: the relay's thread would keep the crew of a pool that nobody has any more.
        me = weakref.ref(self)
        self.relay = OutputRelay(lambda: _is_in_call(me()), lambda: _bereave(me()))

    def descriptors(self) -> set[int]:
        """What it holds open in this process."""
        held = {self.page.fd, *self.relay.descriptors()}
        return held.union(*(worker.descriptors for worker in self.workers))

    # ------------------------------------------------------------------ start and end

    def start(self, count: int) -> None:
        """Have at least `count` workers; they come up while the caller goes on."""
        if ARMED:
            reach("dispatch.relay")
        self.relay.start()
        for lane in range(len(self.workers) + 1, count + 1):
            self.workers.append(self._spawn(lane))

    def is_ready(self, worker: WorkerProcess) -> bool:
        """Whether it has come up."""
        return int(self.page.words[self.page.slot(worker.lane, READY)]) == worker.pid

    def is_active(self, worker: WorkerProcess) -> bool:
        """Whether it is in an epoch."""
        return bool(self.page.words[self.page.slot(worker.lane, ACTIVE)])

    def replace(self, worker: WorkerProcess) -> Death:
        """Bury a dead worker and start another in its lane.

        Raises
        ------
        CannotStartError
            When it was one too many that did nothing. It and all behind it are gone then.
        """
        words, slot = self.page.words, self.page.slot(worker.lane, 0)
        idle_or_at_work = not words[slot + ACTIVE // 8] or words[slot + CURRENT // 8] >= 0
        did_nothing = not (self.is_ready(worker) and idle_or_at_work)
        self._failed_starts = self._failed_starts + 1 if did_nothing else 0
        death = worker.death()
        if self._failed_starts >= _MAX_FAILED_STARTS:
            self._failed_starts = 0
            logs.logger().error(
                "shmarray: worker %d (pid %d) died: %s; giving up", worker.lane, death.pid, describe_death(death)
            )
            self.dismiss(worker.lane)
            raise CannotStartError(death)
        ended = "died" if not death.reason.startswith("by this pool") else "was ended"
        logs.logger().warning(
            "shmarray: worker %d (pid %d) %s: %s; it is replaced%s",
            worker.lane,
            death.pid,
            ended,
            describe_death(death),
            last_words(death),
        )
        worker.close()
        self.workers[worker.lane - 1] = self._spawn(worker.lane)
        return death

    def replace_dead(self) -> None:
        """Replace all who died since."""
        self.bereaved = False
        for worker in list(self.workers):
            if not worker.alive:
                self.replace(worker)

    def worked(self) -> None:
        """A call has gone well: what failed to start before did not do so in a row, if workers had a part in it."""
        if self._failed_starts and any(self.page.words[self.page.slot(one.lane, COUNT)] for one in self.workers):
            self._failed_starts = 0

    def _spawn(self, lane: int) -> WorkerProcess:
        self.page.clear_lane(lane)
        worker = WorkerProcess(lane, self.page.fd, self.relay.worker_fds)
        self.relay.watch(worker.pidfd)
        logs.logger().debug("started worker %d (pid %d)", lane, worker.pid)
        self._tell_settings(worker)
        return worker

    def dismiss(self, first_lane: int) -> None:
        """End the workers from a lane on, whatever they are at."""
        for worker in self.workers[first_lane - 1 :]:
            worker.kill()
            worker.close()
            self.page.clear_lane(worker.lane)
        del self.workers[first_lane - 1 :]

    def end(self, *, grace_s: float, interrupt: held_back) -> None:
        """Let workers finish what they are at, then end them; the crew is of no use afterwards."""
        if not self.unsettled:
            for worker in self.workers:
                with contextlib.suppress(ChannelClosedError):
                    worker.channel.send(("stop",))
            self.wake()
            until = time.monotonic() + grace_s
            for worker in self.workers:
                # One that is still importing has nothing to finish.
                while self.is_ready(worker) and not worker.wait(0.02):
                    if interrupt.pressed or time.monotonic() > until:
                        break
        logs.logger().debug("ending workers %s", [worker.pid for worker in self.workers])
        self.dismiss(1)
        self.relay.close()

    def abandon(self) -> None:
        """In a forked child: the workers are the parent's; let go of its descriptors, kill nobody."""
        for worker in self.workers:
            worker.close(reap=False)
        self.workers = []
        self.relay.abandon()
        self.page.close_descriptor()
        if (
            self.unsettled
        ):  # forked in a call (by a callback), which the parent goes on with: end it here, on a page apart
            self.closing = True
            self.page = self.caller.page = DispatchPage.create(private=True)
            self.page.close_descriptor()

    # ------------------------------------------------------------------ messages

    def tell(self, worker: WorkerProcess, ticket: JobTicket) -> None:
        """Send a worker what it needs for a job, if it does not have it."""
        channel = worker.channel
        channel.flush()
        if ticket.number in worker.told or channel.waiting > _MAX_WAITING:
            return
        self._tell_settings(worker)
        for number, payload in ticket.kernels:
            if number not in worker.kernels:
                channel.send(("kernel", number, payload))
            worker.kernels.pop(number, None)
            worker.kernels[number] = None
        while len(worker.kernels) > _MAX_KERNELS:
            oldest = next(iter(worker.kernels))
            del worker.kernels[oldest]
            channel.send(("forget", oldest))
        for key, reference in ticket.segments.items():
            if key in worker.lent and (key not in ticket.leased or key in worker.leased):
                segment = reference()
                if segment is not None and ticket.runs_python:
                    registry.lent(segment, may_be_kept=True)
            else:
                segment = reference()
                if segment is None:  # cannot be: the plan that is dispatched holds its arrays
                    raise RuntimeError("a segment of a running job is gone")
                registry.lent(segment, may_be_kept=ticket.runs_python)
                if ARMED:
                    reach("dispatch.open")
                fd = segment.open_unlocked()
                try:
                    if key in ticket.leased:
                        # The worker's mapping keeps this open file, and so its lock, until the worker is gone.
                        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                        worker.leased.add(key)
                    # All of the file's room: reused, it may hold a larger array than now, under the same key.
                    room = max(segment.mapping.capacity, 1)
                    channel.send(("map", key, room, segment.mode == "r+"), [fd], of=key)
                finally:
                    os.close(fd)
                worker.lent.add(key)
        channel.send(("job", ticket.number, ticket.spec))
        worker.told.add(ticket.number)

    def is_told(self, kind: str, value: Any) -> bool:
        """Whether some worker knows of a job ("forget") or has a segment mapped ("unmap"). Takes no lock."""
        if kind == "unmap":
            return any(value in worker.lent for worker in self.workers)
        return any(value in worker.told for worker in self.workers)

    def tell_all(self, kind: str, value: Any) -> None:
        """Have those who know of a job forget it, or those who have a segment mapped unmap it, when they next read."""
        for worker in self.workers:
            known: set[Any] = worker.lent if kind == "unmap" else worker.told
            if value in known:
                known.discard(value)
                worker.leased.discard(value)
                if kind == "unmap":  # a worker that is not up yet would keep the pages as long as nobody calls it
                    worker.channel.withdraw(value)
                with contextlib.suppress(ChannelClosedError):
                    worker.channel.send((kind, value))

    def wake(self) -> None:
        """Have all workers read their messages now, the sleeping ones too."""
        if not int(self.page.words[EPOCH // 8]) & 1:  # in an open epoch they are awake, or a job wakes them
            self.calls.call(self.page.address)

    def _tell_settings(self, worker: WorkerProcess) -> None:
        settings = {
            "spin_ns": self.spin_ns,
            "config": {name: getattr(config, name) for name in ("namespace", "max_nbytes", "handle_ttl_s")},
            "log_levels": logs.levels(),
        }
        if settings != worker.settings:
            with contextlib.suppress(ChannelClosedError):
                worker.channel.send(("settings", settings))
            worker.settings = settings


def _is_in_call(crew: Crew | None) -> bool:
    return crew is not None and crew.unsettled


def _bereave(crew: Crew | None) -> None:
    if crew is not None:
        crew.bereaved = True
