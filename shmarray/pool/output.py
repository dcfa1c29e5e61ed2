"""What workers print and log reaches the caller.

Workers' standard output and error are pipes; their log records are packets. One daemon thread in the caller copies text
to `sys.stdout` and `sys.stderr` (whatever these are: a terminal, a notebook's cell, a test's capture) and hands records
to the caller's loggers. `drain` does the same at once, so that a call returns after what its workers said.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import socket
import sys
import threading
from codecs import getincrementaldecoder

__all__ = ["OutputRelay"]

_READ_NBYTES = 64 * 1024


class OutputRelay:
    """Reads what all workers of a pool write."""

    def __init__(self) -> None:
        self._stdout, self._stdout_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stderr, self._stderr_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for fd in (self._stdout_in, self._stderr_in):
            os.set_blocking(fd, True)  # a worker that prints a lot waits; it does not lose text
        self._log, self._log_in = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._log.setblocking(False)
        self._stop, self._stop_in = os.pipe2(os.O_CLOEXEC)
        decoder = getincrementaldecoder("utf-8")
        self._decoders = {self._stdout: decoder("replace"), self._stderr: decoder("replace")}
        self._lock = threading.Lock()  # guards reading and decoding: `drain` runs beside the thread
        self._thread: threading.Thread | None = None

    @property
    def worker_fds(self) -> tuple[int, int, int]:
        """What a worker writes to: standard output, standard error, log packets."""
        return self._stdout_in, self._stderr_in, self._log_in.fileno()

    def descriptors(self) -> set[int]:
        """What it holds open."""
        pipes = {self._stdout, self._stdout_in, self._stderr, self._stderr_in, self._stop, self._stop_in}
        return pipes | {self._log.fileno(), self._log_in.fileno()}

    def start(self) -> None:
        """Start the thread (again, in a process where it is not running)."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="shmarray-output", daemon=True)
            self._thread.start()

    def drain(self) -> None:
        """Hand on what has arrived so far, without waiting."""
        with self._lock:
            for fd in self._decoders:
                while self._copy_text(fd):
                    pass
            while self._copy_record():
                pass

    def close(self) -> None:
        """Stop the thread, hand on the rest, close everything. The workers must be gone."""
        os.close(self._stop_in)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        self.drain()
        for fd in (self._stdout, self._stdout_in, self._stderr, self._stderr_in, self._stop):
            os.close(fd)
        self._log.close()
        self._log_in.close()

    def abandon(self) -> None:
        """Close the descriptors in a forked child, where the thread does not run."""
        for fd in (self._stdout, self._stdout_in, self._stderr, self._stderr_in, self._stop, self._stop_in):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._log.close()
        self._log_in.close()

    def _run(self) -> None:
        poll = select.poll()
        for fd in (self._stdout, self._stderr, self._log.fileno(), self._stop):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._stop in ready:
                return
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
            packet = self._log.recv(_READ_NBYTES)
        except (BlockingIOError, OSError):
            return False
        import logging

        with contextlib.suppress(Exception):  # a record that cannot be rebuilt here is not worth a failed call
            record = logging.makeLogRecord(pickle.loads(packet))
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        return True
