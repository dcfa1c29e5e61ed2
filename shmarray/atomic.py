"""Single elements that several processes and threads change at once, from plain Python.

Each function is one atomic instruction on an element of an array: nobody sees it half done, and a process that is
killed has done it or not. Inside numba code the same is `shmarray.kernels.atomics`, which costs nanoseconds; a call
from here costs some microseconds of Python around the instruction.

>>> import shmarray as sa
>>> counts = sa.zeros(4, dtype="int64", name="atomic-example")
>>> sa.atomic.add(counts, 2, 5)
0
>>> sa.atomic.add(counts, 2, 1)
5
>>> int(counts[2])
6
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, SupportsIndex, TypeAlias

import numpy as np

__all__ = ["add", "compare_exchange", "exchange", "load", "store"]


def __dir__() -> list[str]:
    return ["__doc__", "__file__", "__name__", *__all__]


Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
#: One integer, or one a dimension.
Index: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
Number: TypeAlias = int | float | np.integer[Any] | np.floating[Any]


def load(array: Array, index: Index) -> Any:
    """The element as it is now: an int or a float.

    Parameters
    ----------
    array : ndarray
        Of integers or float64, aligned; shared or not.
    index : int or sequence of int
        One integer for each dimension; negative ones count from the end.

    Raises
    ------
    IndexError
        The index is out of bounds.
    TypeError
        Elements of that dtype cannot be changed atomically.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.atomic.load(sa.array([[1.5, 2.5]]), (0, -1))
    2.5
    """
    return _call("load", array, index)


def store(array: Array, index: Index, value: Number) -> None:
    """Set the element, in one piece. See :func:`load` for the parameters."""
    _call("store", array, index, value)


def add(array: Array, index: Index, value: Number) -> Any:
    """Add to the element, and give what was there before. Integers wrap around. See :func:`load`.

    Examples
    --------
    >>> import shmarray as sa
    >>> a = sa.zeros(3)
    >>> sa.atomic.add(a, 0, 0.5), sa.atomic.add(a, 0, 0.5)
    (0.0, 0.5)
    """
    return _call("add", array, index, value)


def exchange(array: Array, index: Index, value: Number) -> Any:
    """Set the element, and give what was there before. See :func:`load`."""
    return _call("exchange", array, index, value)


def compare_exchange(array: Array, index: Index, expected: Number, value: Number) -> Any:
    """Set the element if it is `expected`, bit for bit; give what was there before. See :func:`load`.

    Examples
    --------
    >>> import shmarray as sa
    >>> owner = sa.zeros(1, dtype="int32")
    >>> sa.atomic.compare_exchange(owner, 0, 0, 7) == 0  # it was free, and is ours now
    True
    >>> sa.atomic.compare_exchange(owner, 0, 0, 8)
    7
    """
    return _call("compare_exchange", array, index, expected, value)


def _call(name: str, array: Array, index: Index, *values: Number) -> Any:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"atomic.{name} works on an element of an array; got {type(array).__name__}")
    dtype = array.dtype
    if not (dtype.kind in "iu" or dtype == np.float64) or not dtype.isnative or not array.flags.aligned:
        raise TypeError(
            f"atomic.{name} works on aligned integers and float64 of this machine's byte order; got dtype {dtype}"
        )
    if name != "load" and not array.flags.writeable:
        raise ValueError(f"atomic.{name}: the array is read-only; open it with mode='r+'")
    address = array.__array_interface__["data"][0] + _offset(name, array, index)
    words = [int(np.asarray(_of_dtype(name, value, dtype)).view(f"i{dtype.itemsize}")) for value in values]
    bits = np.int64(_entry(name, dtype.str)(address, *words)).astype(f"i{dtype.itemsize}")
    return None if name == "store" else bits.view(dtype).item()


def _of_dtype(name: str, value: Number, dtype: np.dtype[Any]) -> Any:
    """The value as an element; what the elements cannot hold is refused."""
    if dtype.kind in "iu":
        try:
            return dtype.type(operator.index(value))  # type: ignore[arg-type]  # a float is refused here
        except TypeError:
            raise TypeError(f"atomic.{name}: an element of dtype {dtype} takes an integer; got {value!r}") from None
    return dtype.type(value)


def _offset(name: str, array: Array, index: Index) -> int:
    parts = tuple(index) if isinstance(index, tuple | list) else (index,)
    if len(parts) != array.ndim:
        raise IndexError(f"atomic.{name} takes one integer for each of {array.ndim} dimensions; got {index!r}")
    offset = 0
    for axis, (part, extent, stride) in enumerate(zip(parts, array.shape, array.strides, strict=True)):
        at = operator.index(part)  # what is no integer is refused here
        if not -extent <= at < extent:
            raise IndexError(f"atomic.{name}: index {at} is out of bounds for axis {axis} with size {extent}")
        offset += (at + extent if at < 0 else at) * stride
    return offset


@cache
def _entry(name: str, dtype: str) -> Callable[..., int]:
    """Machine code (address, bits of values) -> bits of the result, from the cache on disk after the first time."""
    from numba import types

    from shmarray import jit
    from shmarray.pool.atomics import ELEMENT_ARITY, make_element_driver

    arity = ELEMENT_ARITY[name]
    code = jit.compile(lambda: make_element_driver(name, dtype), (types.int64,) * arity, key=("atomic", name, dtype))
    entry: Callable[..., int] = code.entry
    return entry
