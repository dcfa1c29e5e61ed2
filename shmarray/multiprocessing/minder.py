"""Has a worker's batch taken too long, and is its pool still there?

The minder is a thread that sleeps until one of the two is so. Its clock is a timer of the kernel's, set without letting
go of the interpreter's lock, and only where it is not set already: hot batches cost no system call for it.
"""

from __future__ import annotations

import ctypes
import os
import select
import threading
import time
from collections.abc import Callable
from multiprocessing import process

from shmarray.pool.channel import ChannelClosedError

__all__ = ["Minder"]

#: A batch is given this long before the rest of it is given back.
PATIENCE_NS = 2_000_000


class Minder:
    """The thread; it ends this process with the pool's.

    Parameters
    ----------
    late : callable
        Called in it when a batch has taken too long.
    """

    def __init__(self, late: Callable[[], None]) -> None:
        self._late = late
        # Without letting go of the interpreter's lock: the calls take no time.
        library = ctypes.PyDLL(None, use_errno=True)
        self._timer = library.timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC)  # CLOCK_MONOTONIC
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._set = library.timerfd_settime
        self._set.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._interval = (ctypes.c_long * 4)()
        self._address = ctypes.addressof(self._interval)
        self._since_ns = 0  # when what the main thread is at began; 0: nothing is to be watched
        self._is_set = False  # the timer

    def start(self) -> None:
        """Watch the pool's process from now on."""
        parent = process.parent_process()
        pid = os.getppid() if parent is None or parent.pid is None else parent.pid
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            os._exit(1)
        threading.Thread(target=self._run, args=(pidfd,), name="shmarray-pool-minder", daemon=True).start()

    def watch(self, since_ns: int) -> None:
        """Something began at this time (of `time.perf_counter_ns`): call `late` if it takes longer than it should.

        The timer stays as it is if it is set: to set it costs as much as a short task, and it is looked at once it is
        due what there is to be watched by then.
        """
        self._since_ns = since_ns
        if not self._is_set:
            self._is_set = True
            self._set_timer(PATIENCE_NS)

    def rest(self) -> None:
        """It is over."""
        self._since_ns = 0

    def _set_timer(self, in_ns: int) -> None:
        self._interval[2], self._interval[3] = divmod(in_ns, 1_000_000_000)
        self._set(self._timer, 0, self._address, None)

    def _due(self) -> bool:
        """The timer is due: whether the main thread takes too long; sets it again if that is still to be seen."""
        self._is_set = False  # before the look at what there is, so that what begins now sets it
        since_ns = self._since_ns
        if not since_ns:
            return False
        left_ns = since_ns + PATIENCE_NS - time.perf_counter_ns()
        if left_ns <= 0:
            return True
        self._is_set = True
        self._set_timer(left_ns)
        return False

    def _run(self, pidfd: int) -> None:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self._timer, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == pidfd:
                    os._exit(1)
                try:
                    os.read(self._timer, 8)
                except BlockingIOError:
                    continue
                try:
                    if self._due():
                        self._late()
                except ChannelClosedError:
                    os._exit(1)
