"""Which arrays does a manager's server hold, and for whom?

Two kinds: those made through the manager under a name, held until `unlink` or the server's end; and those *lent*, held
for the connections that use them (each :class:`~shmarray.multiprocessing.remote.RemoteArray` has one), named or not.

Invariant: a lent array is held exactly as long as a connection that asked for it: the end of a client, however it
comes, is the end of its loans.
"""

from __future__ import annotations

import os
import threading
from typing import Any, NamedTuple

import numpy as np

from shmarray import registry
from shmarray.array.creation import create_filled
from shmarray.array.creation import open as open_array
from shmarray.array.shared import SharedArray
from shmarray.errors import SegmentNotFoundError

__all__ = ["Catalogue", "Offer", "pid_namespace"]


class Offer(NamedTuple):
    """An array as a server offers it to a client, which finds out by itself whether it can map it.

    Attributes
    ----------
    ident : str
        By which this server knows the loan.
    instance : str
        By which this server differs from all others, also from one at the same address before or after it.
    name : str or None
    shape : tuple of int
    dtype : numpy.dtype
    mode : {"r+", "r"}
    reference : SegmentReference
        The array's segment.
    probe : SegmentReference
        Another segment, made for this offer alone, that holds...
    nonce : bytes
        ...these bytes: who reads them there has the server's memory before him, and not a namesake's or a copy's.
    pid_namespace : tuple of int or None
        Threads of different ones may have the same number, by which an array's lock knows its holder.
    """

    ident: str
    instance: str
    name: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    mode: str
    reference: registry.SegmentReference
    probe: registry.SegmentReference
    nonce: bytes
    pid_namespace: tuple[int, int] | None


def pid_namespace() -> tuple[int, int] | None:
    """What tells this process's pid namespace from others of this machine; None where /proc does not say."""
    try:
        status = os.stat("/proc/self/ns/pid")
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Loan:
    """An array in use by one or more connections."""

    __slots__ = ("array", "count")

    def __init__(self, array: SharedArray) -> None:
        self.array = array
        self.count = 1


class Catalogue:
    """The arrays of one server. Every method may be called by any thread."""

    def __init__(self) -> None:
        self.instance = os.urandom(16).hex()
        self._lock = threading.Lock()  # guards the two dictionaries, for moments
        self._named: dict[str, SharedArray] = {}
        self._loans: dict[str, Loan] = {}

    def create(self, shape: Any, dtype: Any, *, name: str | None, **keywords: Any) -> tuple[str, SharedArray]:
        """A new array of zeros, lent to the caller; the catalogue holds it as well if it has a name."""
        # Filled by one thread: a server starts no workers for it.
        array = create_filled(
            shape,
            dtype,
            name=name,
            fill=lambda target: target.reshape(-1).view(np.uint8).fill(0),
            fresh_is_filled=True,
            **keywords,
        )
        if name is not None:
            with self._lock:
                self._named[name] = array
        return self._lend(array), array

    def open(self, name: str) -> tuple[str, SharedArray]:
        """An array of the server's namespace, whoever made it, lent to the caller."""
        array = open_array(name)
        return self._lend(array), array

    def join(self, ident: str) -> SharedArray:
        """A loan that another connection has, for this one as well."""
        with self._lock:
            loan = self._loans.get(ident)
            if loan is None:
                raise SegmentNotFoundError(
                    "the manager does not hold this array any more: every RemoteArray of it has gone, or the manager "
                    "was started anew; open it by its name, if it has one and was made with keep=True",
                    name=ident,
                )
            loan.count += 1
            return loan.array

    def give_back(self, ident: str) -> None:
        """The caller's connection does not use a loan any more."""
        with self._lock:
            loan = self._loans[ident]
            loan.count -= 1
            if not loan.count:
                del self._loans[ident]

    def arrays(self) -> dict[str, registry.SegmentInfo]:
        """What :meth:`open` can open."""
        return {info.name: info for info in registry.list() if info.name is not None}

    def unlink(self, name: str) -> None:
        """Remove a name, and let go of the array if it was made here."""
        with self._lock:
            held = self._named.pop(name, None)
        try:
            registry.unlink(name)
        except SegmentNotFoundError:
            if held is None:
                raise

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._named.clear()
            self._loans.clear()

    def _lend(self, array: SharedArray) -> str:
        ident = os.urandom(8).hex()
        with self._lock:
            self._loans[ident] = Loan(array)
        return ident
