"""ctypes objects in shared memory, with and without a lock: `multiprocessing.sharedctypes` in registered segments.

Each object lies in a segment of its own, so it pickles to any process, as a handle; it may have a name, under which
others find it; NumPy sees it without a copy. Its lock is the segment's, which the kernel frees when its holder dies.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from shmarray.multiprocessing.ctypes_objects import InSegment, copy, ctypes_type, place, plain_type, typecode_to_type
from shmarray.multiprocessing.mutex import SegmentLock

if TYPE_CHECKING:
    from shmarray.array import SharedArray

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized", "typecode_to_type"]


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
    kind = ctypes_type(typecode_or_type)
    return place(kind, lambda made: made.__init__(*args), name, keep, if_exists)


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
    kind = ctypes_type(typecode_or_type)
    if isinstance(size_or_initializer, int):
        if size_or_initializer < 0:
            raise ValueError(f"an array's size must be 0 or more; got {size_or_initializer}")
        return place(kind * size_or_initializer, lambda made: None, name, keep, if_exists)
    values = size_or_initializer if hasattr(size_or_initializer, "__len__") else list(size_or_initializer)
    return place(kind * len(values), lambda made: made.__init__(*values), name, keep, if_exists)


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


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """Put a lock (by default the object's own) beside an object that :func:`RawValue` or its kin have made."""
    assert not isinstance(obj, SynchronizedBase), "object already synchronized"
    if not isinstance(obj, InSegment) and lock is None:
        from shmarray.multiprocessing.context import default_context

        lock = (ctx or default_context.get_context()).RLock()  # an object of somebody else's memory
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        return (SynchronizedString if obj._type_ is ctypes.c_char else SynchronizedArray)(obj, lock, ctx)
    kind = plain_type(type(obj))
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
