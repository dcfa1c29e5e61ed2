"""ctypes objects whose bytes lie in registered segments.

Invariant: an object placed here is of a subclass of the ctypes type that was asked for, which differs in how it is
pickled and seen by NumPy, nothing else; the type itself is left alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from shmarray import registry
from shmarray.array import SharedArray
from shmarray.array.results import over_segment
from shmarray.errors import SegmentExistsError, SegmentNotFoundError
from shmarray.segment.dtypes import check_dtype

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["InSegment", "copy", "ctypes_type", "place", "plain_type", "typecode_to_type"]

typecode_to_type: dict[str, Any] = {
    "c": ctypes.c_char,
    "u": ctypes.c_wchar,
    "b": ctypes.c_byte,
    "B": ctypes.c_ubyte,
    "h": ctypes.c_short,
    "H": ctypes.c_ushort,
    "i": ctypes.c_int,
    "I": ctypes.c_uint,
    "l": ctypes.c_long,
    "L": ctypes.c_ulong,
    "q": ctypes.c_longlong,
    "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}


def copy(obj: Any) -> Any:
    """A copy of a ctypes object, in shared memory.

    Examples
    --------
    >>> copy(ctypes.c_int(3)).value
    3
    """
    kind = plain_type(type(obj))
    made = place(kind, lambda made: None, None, False, "raise")
    ctypes.memmove(ctypes.addressof(made), ctypes.addressof(obj), ctypes.sizeof(kind))
    return made


class InSegment:
    """What the subclasses of ctypes types have in common."""

    _segment: Segment

    def __shmarray__(self) -> SharedArray:
        kind = plain_type(type(self))
        return _view(self._segment, kind)

    def __reduce__(self) -> Any:
        return _attached, (_described(plain_type(type(self))), registry.export(self._segment))

    def __copy__(self) -> Any:
        return copy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy(self)


_in_segments: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def _in_segment(kind: Any) -> Any:
    """The subclass of a ctypes type for objects in segments."""
    found = _in_segments.get(kind)
    if found is None:
        found = type(kind.__name__, (InSegment, kind), {"__module__": kind.__module__})
        _in_segments[kind] = found
    return found


def plain_type(kind: Any) -> Any:
    """The ctypes type of which this is such a subclass, or itself."""
    return kind.__mro__[2] if issubclass(kind, InSegment) else kind


def ctypes_type(typecode_or_type: Any) -> Any:
    kind = typecode_to_type.get(typecode_or_type) if isinstance(typecode_or_type, str) else plain_type(typecode_or_type)
    if kind is None:
        raise ValueError(f"typecode must be one of {' '.join(typecode_to_type)}; got {typecode_or_type!r}")
    return kind


def place(kind: Any, fill: Callable[[Any], object], name: str | None, keep: bool, if_exists: str) -> Any:
    """An object in a new segment, or with `if_exists="open"` in that of this name."""
    _refuse_pointers(kind)
    shape, dtype = _layout(kind)
    if if_exists == "open" and name is not None:
        while True:
            try:
                return _over(kind, registry.attach(name), shape, dtype)
            except SegmentNotFoundError:
                pass
            try:
                segment = registry.create(shape, dtype, name=name, keep=keep)
                break
            except SegmentExistsError:
                continue  # somebody was faster
    else:
        segment = registry.create(shape, dtype, name=name, keep=keep, if_exists=if_exists)  # type: ignore[arg-type]
    made = _over(kind, segment, shape, dtype)
    try:
        ctypes.memset(ctypes.addressof(made), 0, ctypes.sizeof(made))
        fill(made)
    except BaseException:
        if name is not None:
            segment.unlink()
        raise
    return made


def _over(kind: Any, segment: Segment, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    there = segment.descriptor
    if (there.shape, there.dtype) != (shape, dtype):
        raise ValueError(
            f"array {segment.user_name!r} has shape {there.shape} and dtype {there.dtype}, which is not what a"
            f" {kind.__name__} needs: {shape} and {dtype}; use another name, or if_exists='replace'"
        )
    made = _in_segment(kind).from_buffer(_Room(segment, ctypes.sizeof(kind)))
    made._segment = segment
    return made


def _Room(segment: Segment, nbytes: int) -> Any:
    """The first bytes of a segment as a buffer that keeps it mapped; for no bytes at all, an empty one."""
    return memoryview(np.asarray(segment)[:nbytes]) if nbytes else bytearray()  # type: ignore[arg-type]


def _layout(kind: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the array that shows a type's objects; bytes where NumPy has no such dtype."""
    lengths: list[int] = []
    element: Any = kind
    while issubclass(element, ctypes.Array):
        lengths.append(element._length_)
        element = element._type_
    shape = tuple(lengths)
    try:
        dtype = check_dtype("U1" if element is ctypes.c_wchar else element)
        if dtype.itemsize == ctypes.sizeof(element):
            return shape, dtype
    except (TypeError, ValueError, NotImplementedError):  # unions, bit fields
        pass
    return (ctypes.sizeof(kind),), np.dtype("u1")


def _refuse_pointers(kind: Any) -> None:
    simple = getattr(kind, "_type_", None)
    if issubclass(kind, ctypes._Pointer) or simple in ("O", "P", "z", "Z") or hasattr(kind, "_restype_"):
        raise TypeError(f"a {kind.__name__} is an address, which means nothing in another process")
    for _, member, *_ in getattr(kind, "_fields_", ()):
        _refuse_pointers(member)
    if issubclass(kind, ctypes.Array):
        _refuse_pointers(kind._type_)


def _view(segment: Segment, kind: Any) -> SharedArray:
    shape, dtype = _layout(kind)
    view = over_segment(segment, shape, dtype, kind=SharedArray)
    assert isinstance(view, SharedArray)
    return view


def _described(kind: Any) -> Any:
    """A type in a form that pickles: arrays have no names of their own."""
    if issubclass(kind, ctypes.Array) and "_type_" in kind.__mro__[0].__dict__:
        return _described(kind._type_), kind._length_
    return kind


def _type_of(described: Any) -> Any:
    return _type_of(described[0]) * described[1] if isinstance(described, tuple) else described


def _attached(described: Any, reference: Any) -> Any:
    kind = _type_of(described)
    return _over(kind, registry.attach_reference(reference), *_layout(kind))
