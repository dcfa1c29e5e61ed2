"""What can go wrong, as one hierarchy.

Every error of this package derives from :class:`ShmArrayError` and from the built-in exception a user
would catch without knowing the package (`FileNotFoundError`, `MemoryError`, ...). Plain bad arguments
are `ValueError` and `TypeError`.

Invariant: each error pickles, keeps its message, and carries its facts as attributes, so that what
happens in a worker process reads the same in the caller.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterable
from typing import Any

__all__ = [
    "ChunksUnknownError",
    "CorruptSegmentError",
    "DamagedFrameError",
    "KernelCompileError",
    "KernelError",
    "KernelIndexError",
    "KernelTimeoutError",
    "LockTimeoutError",
    "ManagerAddressError",
    "ManagerConnectionError",
    "ManagerNotFoundError",
    "OutOfSharedMemoryError",
    "SegmentAccessError",
    "SegmentExistsError",
    "SegmentNotFoundError",
    "ShmArrayError",
    "WorkerDiedError",
]


class ShmArrayError(Exception):
    """Root of all errors that this package defines.

    Keyword arguments become attributes of the instance (its *facts*).

    Examples
    --------
    >>> import pickle
    >>> error = SegmentNotFoundError("no array is called 'x'", name="x")
    >>> pickle.loads(pickle.dumps(error)).name
    'x'
    """

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        for fact, value in facts.items():
            setattr(self, fact, value)

    def __str__(self) -> str:
        # OSError's own __str__ prints errno and filename; KeyError's prints repr. The message is ours.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        # `__dict__` goes as state, so facts survive without each class spelling its constructor out.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(kind: type[ShmArrayError], args: tuple[Any, ...], facts: dict[str, Any]) -> ShmArrayError:
    error = kind(*args)
    error.__dict__.update(facts)
    return error


class SegmentNotFoundError(ShmArrayError, FileNotFoundError):
    """No segment of that name, or it is gone. Facts: `name`."""


class SegmentExistsError(ShmArrayError, FileExistsError):
    """The name is taken. Facts: `name`."""


class SegmentAccessError(ShmArrayError, PermissionError):
    """The file is not ours to map: another user's, wrong mode, not a regular file. Facts: `name`."""


class OutOfSharedMemoryError(ShmArrayError, MemoryError):
    """The pages could not be reserved. Facts: `nbytes` (asked for), `free_nbytes`, `limit` (what ran out)."""


class CorruptSegmentError(ShmArrayError, ValueError):
    """The descriptor page does not describe this file. Facts: `name`."""


class KernelCompileError(ShmArrayError, TypeError):
    """numba cannot compile the function.

    Facts: `kernel`, `filename`, `lineno`, `numba_message` (all that numba says; the `__cause__` has the gist).
    """


class KernelError(ShmArrayError, RuntimeError):
    """A kernel raised. Facts: `kernel`, `chunk` (flat index); the worker's exception is `__cause__`."""


class KernelIndexError(KernelError, IndexError):
    """A kernel raised an `IndexError`; see :class:`KernelError`."""


class KernelTimeoutError(ShmArrayError, TimeoutError):
    """The call's `timeout` passed.

    Facts: `kernel`, `timeout_s`, `chunks` (flat indices not done), `unknown` (those of them that were being changed in
    place: their content is unknown).
    """


class WorkerDiedError(ShmArrayError, RuntimeError):
    """A worker process died.

    Facts: `task`, `pid`, `signal` (number or None), `exitcode`, `out_of_memory` (the kernel has ended processes for
    want of memory meanwhile), `reason` (what is known beside the signal), `traceback` (where the worker was; "" where
    it could not say), and `chunk` where one chunk ended its worker again and again.
    """


class ChunksUnknownError(WorkerDiedError):
    """A worker died while it changed chunks in place. Facts: `chunks` (flat indices of unknown content)."""

    chunks: tuple[int, ...]

    def __init__(self, message: str = "", *, chunks: Iterable[int] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.chunks = tuple(chunks)


class LockTimeoutError(ShmArrayError, TimeoutError):
    """An array's lock was not to be had in time. Facts: `name`, `timeout_s`."""


class ManagerConnectionError(ShmArrayError, ConnectionError):
    """The connection to a manager ended, stood still, or could not be made. Facts: `address`."""


class ManagerNotFoundError(ManagerConnectionError, FileNotFoundError, ConnectionRefusedError):
    """Nobody serves at a manager's address. Facts: `address`."""


class DamagedFrameError(ManagerConnectionError):
    """Bytes of an array changed on their way to or from a manager; none of that frame were used."""


class ManagerAddressError(ShmArrayError, OSError):
    """A manager cannot serve at that address: somebody or something is there. Facts: `address`."""

    errno = _errno.EADDRINUSE
