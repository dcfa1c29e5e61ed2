"""ctypes objects in shared memory, with and without a lock: `multiprocessing.sharedctypes` in registered segments.

Each object lies in a segment of its own, so it pickles to any process, as a handle; it may have a name, under which
others find it; NumPy sees it without a copy. Its lock is the segment's, which the kernel frees when its holder dies.

Invariant: an object made here is of a subclass of the ctypes type that was asked for, which differs in how it is
pickled and seen by NumPy, nothing else; the type itself is left alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from shmarray import registry
from shmarray.array import SharedArray
from shmarray.array.results import over_segment
from shmarray.errors import SegmentExistsError, SegmentNotFoundError
from shmarray.multiprocessing.mutex import SegmentLock
from shmarray.segment.dtypes import check_dtype

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

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


# --- what users call -----------------------------------------------------------------------------------------


def RawValue(
    typecode_or_type: Any, *args: Any, name: str | None = None, keep: bool = False, if_exists: str = "raise"
) -> Any:
    """A ctypes object in shared memory, without a lock.

    Parameters
    ----------
    typecode_or_type : str or ctypes type
        A letter of the `array` module, or any ctypes type without pointers: numbers, characters, structures, unions,
        arrays.
    *args
        For the type's constructor; what they leave out is zero.
    name, keep, if_exists
        As for :func:`shmarray.empty`. With ``if_exists="open"`` the object of that name keeps the value it has.

    Examples
    --------
    >>> count = RawValue("i", 7)
    >>> count.value += 1
    >>> count.value
    8
    """
    kind = _ctypes_type(typecode_or_type)
    return _made(kind, lambda made: made.__init__(*args), name, keep, if_exists)


def RawArray(
    typecode_or_type: Any,
    size_or_initializer: Any,
    *,
    name: str | None = None,
    keep: bool = False,
    if_exists: str = "raise",
) -> Any:
    """A ctypes array in shared memory, without a lock.

    Parameters
    ----------
    typecode_or_type : str or ctypes type
        Of the elements; see :func:`RawValue`.
    size_or_initializer : int or sequence
        How many elements, all zero; or their values.
    name, keep, if_exists
        See :func:`RawValue`.

    Examples
    --------
    >>> array = RawArray("d", [1, 2, 3])
    >>> np.asarray(array).sum()
    np.float64(6.0)
    """
    kind = _ctypes_type(typecode_or_type)
    if isinstance(size_or_initializer, int):
        if size_or_initializer < 0:
            raise ValueError(f"an array's size must be 0 or more; got {size_or_initializer}")
        return _made(kind * size_or_initializer, lambda made: None, name, keep, if_exists)
    values = size_or_initializer if hasattr(size_or_initializer, "__len__") else list(size_or_initializer)
    return _made(kind * len(values), lambda made: made.__init__(*values), name, keep, if_exists)


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None, **naming: Any) -> Any:
    """A ctypes object in shared memory and a lock for it.

    Parameters
    ----------
    typecode_or_type, *args
        See :func:`RawValue`.
    lock : bool or lock
        True: the object's own, recursive, and free again when its holder dies. False: none, as :func:`RawValue`. Any
        other lock is used as it is.
    name, keep, if_exists
        See :func:`RawValue`.

    Returns
    -------
    Synchronized
        With `value` (or the fields of a structure), `get_obj()`, `get_lock()`, `acquire` and `release`; in a `with`
        block nobody else changes it.

    Examples
    --------
    >>> count = Value("i", 0)
    >>> with count:
    ...     count.value += 1
    >>> count.value
    1
    """
    return _locked(RawValue(typecode_or_type, *args, **naming), lock, ctx)


def Array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None, **naming: Any) -> Any:
    """A ctypes array in shared memory and a lock for it; parameters as :func:`RawArray` and :func:`Value`.

    Examples
    --------
    >>> array = Array("i", [1, 2, 3])
    >>> array[1:] = [5, 6]
    >>> array[:]
    [1, 5, 6]
    >>> import shmarray
    >>> shmarray.asarray(array) * 2
    SharedArray([ 2, 10, 12], dtype=int32)
    """
    return _locked(RawArray(typecode_or_type, size_or_initializer, **naming), lock, ctx)


def copy(obj: Any) -> Any:
    """A copy of a ctypes object, in shared memory.

    Examples
    --------
    >>> copy(ctypes.c_int(3)).value
    3
    """
    kind = _plain(type(obj))
    made = _made(kind, lambda made: None, None, False, "raise")
    ctypes.memmove(ctypes.addressof(made), ctypes.addressof(obj), ctypes.sizeof(kind))
    return made


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """Put a lock (by default the object's own) beside an object that :func:`RawValue` or its kin have made."""
    assert not isinstance(obj, SynchronizedBase), "object already synchronized"
    if not isinstance(obj, _InSegment) and lock is None:
        from shmarray.multiprocessing.context import default_context

        lock = (ctx or default_context.get_context()).RLock()  # an object of somebody else's memory
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        return (SynchronizedString if obj._type_ is ctypes.c_char else SynchronizedArray)(obj, lock, ctx)
    kind = _plain(type(obj))
    wrapper = _wrappers.get(kind)
    if wrapper is None:
        fields = {name: _guarded(name) for base in reversed(kind.__mro__) for name, *_ in getattr(base, "_fields_", ())}
        wrapper = _wrappers[kind] = type(f"Synchronized{kind.__name__}", (SynchronizedBase,), fields)
    return wrapper(obj, lock, ctx)


def _locked(obj: Any, lock: Any, ctx: Any) -> Any:
    if lock is False:
        return obj
    if lock in (True, None):
        lock = None
    elif not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock, ctx)


