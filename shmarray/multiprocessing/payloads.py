"""How do calls and results get into another process?

As pickles, made as `multiprocessing` makes them (connections, sockets, locks and whatever else is registered with
`ForkingPickler` travel), with two differences. Large plain arrays do not go through a pipe: their bytes are copied
into one nameless segment of shared memory a message, whose descriptor goes along, and the receiver maps them. And what
the standard pickle refuses, lambdas and closures say, is tried again by value.

Invariant: what is unpickled is the receiver's own: writable, and never reused by the sender.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import threading
from collections import ChainMap
from collections.abc import Callable
from functools import cache
from multiprocessing.reduction import ForkingPickler
from typing import Any, ClassVar, NamedTuple

import numpy as np

from shmarray._by_value import reducers
from shmarray.errors import OutOfSharedMemoryError
from shmarray.packing import is_plain
from shmarray.segment import map_descriptor, unmap

__all__ = ["LARGE_NBYTES", "Payload", "dumps", "loads"]

#: From this size on an array goes through shared memory; below, copying it through a socket is as fast.
LARGE_NBYTES = 64 * 1024
_ALIGNMENT = 64


class Payload(NamedTuple):
    """A pickle, and where its large arrays are."""

    data: bytes
    segment: Any = None  #: the segment that holds them; None when there are none
    named: tuple[Any, ...] = ()  #: segments that the pickle names, to be kept until the receiver has attached

    @property
    def nbytes(self) -> int:
        """Bytes of the segment, for the receiver."""
        return 0 if self.segment is None else int(self.segment.nbytes)


class _Context(threading.local):
    """What the arrays of the pickle at hand have to do with."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray[Any, Any]] = []
        self.nbytes = 0
        self.outward = True  #: whether large arrays may leave the pickle
        self.pages: np.ndarray[Any, Any] | None = None


_context = _Context()


def dumps(value: Any, *, by_value: bool = False) -> Payload:
    """Pickle something for another process.

    Parameters
    ----------
    value : object
    by_value : bool
        Send functions and classes of the main program, lambdas and closures by what they are (with cloudpickle).
    """
    if is_plain(value):
        return Payload(pickle.dumps(value, 5))
    before = _context.__dict__.copy()
    try:
        _context.arrays, _context.nbytes, _context.outward = [], 0, True
        data = _pickled(value, by_value)
        if not _context.arrays:
            return Payload(data)
        try:
            return Payload(data, _filled_segment(_context.arrays, _context.nbytes))
        except (OutOfSharedMemoryError, OSError):  # then within the pickle, as the original does
            _context.arrays, _context.nbytes, _context.outward = [], 0, False
            return Payload(_pickled(value, by_value))
    finally:
        _context.__dict__.update(before)


def loads(data: bytes | memoryview, nbytes: int = 0, descriptor: int = -1) -> Any:
    """Undo :func:`dumps`: `nbytes` and a descriptor are those of its segment."""
    if not nbytes:
        return pickle.loads(data)
    before = _context.pages
    _context.pages = np.asarray(_Pages(descriptor, nbytes))
    try:
        return pickle.loads(data)
    finally:
        _context.pages = before


class _Pages:
    """A mapped segment, for as long as an array lies on it."""

    __slots__ = ("__array_interface__", "_address", "_nbytes")

    def __init__(self, descriptor: int, nbytes: int) -> None:
        self._address = 0
        self._nbytes = nbytes
        self._address = map_descriptor(descriptor, nbytes, writable=True)
        self.__array_interface__ = {
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (self._address, False),
            "version": 3,
        }

    def __del__(self, _unmap: Callable[[int, int], None] = unmap) -> None:
        if self._address:
            _unmap(self._address, self._nbytes)


# --- within the pickle ---------------------------------------------------------------------------------------


def _pickled(value: Any, by_value: bool) -> bytes:
    file = io.BytesIO()
    if by_value:
        pickler: Any = _by_value_pickler()(file, protocol=5)
    else:
        pickler = pickle.Pickler(file, 5)
        pickler.dispatch_table = _table
    pickler.dump(value)
    return file.getvalue()


@cache
def _by_value_pickler() -> Any:
    import cloudpickle

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
        # It is read from the class, when an instance is made.
        dispatch_table: ClassVar[Any] = ChainMap(_ours, reducers(), cloudpickle.Pickler.dispatch_table, _registered)

    return ByValue


def _reduce_array(array: np.ndarray[Any, Any]) -> Any:
    if array.nbytes < LARGE_NBYTES or array.dtype.hasobject or not _context.outward:
        return array.__reduce__()
    offset = _context.nbytes
    _context.nbytes = -(-(offset + array.nbytes) // _ALIGNMENT) * _ALIGNMENT
    _context.arrays.append(array)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return _array_at, (offset, array.shape, array.dtype, order)


def _array_at(offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], order: Any) -> np.ndarray[Any, Any]:
    assert _context.pages is not None, "an array of a pool's task is unpickled elsewhere"
    return np.ndarray(shape, dtype, _context.pages, offset, order=order)


def _filled_segment(arrays: list[np.ndarray[Any, Any]], nbytes: int) -> Any:
    from shmarray import registry  # a worker that is spawned loads it with its first large result
    from shmarray.array.transfer import copy_parallel

    segment = registry.create(nbytes, "u1")
    # The receiver keeps the pages for as long as it likes, so they are never used again here.
    registry.lent(segment, may_be_kept=True)
    pages = np.asarray(segment)
    offset = 0
    for array in arrays:
        order: Any = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        target: np.ndarray[Any, Any] = np.ndarray(array.shape, array.dtype, pages, offset, order=order)
        copy_parallel(target, array)
        offset = -(-(offset + array.nbytes) // _ALIGNMENT) * _ALIGNMENT
    return segment


_ours: dict[type, Any] = {np.ndarray: _reduce_array}
_registered: Any = ForkingPickler._extra_reducers  # type: ignore[attr-defined]  # what its own instances look into
_table: Any = ChainMap(_ours, _registered, copyreg.dispatch_table)
