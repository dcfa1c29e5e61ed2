"""`multiprocessing.connection`, with pipes that keep the arrays they carry until these have been received.

A pipe here is the standard library's and, beside it, an *escort*: a socket that takes the segments' descriptors along
(:mod:`shmarray.packing`). A message that has an escort says so before its length; all others are the very
bytes that the original would write.

Invariant: the escort is sent before its message, so whoever reads the message finds it. Should a sender be killed
between the two, one that is left over is taken by the next message, and each segment still outlives the message that
names it.
"""

from __future__ import annotations

import array
import os
import pickle
import socket
import struct
import threading
from io import BytesIO
from multiprocessing import connection as _standard
from multiprocessing import reduction
from multiprocessing.reduction import ForkingPickler
from typing import Any

from shmarray.errors import SegmentNotFoundError
from shmarray.packing import begin_packing, end_packing, is_plain

__all__ = [*_standard.__all__, "EscortedConnection", "leave_escort"]

_LENGTH = struct.Struct("!i")
_LONG_LENGTH = struct.Struct("!Q")
_ESCORTED = _LENGTH.pack(-2)  # in the place of a length, of which -1 announces a long one
_SHORT_NBYTES = 16 * 1024  # such a message is written at once, with its length before it
_MOST_LEASES = 250  # descriptors that the kernel takes in one message: SCM_MAX_FD, less a few