# --- objects in segments -------------------------------------------------------------------------------------


class _InSegment:
    """What the subclasses of ctypes types have in common."""

    _segment: Segment

    def __shmarray__(self) -> SharedArray:
        kind = _plain(type(self))
        return _view(self._segment, kind)

    def __reduce__(self) -> Any:
        return _attached, (_described(_plain(type(self))), registry.export(self._segment))

    def __copy__(self) -> Any:
        return copy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy(self)


_in_segments: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def _in_segment(kind: Any) -> Any:
    """The subclass of a ctypes type for objects in segments."""
    found = _in_segments.get(kind)
    if found is None:
        found = type(kind.__name__, (_InSegment, kind), {"__module__": kind.__module__})
        _in_segments[kind] = found
    return found


def _plain(kind: Any) -> Any:
    """The ctypes type of which this is such a subclass, or itself."""
    return kind.__mro__[2] if issubclass(kind, _InSegment) else kind


def _ctypes_type(typecode_or_type: Any) -> Any:
    kind = typecode_to_type.get(typecode_or_type) if isinstance(typecode_or_type, str) else _plain(typecode_or_type)
    if kind is None:
        raise ValueError(f"typecode must be one of {' '.join(typecode_to_type)}; got {typecode_or_type!r}")
    return kind


def _made(kind: Any, fill: Callable[[Any], object], name: str | None, keep: bool, if_exists: str) -> Any:
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


# --- locks beside them ---------------------------------------------------------------------------------------


def _guarded(name: str) -> property:
    """A property of the object, read and written with the lock held."""

    def get(self: SynchronizedBase) -> Any:
        return self._around(getattr, self._obj, name)

    def set(self: SynchronizedBase, value: Any) -> None:
        self._around(setattr, self._obj, name, value)

    return property(get, set)


_wrappers: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


class SynchronizedBase:
    """An object and its lock."""

    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None:
        self._obj = obj
        self._lock = SegmentLock(obj._segment) if lock is None else lock
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        self._around = self._lock.around if isinstance(self._lock, SegmentLock) else self._with_lock

    def _with_lock(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self:
            return function(*arguments)

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *args: Any) -> Any:
        return self._lock.__exit__(*args)

    def __reduce__(self) -> Any:
        # The segment's own lock comes with the segment; another one travels by its own rules.
        return synchronized, (self._obj, None if isinstance(self._lock, SegmentLock) else self._lock)

    def get_obj(self) -> Any:
        """The ctypes object."""
        return self._obj

    def get_lock(self) -> Any:
        """The lock."""
        return self._lock

    def __shmarray__(self) -> SharedArray:
        array: SharedArray = self._obj.__shmarray__()
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = np.asarray(self.__shmarray__())
        return np.array(array, dtype=dtype, copy=copy) if dtype is not None or copy else array

    def __repr__(self) -> str:
        return f"<{type(self).__name__} wrapper for {self._obj}>"


class Synchronized(SynchronizedBase):
    """A number or a character."""

    value = _guarded("value")


class SynchronizedArray(SynchronizedBase):
    """An array; items and slices, as lists, are read and written with the lock held."""

    __hash__: ClassVar[Any] = object.__hash__

    def __len__(self) -> int:
        return len(self._obj)

    def __getitem__(self, i: Any) -> Any:
        return self._around(self._obj.__getitem__, i)

    def __setitem__(self, i: Any, value: Any) -> None:
        self._around(self._obj.__setitem__, i, value)


class SynchronizedString(SynchronizedArray):
    """An array of characters."""

    value = _guarded("value")
    raw = _guarded("raw")


def __getattr__(name: str) -> Any:
    # `multiprocessing.sharedctypes` has more names, none of which this module rests on.
    from multiprocessing import sharedctypes

    try:
        return getattr(sharedctypes, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
