"""Who may change an array now?

One mutex a segment, in its descriptor page: a robust, process-shared, recursive pthread mutex. Files cannot
do it: a lock on a file is shared with forked children and stays taken while one of them lives, and threads of
one process do not exclude each other through it. The kernel marks a robust mutex when the thread that holds
it ends, however it ends, and the next waiter gets it at once.

Invariant: a segment whose mutex is held stays mapped. The C library links held robust mutexes into a list
that runs through the mapped pages, and the kernel walks it when the thread ends; so a held lock keeps a
reference that not even the end of the interpreter takes away.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from shmarray._absent import Absent
from shmarray.array.arguments import check_timeout
from shmarray.errors import LockTimeoutError, SegmentAccessError
from shmarray.segment import segment_of

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["ArrayLock", "SegmentMutex", "lock_of", "quick_call"]

#: Longest stay in the C library: signal handlers (Ctrl-C) run between two such waits.
_BITE_S = 0.1

_CLOCK_MONOTONIC = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class ArrayLock:
    """An array's lock; see :meth:`SharedArray.lock`.

    Attributes
    ----------
    recovered : bool
        After entering: whether the lock's last holder died with it, so that what it guarded may be half
        changed.
    """

    __slots__ = ("_mutex", "_timeout_s", "recovered")

    acquire = Absent("take it by `with array.lock():`")
    release = Absent("it is released at the end of `with array.lock():`")

    def __init__(self, mutex: SegmentMutex | _PrivateMutex, timeout_s: float | None) -> None:
        self._mutex = mutex
        self._timeout_s = timeout_s
        self.recovered = False

    def __repr__(self) -> str:
        wait = "for ever" if self._timeout_s is None else f"{self._timeout_s:g} s"
        return f"<lock of {self._mutex.called}, {self._mutex.state()}, waits {wait}>"

    def __enter__(self) -> ArrayLock:
        self.recovered = self._mutex.acquire(self._timeout_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mutex.release()


def lock_of(array: np.ndarray[Any, Any], timeout_s: float | None) -> ArrayLock:
    """The lock of the array's segment, or of its private memory."""
    check_timeout(timeout_s)
    segment = segment_of(array)
    if segment is None:
        return ArrayLock(_PrivateMutex.of(array), timeout_s)
    if segment.mode != "r+":
        raise SegmentAccessError(
            f"{_called(segment)} is mapped with mode {segment.mode!r}, and its lock can only be taken through"
            " a writable mapping; open the array with mode='r+'",
            name=segment.user_name,
        )
    if not segment.lock_address:
        raise SegmentAccessError(
            f"{_called(segment)} was made by another program and has no lock; agree with it on another one",
            name=segment.user_name,
        )
    return ArrayLock(SegmentMutex(segment), timeout_s)


def _called(segment: Segment) -> str:
    return "this unnamed array" if segment.user_name is None else f"array {segment.user_name!r}"


class SegmentMutex:
    """The pthread mutex of one segment."""

    __slots__ = ("_pids", "_segment")

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._pids: list[int] = []

    @property
    def called(self) -> str:
        """What is locked, for people."""
        return _called(self._segment)

    def state(self) -> str:
        """Who holds it, for people; it may be another one a moment later."""
        owner = _Words.from_address(self._segment.lock_address)[2]
        if owner == threading.get_native_id():
            return "held by this thread"
        return f"held by thread {owner & 0xFFFFFFFF}" if owner else "free"

    def acquire(self, timeout_s: float | None) -> bool:
        """Take it; whether its last holder died holding it."""
        address = self._segment.lock_address
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        before = _held_depth(address)
        recorded = False
        try:
            code = _lock_within(address, 0.0)  # nearly always it is free, and then no clock is read
            while code == errno.ETIMEDOUT:
                if deadline is not None and time.monotonic() >= deadline:
                    raise LockTimeoutError(
                        f"the lock of {_called(self._segment)} was not free within {timeout_s} s; another"
                        " process or thread holds it. Wait longer, or have it hold the lock for shorter",
                        name=self._segment.user_name,
                        timeout_s=timeout_s,
                    )
                code = _lock_within(address, _bite(deadline))
            if code not in (0, errno.EOWNERDEAD):
                raise OSError(code, f"the lock of {_called(self._segment)} cannot be taken: {os.strerror(code)}")
            if code == errno.EOWNERDEAD:
                self.recover()
            _hold(self._segment)
            recorded = True
            self._pids.append(os.getpid())
        except BaseException as error:
            # Ctrl-C may strike between the C library's success and the lines above.
            if not isinstance(error, (LockTimeoutError, OSError)) and _held_depth(address) > before:
                if recorded:
                    _let_go(self._segment)
                quick_call("pthread_mutex_unlock")(address)
            raise
        return code == errno.EOWNERDEAD

    def recover(self) -> None:
        """This thread has it from a holder that died: it is in order again."""
        _library().pthread_mutex_consistent(ctypes.c_void_p(self._segment.lock_address))
        _forget_dead_holds(self._segment)

    def release(self) -> None:
        if self._pids and self._pids[-1] != os.getpid():
            self._pids.pop()
            return  # entered before a fork: the parent holds it, this child does not
        holds = _holds.get(self._segment.lock_address, 0)
        _let_go(self._segment)  # while the mutex is still held, which guards the count; `self` keeps the pages
        if quick_call("pthread_mutex_unlock")(self._segment.lock_address):
            if holds:
                _hold(self._segment)
            raise RuntimeError(f"the lock of {_called(self._segment)} is released by a thread that does not hold it")
        self._pids.pop()  # only now: a refused release leaves the owner's to it


