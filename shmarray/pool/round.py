"""One dispatch: a job is opened to all lanes, done, and what became of it is told chunk by chunk.

Invariants: a dead worker never makes a round hang (its pidfd is looked at every few milliseconds), and what it was
doing is told exactly: chunks done, untouched, failed, or of unknown content. However a round ends, by Ctrl-C too, the
page is closed and no lane is at work; where even that was interrupted, `Crew.unsettled` is left True and the next
call starts with `recover`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from shmarray.errors import WorkerDiedError
from shmarray.interrupts import held_back, raised_by_handler
from shmarray.pool import logs
from shmarray.pool.channel import ChannelClosedError
from shmarray.pool.crew import CannotStartError, Crew
from shmarray.pool.lane import Lane
from shmarray.pool.outcome import MOST_OWN_DEATHS, Death, Failure, Outcome
from shmarray.pool.page import COUNT, FAILED, FPE, ChunkState
from shmarray.segment.failpoints import ARMED, reach

if TYPE_CHECKING:
    from shmarray.pool.process import WorkerProcess
    from shmarray.pool.ticket import JobTicket

__all__ = ["Round", "recover"]

_BITE_NS = 20_000_000  # how long compiled code may keep Python from seeing a signal or a death
_NIBBLE_NS = 1_000_000  # the same while a worker still waits for messages that this thread must send
_STOP_GRACE_S = 0.3  # how long workers get to finish their chunk after a cancel, before they are killed
_STOPPED_LOOK_S = 0.5  # how often to look whether workers were stopped (SIGSTOP)
_STOPPED_PATIENCE_S = 2.0  # how long a stopped one may go on soon, before it counts as dead
_REPORT_S = 10.0  # how long the report of a failed chunk may take to read


class Round:
    """One call of `Pool.dispatch`, with the pool's lock held."""

    __slots__ = (
        "_outcome",
        "crew",
        "deadline",
        "epoch",
        "limit",
        "next_look_s",
        "running",
        "start",
        "stop",
        "stopped",
        "ticket",
        "watch",
    )

    def __init__(
        self,
        crew: Crew,
        ticket: JobTicket | None,
        limit: int,
        deadline: float | None,
        watch: Callable[[int], object] | None,
    ) -> None:
        self.crew, self.ticket, self.limit = crew, ticket, limit
        self.deadline, self.watch = deadline, watch
        self.start = self.stop = self.epoch = 0
        self._outcome: Outcome | None = None
        self.running: dict[int, Death] = {}  # chunk -> who died over it
        self.stopped: dict[int, float] = {}  # pid -> since when it has been seen stopped
        self.next_look_s = 0.0

    @property
    def outcome(self) -> Outcome:
        """What there is to tell; made when there is something."""
        if self._outcome is None:
            self._outcome = Outcome()
        return self._outcome

    def publish(self, start: int, stop: int, caller: Callable[[Lane, int], int] | None) -> bool:
        """Open the job to all lanes, take part, and wait for the end; whether everything went well."""
        crew, limit = self.crew, self.limit
        calls, address = crew.calls, crew.page.address
        assert self.ticket is not None
        number = self.ticket.number
        bite_ns = _BITE_NS
        for worker in crew.workers[:limit]:
            if number not in worker.told or worker.channel.waiting:
                bite_ns = self._tell_all()
                break
        self.start, self.stop = start, stop
        crew.unsettled = True
        try:
            if ARMED:
                reach("dispatch.publish")
            self.epoch = calls.publish(address, number, start, stop, limit)
            while caller is not None:
                try:
                    if not caller(crew.caller, bite_ns):
                        break
                except Exception as error:
                    if raised_by_handler(error) is not None:
                        raise
                    self.outcome.failures.append(Failure.of(crew.caller.mark_failed(), error))
                    break
                self._look()
            if ARMED:
                reach("dispatch.settle")
            while not (settled := calls.settle(address, limit, crew.spin_ns, bite_ns)):
                self._look()
        except BaseException:
            with held_back() as interrupt:
                self._abort(interrupt)
            raise
        crew.unsettled = False
        return settled == 1 and self.watch is None and not self.running

    def sort_out(self) -> Outcome:
        """What became of the chunks, once all is quiet."""
        crew, page = self.crew, self.crew.page
        words = page.words
        crew.relay.drain()
        done = 0
        for lane in range(self.limit + 1):
            slot = page.slot(lane, 0)
            done += int(words[slot + COUNT // 8])
            self.outcome.floating_flags |= int(words[slot + FPE // 8])
            if lane and words[slot + FAILED // 8]:  # the caller's own exception is known already
                self._collect_failure(lane)
        if done != self.stop - self.start or self.running:
            self._sort_chunks()
        else:
            crew.worked()
        self._show_progress()
        return self.outcome

    # ------------------------------------------------------------------ while it runs

    def _tell_all(self) -> int:
        """Tell the workers of the job; how long a bite may be then."""
        assert self.ticket is not None
        workers = self.crew.workers[: self.limit]
        with held_back():  # a message half sent, or sent and not noted, would be sent again
            for worker in workers:
                self._tell(worker)
        logs.logger().debug("%s goes to %d workers as job %d", self.ticket.name, len(workers), self.ticket.number)
        return _NIBBLE_NS if any(worker.channel.waiting for worker in workers) else _BITE_NS

    def _tell(self, worker: WorkerProcess) -> None:
        if self.ticket is not None:
            try:
                self.crew.tell(worker, self.ticket)
            except ChannelClosedError:  # it is dead or dying; `_look` replaces it
                worker.kill()

    def _look(self) -> None:
        """Between bites: deaths, the deadline, output, progress."""
        crew = self.crew
        self._check_open()
        for worker in crew.workers[: self.limit]:
            if not worker.alive:
                with held_back():
                    self._bury(worker)
                if self.outcome.cannot_start is not None:
                    break  # the rest of this list is gone
            elif worker.channel.waiting or (self.ticket is not None and self.ticket.number not in worker.told):
                with held_back():
                    self._tell(worker)
        crew.relay.drain()
        self._look_for_stopped()
        if self.deadline is not None and time.monotonic() > self.deadline and not self.outcome.timed_out:
            self.outcome.timed_out = True
            crew.calls.cancel(crew.page.address)
            self._kill_active("its call had passed its timeout")
            for worker in crew.workers[: self.limit]:
                if worker.is_stopped:  # it has begun nothing, and would not in the next call either
                    worker.kill("it was stopped, and its call had passed its timeout")
        self._show_progress()
        self._check_open()  # a callback may have forked, and this may be the child

    def _look_for_stopped(self) -> None:
        """A worker that stands still for long is as good as dead: end it, so that it is replaced as ever."""
        now = time.monotonic()
        if now < self.next_look_s:
            return
        # The first look of a round only sets the time: short calls read nothing.
        if self.next_look_s:
            for worker in self.crew.workers[: self.limit]:
                if not worker.is_stopped:
                    self.stopped.pop(worker.pid, None)
                elif now - self.stopped.setdefault(worker.pid, now) > _STOPPED_PATIENCE_S:
                    worker.kill(f"it was stopped (SIGSTOP) for more than {_STOPPED_PATIENCE_S:g} s")
        self.next_look_s = now + _STOPPED_LOOK_S

    def _check_open(self) -> None:
        if self.crew.closing:
            task = self.ticket.name if self.ticket is not None else ""
            reason = "was terminated" if self.crew.workers else "was left to the parent process"
            facts = Death(os.getpid(), signal.SIGKILL, None)._asdict()
            raise WorkerDiedError(f"{task}: the pool {reason} while it ran this call", task=task, **facts)

    def _bury(self, worker: WorkerProcess) -> None:
        """Note what a dead worker was doing, and put another in its place."""
        crew, page = self.crew, self.crew.page
        # Read the page first: burying the worker clears its slot.
        was_active = crew.is_active(worker)
        states = page.states[: self.stop - self.start]
        running = np.flatnonzero(states == worker.lane + 1).tolist()
        self.outcome.floating_flags |= int(page.words[page.slot(worker.lane, FPE)])
        if page.words[page.slot(worker.lane, FAILED)]:
            self._collect_failure(worker.lane)
        try:
            death = crew.replace(worker)
            self._tell(crew.workers[worker.lane - 1])
        except CannotStartError as error:
            # The lanes that are left end their chunks, then the call ends; its chunks are told as ever.
            crew.calls.cancel(page.address)
            death = self.outcome.cannot_start = error.death
            gone = (states > worker.lane + 1) & (states < ChunkState.FAILED)
            running += np.flatnonzero(gone).tolist()
        if was_active:
            self.outcome.deaths.append(death)
        for offset in running:
            self.running.setdefault(self.start + offset, death)
        if sum(death.is_own_fault for death in set(self.running.values())) >= MOST_OWN_DEATHS:
            crew.calls.cancel(page.address)  # one death a chunk tells nothing new

    def _show_progress(self) -> None:
        if self.watch is not None:
            self.watch(int(np.count_nonzero(self.crew.page.states[: self.stop - self.start] == ChunkState.DONE)))

    def _kill_active(self, reason: str) -> None:
        for worker in self.crew.workers[: self.limit]:
            if self.crew.is_active(worker):
                worker.kill(reason)
                worker.wait(5.0)

    def _abort(self, interrupt: held_back) -> None:
        """Leave the page closed and quiet, whatever it takes."""
        crew = self.crew
        on_unknown = None if self.ticket is None else self.ticket.on_unknown
        self.watch = self.deadline = self.ticket = None
        closing, crew.closing = crew.closing, False
        try:
            crew.calls.cancel(crew.page.address)
            if closing:
                crew.dismiss(1)
            until = time.monotonic() + _STOP_GRACE_S
            killed = False
            while not crew.calls.settle(crew.page.address, self.limit, 0, _BITE_NS):
                with contextlib.suppress(Exception):  # no descriptor left for a new worker, say: the dead one stays
                    self._look()
                # Pressed again: no more patience, but the page must be left in order.
                if not killed and (interrupt.pressed or time.monotonic() > until):
                    killed = True
                    self._kill_active("its call was interrupted")
            crew.unsettled = False
            for worker in crew.workers:  # reports that nobody will ask for
                with contextlib.suppress(ChannelClosedError):
                    while worker.channel.receive() is not None:
                        pass
            crew.relay.drain()
            if self.running and on_unknown is not None:
                logs.logger().warning(
                    "shmarray: the call was interrupted, and workers were ended while they changed chunks %s in place: "
                    "their content is unknown",
                    sorted(self.running),
                )
                on_unknown(sorted(self.running), "of unknown content: the call was interrupted")
        finally:
            crew.closing = closing

    # ------------------------------------------------------------------ when it is over

    def _collect_failure(self, lane: int) -> None:
        """Read what a worker reported of the chunk that raised."""
        worker = self.crew.workers[lane - 1]
        until = time.monotonic() + _REPORT_S
        with contextlib.suppress(ChannelClosedError):
            while time.monotonic() < until:
                received = worker.channel.receive(timeout_s=0.2)
                if received is None:
                    continue
                kind, *facts = received[0]
                if kind == "failed" and facts[0] == self.epoch:
                    _, chunk, pickled, line, text = facts
                    error = None
                    if pickled is not None:
                        with contextlib.suppress(Exception):  # its class is not to be had, or does not like it here
                            error = pickle.loads(pickled)
                    self.outcome.failures.append(
                        Failure(chunk, error if isinstance(error, BaseException) else None, line, text)
                    )
                    return

    def _sort_chunks(self) -> None:
        """Which chunks are not done, by what is known of them."""
        states = self.crew.page.states[: self.stop - self.start]
        failed = {failure.chunk for failure in self.outcome.failures}
        for offset in np.flatnonzero(states != ChunkState.DONE).tolist():
            chunk = self.start + offset
            if chunk in self.running:
                self.outcome.interrupted[chunk] = self.running[chunk]
            elif states[offset] == ChunkState.FREE:
                self.outcome.untouched.append(chunk)
            elif chunk not in failed:  # marked FAILED, but the report did not arrive
                self.outcome.failures.append(Failure(chunk, None, "the worker's report is lost", ""))


def recover(crew: Crew) -> None:
    """Bring a page in order that an interrupted call has left open."""
    with held_back() as interrupt:
        Round(crew, None, len(crew.workers), None, None)._abort(interrupt)
