"""What does a pool say to its workers, and they to it?

A worker takes *batches*: packets of tasks, which it does in their order. What each task came to is a record in the
worker's *journal*, a page of shared memory, and travels to the pool when the batch is done or takes long. So a worker
that is killed takes no result with it: the pool reads the rest in the journal, which also says which task was at hand.

Journal, in bytes::

    0   BATCH    u64  number of the batch at hand
    8   STARTED  u64  how many of its tasks were begun
    16  LOGGED   u64  bytes of records
    64  records, one after the other: position u32, status u32, length u64, and a pickle of that length
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

__all__ = ["Batch", "Entry", "Journal", "Mode", "Report", "Status", "describe_call", "pack_record", "records"]

_RECORD = struct.Struct("<IIQ")
_BATCH, _STARTED, _LOGGED, _RECORDS = 0, 1, 2, 64
_NBYTES = 64 * 1024


class Mode(IntEnum):
    """How a task's function is to be called."""

    APPLY = 0  #: the payload is (function, arguments, keywords)
    ONE = 1  #: the payload is one argument
    MAP = 2  #: a tuple of arguments, each for one call
    STARMAP = 3  #: a tuple of tuples of arguments
    CALL = 4  #: a tuple of the arguments of one call


class Status(IntEnum):
    """What a task came to."""

    RETURNED = 0
    RAISED = 1
    UNREADABLE = 2  #: it could not be unpickled, so nothing was called


class Entry(NamedTuple):
    """One task of a batch."""

    key: int  #: of the function, among those that the worker was told of
    mode: int
    data: bytes
    nbytes: int  #: of the segment whose descriptor comes with the batch; 0: there is none


class Batch(NamedTuple):
    """What a pool sends: tasks, and the functions that they need."""

    number: int
    functions: dict[int, bytes]
    forget: tuple[int, ...]
    entries: list[Entry]


class Report(NamedTuple):
    """What a worker sends."""

    number: int  #: of the batch; 0: it is ready, or says why it cannot be
    records: bytes
    given_back: tuple[int, ...] = ()  #: positions of tasks that it has not begun and will not
    elapsed_ns: int = 0  #: for how long it worked on the batch; 0 while it does
    nbytes: int = 0  #: of the segment that belongs to the only record


def records(data: bytes | memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Take a report's records apart: position, status and pickle of each.

    Examples
    --------
    >>> [(position, bytes(data)) for position, status, data in records(pack_record(3, Status.RETURNED, b"abc"))]
    [(3, b'abc')]
    """
    view = memoryview(data)
    at, end = 0, len(view)
    while at < end:
        position, status, length = _RECORD.unpack_from(view, at)
        at += _RECORD.size
        yield position, status, view[at : at + length]
        at += length


def pack_record(position: int, status: int, data: bytes) -> bytes:
    """One record."""
    return _RECORD.pack(position, status, len(data)) + data


class Journal:
    """A worker's page, mapped by it and by the pool.

    Parameters
    ----------
    descriptor : int
        Of its memory; stays the caller's.
    """

    __slots__ = ("_logged", "_pages", "_sent", "_words")

    def __init__(self, descriptor: int) -> None:
        self._pages = mmap.mmap(descriptor, _NBYTES)
        self._words = memoryview(self._pages)[:_RECORDS].cast("Q")
        self._logged = self._sent = _RECORDS

    @staticmethod
    def create_memory() -> int:
        """A descriptor of memory for one; the caller closes it."""
        descriptor = os.memfd_create("shmarray-journal", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(descriptor, 0, _NBYTES)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    # ------------------------------------------------------------------ in the worker

    def open_batch(self, number: int) -> None:
        """Forget the last batch, whose records must have been sent."""
        words = self._words
        words[_LOGGED] = words[_STARTED] = 0
        words[_BATCH] = number
        self._logged = self._sent = _RECORDS

    def begin(self, position: int) -> None:
        """The task at this position is at hand."""
        self._words[_STARTED] = position + 1

    def log(self, position: int, status: int, data: bytes) -> bool:
        """Write down what a task came to; whether there was room for it."""
        at = self._logged
        end = at + _RECORD.size + len(data)
        if end > _NBYTES:
            return False
        _RECORD.pack_into(self._pages, at, position, status, len(data))
        self._pages[at + _RECORD.size : end] = data
        self._logged = end
        self._words[_LOGGED] = end - _RECORDS
        return True

    def unsent(self) -> bytes:
        """The records since the last call."""
        start, self._sent = self._sent, self._logged
        return self._pages[start : self._sent]

    # ------------------------------------------------------------------ in the pool, once the worker is dead

    def read(self) -> tuple[int, int, bytes]:
        """The batch that was at hand, how many of its tasks were begun, and its records."""
        number, started, logged = self._words[_BATCH], self._words[_STARTED], self._words[_LOGGED]
        return number, started, self._pages[_RECORDS : min(_RECORDS + logged, _NBYTES)]

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._pages.close()


def describe_call(function: Any) -> str:
    """A function's name, for people."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else str(name)