class EscortedConnection(_standard.Connection):
    """One end of a pipe.

    Parameters
    ----------
    handle : int
        Descriptor of the pipe's end, from now on this object's.
    escort : socket
        Likewise.
    readable, writable : bool
    """

    def __init__(self, handle: int, escort: socket.socket, readable: bool = True, writable: bool = True) -> None:
        self._escort = escort
        self._handle: Any
        self._readable: bool
        self._writable: bool
        super().__init__(handle, readable, writable)

    def send(self, obj: Any) -> None:
        """Send an object; the arrays in it live until the other side has them, or is gone."""
        if self._handle is None or not self._writable:
            super().send(obj)  # says what is wrong
        if is_plain(obj):
            self._write(pickle.dumps(obj))
            return
        begin_packing()
        try:
            data = ForkingPickler.dumps(obj)
        except BaseException:
            end_packing()
            raise
        self._send_bytes(data)

    def recv(self) -> Any:
        """The next object that the other side has sent."""
        if self._handle is None or not self._readable:
            super().recv()  # says what is wrong
        message = self._message(None)
        try:
            return pickle.loads(message if isinstance(message, bytes) else message.getbuffer())  # type: ignore[union-attr]
        finally:
            leave_escort()

    def _send_bytes(self, buf: Any) -> None:
        segments = end_packing()
        if segments and self._send_escort(segments):
            self._send(_ESCORTED)  # type: ignore[attr-defined]
        self._write(buf)

    def _write(self, data: Any) -> None:
        if len(data) > _SHORT_NBYTES:
            super()._send_bytes(data)  # type: ignore[misc]
            return
        packet = _LENGTH.pack(len(data)) + data
        written = os.write(self._handle, packet)
        if written < len(packet):
            self._send(packet[written:])  # type: ignore[attr-defined]

    def _send_escort(self, segments: list[Any]) -> bool:
        from shmarray.registry.references import keep_in_flight, open_leases  # not before there are segments

        leases: list[int] = []
        try:
            leases = open_leases(segments)
            if len(leases) <= _MOST_LEASES:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", leases))]
                self._escort.sendmsg([b"e"], rights, socket.MSG_DONTWAIT)
                return True
        except (OSError, SegmentNotFoundError):
            pass  # too many descriptors, here or on their way; or the name is gone, which the receiver will be told
        finally:
            for lease in leases:
                os.close(lease)
        for segment in segments:
            keep_in_flight(segment)
        return False

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Send bytes as a message; see `multiprocessing.connection.Connection`."""
        is_whole = size is None and offset == 0 and type(buf) is memoryview and buf.format == "B" and buf.ndim == 1
        if is_whole and self._handle is not None and self._writable:  # a pickle: there is nothing to check
            self._send_bytes(buf)
        else:
            super().send_bytes(buf, offset, size)

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """The next message, of bytes; see `multiprocessing.connection.Connection`."""
        if maxlength is not None or self._handle is None or not self._readable:
            return super().recv_bytes(maxlength)
        message = self._message(None)
        return message if isinstance(message, bytes) else message.getvalue()  # type: ignore[union-attr]

    def _recv_bytes(self, maxsize: int | None = None) -> BytesIO | None:
        message = self._message(maxsize)
        return BytesIO(message) if isinstance(message, bytes) else message

    def _message(self, maxsize: int | None) -> bytes | BytesIO | None:
        """The next message, a long one as it is read; None for one that is longer than `maxsize`."""
        header = self._read(4)
        if header == _ESCORTED:
            self._receive_escort()
            header = self._read(4)
        (size,) = _LENGTH.unpack(header)
        if size == -1:
            (size,) = _LONG_LENGTH.unpack(self._read(8))
        if maxsize is not None and size > maxsize:
            return None
        if size > _SHORT_NBYTES:
            long: BytesIO = self._recv(size)  # type: ignore[attr-defined]
            return long
        return self._read(size)

    def _read(self, size: int) -> bytes:
        """So few bytes, which mostly are there in one piece. `EOFError` at the end, `OSError` in the midst of them."""
        data = os.read(self._handle, size)
        while len(data) < size:
            more = os.read(self._handle, size - len(data)) if data else b""
            if not more:
                raise OSError("got end of file during message") if data else EOFError
            data += more
        return data

    def _receive_escort(self) -> None:
        space = socket.CMSG_SPACE(_MOST_LEASES * 4)
        _, ancillary, _, _ = self._escort.recvmsg(1, space, socket.MSG_CMSG_CLOEXEC)
        escort = _Escort()
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                escort.leases.frombytes(data[: len(data) - len(data) % 4])
        _thread.escort = escort

    def _close(self) -> None:
        self._escort.close()
        super()._close()  # type: ignore[misc]


class _Escort:
    """Descriptors that came with a message, closed with this object."""

    __slots__ = ("leases",)

    def __init__(self) -> None:
        self.leases = array.array("i")

    def __del__(self) -> None:
        for lease in self.leases:
            os.close(lease)


class _Thread(threading.local):
    escort: _Escort | None = None  # of the message that this thread has read last


_thread = _Thread()


def leave_escort() -> None:
    """The message that this thread has read last is unpickled: its segments are attached now."""
    if _thread.escort is not None:
        _thread.escort = None


def Pipe(duplex: bool = True) -> tuple[EscortedConnection, EscortedConnection]:
    """The two ends of a pipe: of both directions, or the one that receives and the one that sends.

    Examples
    --------
    >>> receiver, sender = Pipe(duplex=False)
    >>> sender.send([1, 2])
    >>> receiver.recv()
    [1, 2]
    """
    escorts = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if duplex:
            ours, theirs = socket.socketpair()
            handles = ours.detach(), theirs.detach()
        else:
            handles = os.pipe()
    except BaseException:
        for escort in escorts:
            escort.close()
        raise
    first = EscortedConnection(handles[0], escorts[0], writable=duplex)
    return first, EscortedConnection(handles[1], escorts[1], readable=duplex)


def _reduce(end: EscortedConnection) -> Any:
    handles = reduction.DupFd(end.fileno()), reduction.DupFd(end._escort.fileno())
    return _rebuilt, (*handles, end.readable, end.writable)


def _rebuilt(handle: Any, escort: Any, readable: bool, writable: bool) -> EscortedConnection:
    return EscortedConnection(handle.detach(), socket.socket(fileno=escort.detach()), readable, writable)


reduction.register(EscortedConnection, _reduce)


def __getattr__(name: str) -> Any:
    try:
        return getattr(_standard, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
