"""What workers print and log reaches the caller.

Workers' standard output and error are pipes; their log records are packets. The thread that runs a call copies them to
`sys.stdout`, `sys.stderr` (whatever these are: a terminal, a notebook's cell, a test's capture) and the loggers, every
few milliseconds and before the call returns. Between calls, and when that thread is held up, a daemon thread does it;
it also hears first when a worker ends.

A call looks for output at its end only when a worker has noted on the dispatch page that there is some: looking takes
three system calls. `write_through_page` makes a worker's streams note it.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import socket
import sys
import threading
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import Any

from shmarray.pool import logs

__all__ = ["OutputRelay", "write_through_page"]

_READ_NBYTES = 64 * 1024
_PIPE_NBYTES = 1024 * 1024  # what an unprivileged process may ask for; a worker waits when it is full
_PATIENCE_MS = 50  # how long the daemon thread leaves output to a thread that is in a call


class OutputRelay:
    """Reads what all workers of a pool write, and watches for their ends.

    Parameters
    ----------
    in_call : callable
        Whether a thread is in a call of this pool, and so about to `drain`.
    on_death : callable
        Called in the daemon thread when a process that is watched has ended.
    """

    def __init__(self, in_call: Callable[[], bool], on_death: Callable[[], None]) -> None:
        self._in_call, self._on_death = in_call, on_death
        self._closed = False
        self._stdout, self._stdout_in = _pipe()
        self._stderr, self._stderr_in = _pipe()
        self._log, self._log_in = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._log.setblocking(False)
        self._stop, self._stop_in = os.pipe2(os.O_CLOEXEC)
        self._events = select.epoll()
        self._own = (self._stdout, self._stderr, self._log.fileno(), self._stop)
        for fd in self._own:
            self._events.register(fd, select.EPOLLIN)
        decoder = getincrementaldecoder("utf-8")
        self._decoders = {self._stdout: decoder("replace"), self._stderr: decoder("replace")}
        self._lock = threading.Lock()  # guards reading and decoding: `drain` runs in several threads
        self._drained = 0  # how often, so that the daemon thread sees that another did its work
        self._thread: threading.Thread | None = None

    @property
    def worker_fds(self) -> tuple[int, int, int]:
        """What a worker writes to: standard output, standard error, log packets."""
        return self._stdout_in, self._stderr_in, self._log_in.fileno()

    def descriptors(self) -> set[int]:
        """What it holds open."""
        return {*self._own, *self.worker_fds, self._stop_in, self._events.fileno()}

    def start(self) -> None:
        """Start the daemon thread, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shmarray-output", daemon=True)
            self._thread.start()

    def watch(self, pidfd: int) -> None:
        """Tell of the end of a process, once."""
        self._events.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)

    def drain(self) -> None:
        """Hand on what has arrived so far, without waiting for more."""
        with self._lock:
            self._drained += 1
            if self._closed:
                return
            for fd in self._decoders:
                while self._copy_text(fd):
                    pass
            while self._copy_record():
                pass

    def close(self) -> None:
        """Stop the thread, hand on the rest, close everything. The workers must be gone."""
        os.write(self._stop_in, b"x")
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        self.drain()
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptors; in a forked child, where the thread does not run, nothing else."""
        if not self._closed:
            self._closed = True
            for fd in (self._stdout, self._stdout_in, self._stderr, self._stderr_in, self._stop, self._stop_in):
                os.close(fd)
            self._log.close()
            self._log_in.close()
            self._events.close()

    def _run(self) -> None:
        stop = select.poll()
        stop.register(self._stop, select.POLLIN)
        while True:
            ready = {fd for fd, _ in self._events.poll()}
            if self._stop in ready:
                return
            if not ready.issubset(self._own):
                self._on_death()
            if ready.isdisjoint(self._own):
                continue
            if self._in_call():
                # Text belongs where the call was made: a notebook shows another thread's text in another cell.
                before = self._drained
                if stop.poll(_PATIENCE_MS):
                    return
                if self._drained != before:
                    continue
            self.drain()

    def _copy_text(self, fd: int) -> bool:
        try:
            data = os.read(fd, _READ_NBYTES)
        except BlockingIOError:
            return False
        stream = sys.stdout if fd == self._stdout else sys.stderr
        text = self._decoders[fd].decode(data)
        if text and stream is not None:
            with contextlib.suppress(Exception):  # a closed or broken stream is the user's; the call goes on
                stream.write(text)
                stream.flush()
        return bool(data)

    def _copy_record(self) -> bool:
        try:
            packet = self._log.recv(logs.MAX_PACKET_NBYTES)
        except OSError:  # none is there
            return False
        logs.hand_on(packet)
        return True


def _pipe() -> tuple[int, int]:
    # Reading never blocks; writing does: a worker that prints a lot waits, it does not lose text.
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reading, False)
    with contextlib.suppress(OSError):  # the user's pages for pipes are used up: a smaller one does too
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_NBYTES)
    return reading, writing


class _NotedFile(io.FileIO):
    """Standard output or error of a worker; every write is noted after it."""

    def __init__(self, fd: int, note: Callable[[], None]) -> None:
        super().__init__(fd, "w", closefd=False)
        self._note = note

    def write(self, data: Any, /) -> int:
        count = super().write(data)
        self._note()
        return count


def write_through_page(note: Callable[[], None]) -> None:
    """In a worker: make `sys.stdout` and `sys.stderr` call `note` after every write, and C's `stdout` unbuffered."""
    sys.stdout = sys.__stdout__ = _text(1, note)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text(2, note)  # type: ignore[misc]
    import ctypes

    with contextlib.suppress(Exception):  # a C library that does not call it so
        library = ctypes.CDLL(None)
        library.setvbuf(ctypes.c_void_p.in_dll(library, "stdout"), None, 2, ctypes.c_size_t(0))  # _IONBF


def _text(fd: int, note: Callable[[], None]) -> io.TextIOWrapper:
    # UTF-8 whatever the locale: the caller decodes it so.
    buffer = io.BufferedWriter(_NotedFile(fd, note))
    return io.TextIOWrapper(buffer, "utf-8", "backslashreplace", line_buffering=True)
