"""Managers with little patience or room, and clients that speak to them byte by byte."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shmarray import multiprocessing as mp
from shmarray.multiprocessing.managers import ArrayManager, ArrayServer
from shmarray.multiprocessing.remote import Line

KEY = b"a key of thirty-two random bytes"


class HastyManager(ArrayManager):
    """Has less patience, so that a test need not wait; but enough for honest clients of a busy machine."""

    class _Server(ArrayServer):
        handshake_s = 2.0


class CrampedManager(ArrayManager):
    """Has room for few, and patience enough that only the want of room can drop anybody."""

    class _Server(ArrayServer):
        handshake_s = 600.0
        lobby_room = 8


@contextmanager
def started(kind: type[ArrayManager], address: Any) -> Iterator[ArrayManager]:
    manager = kind(address, KEY, ctx=mp.get_context("fork"))
    with manager:
        yield manager
        assert manager.array(3).sum() == 0, "others are served"
    manager.join()


def connected(address: Any) -> socket.socket:
    end = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
    end.settimeout(60)  # a watchdog
    end.connect(address)
    return end


def read_until_dropped(end: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    received = b""
    while True:
        try:
            part = end.recv(65536)
        except ConnectionError:
            return received
        if not part:
            return received
        received += part


def opened_line(manager: ArrayManager, name: str) -> Line:
    """A client's connection to one array."""
    line = Line(manager.address, KEY)
    line.ask("open", name, "r+")
    return line
