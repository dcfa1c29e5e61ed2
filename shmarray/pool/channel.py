"""Messages between a caller and one worker, with descriptors beside them.

A Unix socket of packets: each message is one pickle, whole or not at all. Long ones travel in anonymous shared memory
and only its descriptor goes through the socket, so that no message is limited by a socket's buffer. Sending never
blocks the caller: what a stopped or slow worker does not take waits in a queue here, in order.
"""

from __future__ import annotations

import array
import contextlib
import errno
import mmap
import os
import pickle
import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from shmarray.segment.failpoints import ARMED, reach

__all__ = ["Channel", "ChannelClosedError"]

_PACKET_NBYTES = 64 * 1024  # well under the default buffer of a Unix socket
_DESCRIPTORS = 4
_ANCILLARY_NBYTES = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
_INLINE, _SPILLED = b"i", b"s"
#: The other side does not take more now, or the kernel does not (memory, descriptors on their way).
_LATER = {errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS}


class ChannelClosedError(EOFError):
    """The other side is gone."""


class Channel:
    """One end of the socket between a caller and a worker."""

    __slots__ = ("_backlog", "_poll", "_socket")

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._backlog: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._poll: select.poll | None = None

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """A channel and the socket for the other end, to be inherited by a new process."""
        if ARMED:
            reach("dispatch.socket")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    @property
    def waiting(self) -> int:
        """How many messages wait here because the other side does not take them."""
        return len(self._backlog)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Queue a message. `descriptors` are duplicated at once; the caller may close its own.

        Raises
        ------
        ChannelClosedError
            When the other side is gone.
        """
        self.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL), descriptors)

    def send_bytes(self, pickled: bytes, descriptors: Sequence[int] = ()) -> None:
        """Queue a message that is pickled already (once for many workers)."""
        if not (descriptors or self._backlog or ARMED) and len(pickled) < _PACKET_NBYTES:
            try:
                self._socket.send(_INLINE + pickled)  # whole or not at all
                return
            except OSError as error:
                if error.errno is None:
                    raise  # a signal handler's, not the kernel's
                # What it means is seen below.
        packet = _INLINE + pickled if len(pickled) < _PACKET_NBYTES else _SPILLED
        own: list[int] = []
        try:
            if packet is _SPILLED:
                own.append(_spill(pickled))
            if ARMED and descriptors:
                reach("dispatch.duplicate")
            own.extend(map(os.dup, descriptors))
        except BaseException:  # no descriptor left
            for fd in own:
                os.close(fd)
            raise
        self._backlog.append((packet, tuple(own)))
        self.flush()

    def flush(self) -> bool:
        """Send what waits, as far as the other side takes it; whether all of it went."""
        while self._backlog:
            packet, descriptors = self._backlog[0]
            ancillary = []
            if descriptors:
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            try:
                if ARMED:
                    reach("dispatch.send")
                self._socket.sendmsg([packet], ancillary)
            except OSError as error:
                if error.errno in _LATER:
                    return False
                self._drop_backlog()  # EPIPE, ECONNRESET, EBADF after close
                raise ChannelClosedError("the other process is gone") from error
            self._backlog.popleft()
            for fd in descriptors:
                os.close(fd)
        return True

    def receive(self, timeout_s: float | None = 0.0) -> tuple[Any, list[int]] | None:
        """The next message with its descriptors (now the caller's to close); None when none came in time.

        Raises
        ------
        ChannelClosedError
            When the other side is gone and everything it sent has been read.
        """
        if timeout_s != 0.0:
            if self._poll is None:
                self._poll = select.poll()
                self._poll.register(self._socket, select.POLLIN)
            if not self._poll.poll(None if timeout_s is None else timeout_s * 1000):
                return None
        try:
            if ARMED:
                reach("worker.receive")
            packet, ancillary, _, _ = self._socket.recvmsg(_PACKET_NBYTES + 1, _ANCILLARY_NBYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            if error.errno is None:
                raise  # a signal handler's, not the kernel's
            raise ChannelClosedError("the other process is gone") from error
        if not packet:
            raise ChannelClosedError("the other process is gone")
        descriptors: list[int] = []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(data[: len(data) - len(data) % received.itemsize])
                descriptors.extend(received)
        if packet[:1] == _SPILLED:
            return pickle.loads(_read_spilled(descriptors.pop(0))), descriptors
        return pickle.loads(memoryview(packet)[1:]), descriptors

    def close(self) -> None:
        """Close this end; the other side reads what was sent, then finds the channel closed."""
        self._drop_backlog()
        self._socket.close()

    def _drop_backlog(self) -> None:
        while self._backlog:
            for fd in self._backlog.popleft()[1]:
                with contextlib.suppress(OSError):
                    os.close(fd)


def _spill(data: bytes) -> int:
    fd = os.memfd_create("shmarray-message", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    except BaseException:  # memory is full
        os.close(fd)
        raise
    return fd


def _read_spilled(fd: int) -> bytes:
    try:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as pages:
            return pages[:]
    finally:
        os.close(fd)
