"""How long may the other side of a connection be silent, and who is it?

`multiprocessing.connection.Connection` reads and writes a bare descriptor and knows no time. The kernel does: options
of the socket end a single read or write (:func:`patience`), keepalive finds a host that is gone, and credentials
tell the user at the other end of a Unix socket.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError, connection
from multiprocessing.connection import Connection
from typing import Any

from shmarray.errors import ManagerConnectionError, ManagerNotFoundError
from shmarray.multiprocessing.addresses import Address, show_address

__all__ = ["dial", "hang_up", "is_same_user", "patience", "prepare", "set_patience"]

_TIMEVAL = struct.Struct("@ll")
_CREDENTIALS = struct.Struct("@iII")


@contextmanager
def _socket_of(end: Connection[Any, Any]) -> Iterator[socket.socket]:
    with socket.socket(fileno=os.dup(end.fileno())) as duplicate:
        yield duplicate


def _set_patience(end: socket.socket, seconds: float) -> None:
    whole = int(seconds)
    value = _TIMEVAL.pack(whole, int((seconds - whole) * 1e6))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def set_patience(end: Connection[Any, Any], seconds: float) -> None:
    """From here on, a read or write that gets nowhere for so long raises `BlockingIOError`."""
    with _socket_of(end) as duplicate:
        _set_patience(duplicate, seconds)


@contextmanager
def patience(end: Connection[Any, Any], seconds: float) -> Iterator[None]:
    """Inside the block, a read or write that gets nowhere for so long raises `BlockingIOError`."""
    with _socket_of(end) as duplicate:
        _set_patience(duplicate, seconds)
        try:
            yield
        finally:
            _set_patience(duplicate, 0)


def prepare(end: Connection[Any, Any]) -> None:
    """Small messages go at once, and a host that is gone is noticed within some two minutes."""
    with _socket_of(end) as duplicate:
        if duplicate.family == socket.AF_UNIX:
            return
        duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
            if hasattr(socket, option):
                duplicate.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def is_same_user(end: Connection[Any, Any]) -> bool:
    """Whether this user is at the other end of a Unix socket. Over the network nobody can tell: then it says yes."""
    with _socket_of(end) as duplicate:
        if duplicate.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
            return True
        raw = duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid == os.geteuid()


def hang_up(end: Connection[Any, Any]) -> None:
    """End a connection that another thread may be reading: that thread sees its end, and closes it."""
    with suppress(OSError), _socket_of(end) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def dial(address: Address, authkey: bytes, *, timeout_s: float) -> Connection[Any, Any]:
    """Connect to a manager and go through the standard library's handshake, each step within `timeout_s`.

    Raises
    ------
    ManagerNotFoundError
        Nobody listens there.
    ManagerConnectionError
        Something listens there and does not answer in time, or the network says no.
    multiprocessing.AuthenticationError
        The keys differ.
    """
    family = connection.address_type(address)  # type: ignore[attr-defined]  # the stub lacks it
    with socket.socket(getattr(socket, family)) as made:
        made.settimeout(timeout_s)
        try:
            made.connect(address)
        except TimeoutError as error:
            raise _silent(address, timeout_s) from error
        except OSError as error:
            raise _unreachable(address, error) from error
        made.setblocking(True)
        end: Connection[Any, Any] = Connection(made.detach())
    try:
        prepare(end)
        with patience(end, timeout_s):
            connection.answer_challenge(end, authkey)
            connection.deliver_challenge(end, authkey)
    except AuthenticationError as error:
        end.close()
        raise AuthenticationError(f"the manager at {show_address(address)} has another authkey ({error})") from error
    except (AssertionError, BlockingIOError, EOFError, ConnectionError) as error:
        end.close()
        if isinstance(error, BlockingIOError):
            raise _silent(address, timeout_s) from error
        raise ManagerConnectionError(
            f"{show_address(address)} ended the connection before the handshake was done, or is no manager: its server "
            "is overloaded, refuses this user, or is another program",
            address=address,
        ) from error
    except BaseException:
        end.close()
        raise
    return end


def _unreachable(address: Address, error: OSError) -> ManagerConnectionError:
    kind = ManagerNotFoundError if error.errno in (errno.ENOENT, errno.ECONNREFUSED) else ManagerConnectionError
    named = kind(
        f"no manager answers at {show_address(address)} ({error.strerror or error}): it has ended, or was never "
        "started there; check the address",
        address=address,
    )
    named.errno = error.errno  # programs that wait for a server look at it
    return named


def _silent(address: Address, timeout_s: float) -> ManagerConnectionError:
    return ManagerConnectionError(
        f"{show_address(address)} did not answer for {timeout_s:g} s; what listens there is stopped, overloaded, or no "
        "manager",
        address=address,
    )
