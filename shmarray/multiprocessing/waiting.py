"""Who takes results in, and when?

The thread that waits for a result *serves* the pool meanwhile: it takes in all results and hands out what comes next.
So there is no thread between a caller and its workers, and nobody to be woken on the way. Before it sleeps it looks for
results a little, if there is a core to spare: to be woken costs more than a short task.

While nobody serves the crew's keeper does. It is told at once (*armed*: the sockets wake it) when a caller leaves. But
where callers come back all the time (between two results of `imap`, two calls of `apply_async`) it looks by itself once
a millisecond (*ticking*) whether they stay away, so that no lock and no interpreter is fought for over each result.

Invariants: everything happens with `_lock` held, except sleeping. One thread serves at a time. While there are jobs and
nobody serves, the keeper is armed or ticks, so results wait for a millisecond at most.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shmarray.interrupts import held_back
from shmarray.pool import available_cores

if TYPE_CHECKING:
    from shmarray.multiprocessing.jobs import Job
    from shmarray.multiprocessing.member import Member

__all__ = ["TICK_S", "Waiting"]

TICK_S = 1e-3  # callers that come back within this time are not done yet
_LOOK_S = 5e-4  # callers that do not wait look for results no more often
#: A look that takes so long was interrupted by another process (which has its core for a slice of time, not for the
#: microseconds of an interrupt); then none are taken for some waits.
_CROWDED_S = 2e-4
_CROWDED_WAITS = 50


class Waiting:
    """Threads that wait for results of one pool, and the one of them that serves it.

    Parameters
    ----------
    spin_us : int
        How long a thread looks for results before it sleeps.
    """

    def __init__(self, spin_us: int) -> None:
        self.members: list[Member] = []
        self._lock = threading.RLock()
        self._busy = False  # the lock's holder is moving tasks; calls from inside leave that to it
        self._jobs: set[Job] = set()  # not done
        self._server: int | None = None  # the thread that serves
        self._nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # for the serving thread
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # for the keeper
        self._sockets = select.epoll()
        self._events = select.epoll()  # what the keeper looks at
        self._sockets.register(self._nudge, select.EPOLLIN)
        self._events.register(self._sockets.fileno(), 0)
        self._events.register(self._wake, select.EPOLLIN)
        self._armed = False  # the keeper is woken by the sockets
        self._ticking = False  # it looks by itself in a moment
        self._left_s = 0.0  # when a caller last left
        self._looked_s = 0.0  # when one that does not wait last looked
        self._spin_s = spin_us * 1e-6
        self._cores = available_cores()
        self._crowded = 0  # how many more times not to look for results before sleeping

    # ------------------------------------------------------------------ waiting

    def wait(
        self,
        job: Job,
        ready: Callable[[], bool],
        timeout_s: float | None,
        watch: Callable[[], object] | None = None,
        *,
        begun: bool = False,
    ) -> None:
        """Wait until `ready()`, serving the pool unless another thread does; `watch` is called now and then.

        With `begun` this thread is the one that serves already.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        me = threading.get_ident()
        inside = self._server == me and not begun  # a signal handler, while this thread sleeps in `_serve`
        while not ready():
            try:
                if inside or begun or self._begin_serving():
                    self._serve(ready, until, watch, inside)
                else:
                    self._wait_for_server(job, ready, until)
            finally:
                begun = False
                if not inside and self._server == me:
                    self._end_serving()
            if until is not None and time.monotonic() >= until:
                return
        if begun and self._server == me:  # it was ready at once
            self._end_serving()

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

    # ------------------------------------------------------------------ serving

    def _begin_serving(self) -> bool:
        with held_back(), self._lock:
            if self._server is not None:
                return False
            self._become_server(threading.get_ident())
            self._move()  # what was held back while tasks came in quick succession
            return True

    def _become_server(self, thread: int) -> None:
        self._server = thread
        self._disarm()

    def _end_serving(self) -> None:
        with held_back(), self._lock:
            self._server = None
            self._leave()

    def _serve(
        self, ready: Callable[[], bool], until: float | None, watch: Callable[[], object] | None, inside: bool
    ) -> None:
        if self._busy and self._lock._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError("a pool's result was waited for by what it was pickling, which cannot come to an end")
        poll, clock = self._sockets.poll, time.monotonic
        timeout = 0.0
        spin_until = clock() + self._patience_s()
        while True:
            events = poll(timeout)
            if events:
                with held_back(), self._lock:
                    self._take_in(events)
                    if not inside and ready():  # now, rather than with the lock taken once more
                        self._server = None
                        self._leave()
                if watch is not None:
                    watch()
                spin_until = clock() + self._patience_s()
            if ready():
                return
            now = clock()
            if until is not None and now >= until:
                return
            timeout = 0.0
            if now < spin_until:
                os.sched_yield()
                if clock() - now > _CROWDED_S:
                    # Somebody else needs this core. One that sleeps is woken at once; one that looks waits its turn.
                    self._crowded = _CROWDED_WAITS
                    spin_until = now
            else:
                timeout = -1.0 if until is None else until - now

    def _patience_s(self) -> float:
        """How long to look for results before sleeping: never where that would keep a worker from its core."""
        if self._crowded:
            self._crowded -= 1
            return 0.0
        busy = 0
        for member in self.members:
            if member.batches:
                busy += 1
        return self._spin_s if busy < self._cores else 0.0

    # ------------------------------------------------------------------ nobody serves

    def _leave(self, *, look: bool = False) -> None:
        """A caller leaves, and perhaps nobody serves now: have the keeper do it, if there is something to wait for.

        With `look` it takes in what is there, if that was not done just now.
        """
        if self._server is not None or not self._is_expecting():
            return
        before, self._left_s = self._left_s, time.monotonic()
        if self._ticking:
            if look and self._left_s - self._looked_s > _LOOK_S:
                self._looked_s = self._left_s
                self._look()
        elif self._left_s - before < TICK_S:
            self._disarm()
            self._ticking = True
            self._tell(self._wake)
        else:
            self._arm()

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._events.modify(self._sockets.fileno(), select.EPOLLIN)

    def _disarm(self) -> None:
        if self._armed:
            self._armed = False
            self._events.modify(self._sockets.fileno(), 0)

    def _tick(self) -> None:
        """The keeper looks by itself: callers have stayed away for a while."""
        self._ticking = False
        if self._server is None and self._is_expecting():
            self._look()
            if self._is_expecting():
                self._arm()

    def _is_expecting(self) -> bool:
        """Whether workers will be heard of; of tasks that nobody waits for any more, too: they hold what they name."""
        return bool(self._jobs) or any(member.batches for member in self.members)

    def _is_hot(self) -> bool:
        """Whether a caller left just now, and may be back in a moment."""
        return time.monotonic() - self._left_s < TICK_S

    def _look(self) -> None:
        """Take in what is there."""
        self._take_in(self._sockets.poll(0))

    def _take_in(self, events: list[tuple[int, int]]) -> None:
        """Take in what these sockets have, and hand out what comes next."""
        raise NotImplementedError

    def _move(self) -> None:
        """Hand out what there is to those who have room."""
        raise NotImplementedError

    @staticmethod
    def _tell(descriptor: int) -> None:
        if descriptor >= 0:
            os.eventfd_write(descriptor, 1)

    def _close_descriptors(self) -> None:
        self._sockets.close()
        self._events.close()
        for descriptor in (self._nudge, self._wake):
            if descriptor >= 0:
                os.close(descriptor)
        self._nudge = self._wake = -1
