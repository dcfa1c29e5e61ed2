"""The lock of a Value or an Array: the robust mutex of its segment, with the face of `multiprocessing.RLock`.

Invariant: it is the same lock in every process that has the object, however that came there, and the same as
`shmarray.asarray(object).lock()`; when its holder dies, whoever waits gets it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from shmarray import registry
from shmarray.array.locks import SegmentMutex, quick_call
from shmarray.errors import LockTimeoutError

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["SegmentLock"]


_TAKEN = (0, errno.EOWNERDEAD)
_try_lock = quick_call("pthread_mutex_trylock")
_unlock = quick_call("pthread_mutex_unlock")


class SegmentLock:
    """A recursive lock between processes and threads.

    Attributes
    ----------
    recovered : bool
        Whether the last holder before this one died with it, so that what it guards may be half changed.
    """

    __slots__ = ("_addresses", "_mutex", "_segment", "recovered")

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._addresses = (segment.lock_address,)
        self._mutex = SegmentMutex(segment)
        self.recovered = False

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take it; whether that worked. It always does with `block` and no `timeout` (in seconds)."""
        try:
            self.recovered = self._mutex.acquire(timeout if block else 0.0)
        except LockTimeoutError:
            return False
        return True

    def release(self) -> None:
        """Give it back; `AssertionError` (as the original) when another thread holds it or nobody."""
        try:
            self._mutex.release()
        except RuntimeError as error:
            raise AssertionError(f"attempt to release recursive lock not owned by thread: {error}") from None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mutex.release()

    def around(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that takes next to no time with the lock held: cheaper than a `with` block."""
        codes: list[int] = []
        try:
            # In one step of the interpreter, so that Ctrl-C cannot come between the success and the note of it.
            codes.extend(map(_try_lock, self._addresses))
            if codes[0] == errno.EOWNERDEAD:
                self.recovered = True
                self._mutex.recover()
            if codes[0] in _TAKEN:
                return function(*arguments)
        finally:
            if codes and codes[0] in _TAKEN:
                _unlock(self._addresses[0])
        with self:
            return function(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (registry.export(self._segment),)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._segment!r}>"


def _attached(reference: Any) -> SegmentLock:
    return SegmentLock(registry.attach_reference(reference))
