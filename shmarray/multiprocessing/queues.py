"""`multiprocessing.queues`, with queues that keep the arrays they carry until these have been received.

They are the standard library's, on pipes that do so (:func:`shmarray.multiprocessing.connection.Pipe`). What a `Queue`
is given is pickled later, in a thread of its own, so it goes in as a *parcel*: that tells this thread when its pickling
begins.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import queues as _standard
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from shmarray.multiprocessing.connection import Pipe, leave_escort
from shmarray.multiprocessing.payloads import ATOMS
from shmarray.registry.packing import begin_packing, end_packing

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

if TYPE_CHECKING:
    _StandardQueue = _standard.Queue[Any]
    _StandardJoinableQueue = _standard.JoinableQueue[Any]
    _StandardSimpleQueue = _standard.SimpleQueue[Any]
else:  # not to be subscripted before Python 3.12
    _StandardQueue = _standard.Queue
    _StandardJoinableQueue = _standard.JoinableQueue
    _StandardSimpleQueue = _standard.SimpleQueue


class _Parcel:
    """Something on its way into a queue; what comes out is the thing itself."""

    __slots__ = ("content",)

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce__(self) -> Any:
        begin_packing()
        return _unpacked, (self.content,)


def _unpacked(content: Any) -> Any:
    return content


class _Escorted(_StandardQueue):
    """What our queues do differently."""

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        super().__init__(maxsize, ctx=ctx)
        for end in (self._reader, self._writer):  # type: ignore[has-type]
            end.close()
        self._reader, self._writer = Pipe(duplex=False)
        self._reset()

    def _reset(self, after_fork: bool = False) -> None:
        super()._reset(after_fork)  # type: ignore[misc]
        kind: Any = type(self)
        tell: Callable[[BaseException, Any], object] = kind._on_queue_feeder_error

        def tell_of_content(error: BaseException, parcel: Any) -> None:
            end_packing()
            tell(error, parcel.content if type(parcel) is _Parcel else parcel)

        self._on_queue_feeder_error = tell_of_content

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an object in; the arrays in it live until somebody has taken them, or nobody can any more."""
        super().put(obj if type(obj) in ATOMS else _Parcel(obj), block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next object out."""
        try:
            return super().get(block, timeout)
        finally:
            leave_escort()


class Queue(_Escorted):
    """A queue of any number of producers and consumers; see `multiprocessing.Queue`.

    Examples
    --------
    >>> from shmarray import multiprocessing as mp
    >>> queue = mp.Queue()
    >>> queue.put([1, 2])
    >>> queue.get()
    [1, 2]
    """


class JoinableQueue(_Escorted, _StandardJoinableQueue):
    """A queue that also hears when what came out of it is done; see `multiprocessing.JoinableQueue`."""


class SimpleQueue(_StandardSimpleQueue):
    """A pipe with a lock at either end; see `multiprocessing.SimpleQueue`."""

    def __init__(self, *, ctx: Any) -> None:
        super().__init__(ctx=ctx)
        self.close()
        self._reader, self._writer = Pipe(duplex=False)
        self._poll = self._reader.poll

    def put(self, obj: Any) -> None:
        """Put an object in; the arrays in it live until somebody has taken them, or nobody can any more."""
        begin_packing()
        try:
            data = ForkingPickler.dumps(obj)
            with self._wlock:  # type: ignore[attr-defined]
                self._writer.send_bytes(data)
        finally:
            end_packing()

    def get(self) -> Any:
        """Take the next object out."""
        try:
            return super().get()
        finally:
            leave_escort()


def __getattr__(name: str) -> Any:
    # `multiprocessing.queues` has more names.
    try:
        return getattr(_standard, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
