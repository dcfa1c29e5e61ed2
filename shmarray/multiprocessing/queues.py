"""`multiprocessing.queues`, with queues that keep the arrays they carry until these have been received.

They are the standard library's, on pipes that do so (:func:`shmarray.multiprocessing.connection.Pipe`). What a `Queue`
is given is pickled later, in a thread of its own, which begins to pack as it takes each thing from the queue's buffer.
"""

from __future__ import annotations

import pickle
from collections import deque
from multiprocessing import queues as _standard
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from shmarray.multiprocessing.connection import Pipe, leave_escort
from shmarray.packing import begin_packing, end_packing, is_plain

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

if TYPE_CHECKING:
    _StandardQueue = _standard.Queue[Any]
    _StandardJoinableQueue = _standard.JoinableQueue[Any]
    _StandardSimpleQueue = _standard.SimpleQueue[Any]
else:  # not to be subscripted before Python 3.12
    _StandardQueue = _standard.Queue
    _StandardJoinableQueue = _standard.JoinableQueue
    _StandardSimpleQueue = _standard.SimpleQueue


_popleft = deque.popleft  # found without looking through classes: every thing that is sent goes this way


class _Outgoing(deque[Any]):
    """What a queue's thread is to send: as it takes each thing to pickle it, that begins to be packed."""

    def popleft(self) -> Any:
        begin_packing()
        return _popleft(self)


class Queue(_StandardQueue):
    """A queue of any number of producers and consumers; see `multiprocessing.Queue`.

    Arrays that were put in live until somebody has taken them, or nobody can any more.

    Examples
    --------
    >>> from shmarray import multiprocessing as mp
    >>> queue = mp.Queue()
    >>> queue.put([1, 2])
    >>> queue.get()
    [1, 2]
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        super().__init__(maxsize, ctx=ctx)
        for end in (self._reader, self._writer):  # type: ignore[has-type]
            end.close()
        self._reader, self._writer = Pipe(duplex=False)
        self._reset()

    def _reset(self, after_fork: bool = False) -> None:
        super()._reset(after_fork)  # type: ignore[misc]
        self._buffer = _Outgoing()

    @staticmethod
    def _on_queue_feeder_error(e: BaseException, obj: Any) -> None:
        end_packing()
        standard: Any = _standard.Queue
        standard._on_queue_feeder_error(e, obj)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next object out."""
        try:
            return super().get(block, timeout)
        finally:
            leave_escort()


class JoinableQueue(Queue, _StandardJoinableQueue):
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
        if is_plain(obj):
            data: Any = pickle.dumps(obj)
            with self._wlock:  # type: ignore[attr-defined]
                self._writer.send_bytes(data)
            return
        begin_packing()
        try:
            data = ForkingPickler.dumps(obj)
            with self._wlock:  # type: ignore[attr-defined]
                self._writer.send_bytes(data)
        finally:
            end_packing()

    def get(self) -> Any:
        """Take the next object out."""
        with self._rlock:  # type: ignore[attr-defined]
            data = self._reader.recv_bytes()
        try:
            return pickle.loads(data)
        finally:
            leave_escort()


def __getattr__(name: str) -> Any:
    # `multiprocessing.queues` has more names.
    try:
        return getattr(_standard, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