#: address of a mutex -> how often this process's threads hold it. Each hold is a reference to the segment
#: that only `_let_go` drops, not the interpreter's end: the C library's list of held robust mutexes runs
#: through its pages. Changed by the holder of the mutex alone.
_holds: dict[int, int] = {}


def _hold(segment: Segment) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(segment))
    _holds[segment.lock_address] = _holds.get(segment.lock_address, 0) + 1


def _let_go(segment: Segment) -> None:
    left = _holds.pop(segment.lock_address, 0) - 1
    if left > 0:
        _holds[segment.lock_address] = left
    if left >= 0:
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(segment))


def _forget_dead_holds(segment: Segment) -> None:
    """The holder has died; if it was a thread of this process, its references have nobody to drop them."""
    for _ in range(_holds.get(segment.lock_address, 0)):
        _let_go(segment)


class _PrivateMutex:
    """A lock for private memory: no other process sees it, so a thread lock says all."""

    __slots__ = ("__weakref__", "_lock")

    called = "this private array"

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def state(self) -> str:
        """Who holds it, for people: as the standard library's lock shows it."""
        shown = repr(self._lock)
        if not shown.startswith("<locked"):
            return "free"
        return "held by this thread" if f"owner={threading.get_ident()} " in shown else "held by another thread"

    @classmethod
    def of(cls, array: np.ndarray[Any, Any]) -> _PrivateMutex:
        """The lock of the memory's owner: all views have it in common."""
        owner: Any = array
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        key = id(owner)
        with _private_guard:
            known = _private.get(key)
            if known is None or known[0]() is not owner:
                try:
                    reference: Any = weakref.ref(owner)
                except (
                    TypeError
                ):  # memory of an object without weak references; it stays known, which is rare and small
                    reference = _Strong(owner)
                known = _private[key] = (reference, cls())
                for stale in [other for other, (alive, _) in _private.items() if alive() is None]:
                    del _private[stale]
            return known[1]

    def acquire(self, timeout_s: float | None) -> bool:
        if not self._lock.acquire(timeout=-1 if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)):
            raise LockTimeoutError(
                f"the lock of this private array was not free within {timeout_s} s; another thread holds it",
                name=None,
                timeout_s=timeout_s,
            )
        return False

    def release(self) -> None:
        self._lock.release()


class _Strong:
    __slots__ = ("_owner",)

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    def __call__(self) -> Any:
        return self._owner


#: id of the memory's owner -> (reference to it, its lock); the guard covers both look-up and clean-up.
_private: dict[int, tuple[Any, _PrivateMutex]] = {}
_private_guard = threading.Lock()


def _bite(deadline: float | None) -> float:
    return _BITE_S if deadline is None else max(0.0, min(_BITE_S, deadline - time.monotonic()))


def _library() -> ctypes.CDLL:
    global _loaded
    if _loaded is None:
        library = ctypes.CDLL(None, use_errno=False)
        if not hasattr(library, "pthread_mutex_timedlock"):  # glibc before 2.34 keeps them apart
            library = ctypes.CDLL("libpthread.so.0")
        _loaded = library
    return _loaded


_loaded: ctypes.CDLL | None = None


def _lock_within(address: int, wait_s: float) -> int:
    """One try of at most `wait_s`; an error number, 0 for success."""
    if wait_s <= 0:
        code = int(quick_call("pthread_mutex_trylock")(address))
        return errno.ETIMEDOUT if code == errno.EBUSY else code
    library = _library()
    if hasattr(library, "pthread_mutex_clocklock"):  # glibc 2.30 and later: no clock change disturbs it
        until = _timespec(time.clock_gettime(time.CLOCK_MONOTONIC) + wait_s)
        return int(library.pthread_mutex_clocklock(ctypes.c_void_p(address), _CLOCK_MONOTONIC, ctypes.byref(until)))
    until = _timespec(time.time() + wait_s)
    return int(library.pthread_mutex_timedlock(ctypes.c_void_p(address), ctypes.byref(until)))


def _timespec(moment_s: float) -> _Timespec:
    seconds = int(moment_s)
    return _Timespec(seconds, int((moment_s - seconds) * 1e9))


def quick_call(name: str) -> Any:
    """`pthread_mutex_trylock` or `_unlock` on an address, called without letting go of the interpreter's lock: they
    take no time. Returns an error number."""
    function = _quick.get(name)
    if function is None:
        function = getattr(ctypes.PyDLL(_library()._name), name)
        function.argtypes = (ctypes.c_void_p,)
        _quick[name] = function
    return function


_quick: dict[str, Any] = {}
_Words = ctypes.c_int * 3


def _held_depth(address: int) -> int:
    """How often this thread holds the mutex: `__count` if `__owner` is this thread (glibc)."""
    _, count, owner = _Words.from_address(address)
    return count if owner == threading.get_native_id() else 0
