"""What do ndarray's methods do on a SharedArray?

Those that have a version in the table of :mod:`shmarray.array.functions` run that; copies go to shared memory with all
cores; the rest is ndarray's own.

Invariant: a method that is not foreseen here gives what NumPy gives, on the same memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray

from shmarray.array import functions
from shmarray.array.layout import axes_of_copy
from shmarray.array.results import allocate, share, wants_sharing
from shmarray.array.transfer import copy_parallel
from shmarray.array.ufuncs import REDUCE_NBYTES

__all__ = ["ArrayMethods"]

#: What `np.can_cast` knows ("same_value" it does not: that depends on the values).
_CASTINGS = ("no", "equiv", "safe", "same_kind", "unsafe")


def _method(function: Callable[..., Any]) -> Any:
    """A method of ndarray that asks the table for its function's version first."""
    plain = getattr(ndarray, function.__name__)
    own = functions.implementation(function)

    def method(self: ArrayMethods, *args: Any, **kwargs: Any) -> Any:
        if self.nbytes < REDUCE_NBYTES and not args and not kwargs and functions.implementation(function) is own:
            # No version from above: NumPy's, and nothing to unpack but the array.
            result = plain(self.view(ndarray))
            if type(result) is ndarray:
                return share(result).view(type(self))
            if type(result) is not tuple:
                return result
        return functions.call_method(type(self), function, plain, (self, *args), kwargs)

    method.__name__ = function.__name__
    method.__qualname__ = f"SharedArray.{function.__name__}"
    method.__doc__ = plain.__doc__
    return method


class ArrayMethods(ndarray[Any, np.dtype[Any]]):
    """The methods of a SharedArray that ndarray has too."""

    __slots__ = ()

    # --- copies ---------------------------------------------------------------------------------------------

    def copy(self, order: Any = "C") -> Any:
        """A copy, in shared memory from `config.inline_nbytes` on, made with all cores.

        Parameters
        ----------
        order : {"C", "F", "A", "K"}
            As `numpy.ndarray.copy`.

        Returns
        -------
        SharedArray
            Of the same shape and dtype.

        Examples
        --------
        >>> import shmarray as sa
        >>> sa.zeros((2, 3)).copy("F").strides
        (8, 16)
        """
        if order in ("C", "c", None) or (order in ("A", "a") and not self.flags.fnc):
            axes = None
        elif order in ("F", "f", "A", "a"):
            axes = tuple(range(self.ndim))[::-1]
        elif order in ("K", "k"):
            axes = axes_of_copy(self)
        else:
            return ndarray.copy(self, order)  # which refuses it
        target = allocate(self.shape, self.dtype, axes=axes) if wants_sharing(self.nbytes, self.dtype) else None
        if target is None:
            return ndarray.copy(self, order)
        copy_parallel(target, self.view(ndarray))
        return target.view(type(self))

    def __copy__(self) -> Any:
        return self.copy("K")

    def __deepcopy__(self, memo: dict[int, Any] | None) -> Any:
        if self.dtype.hasobject:
            return ndarray.__deepcopy__(self, memo)
        return self.copy("K")

    def astype(  # type: ignore[override]
        self, dtype: Any, order: Any = "K", casting: Any = "unsafe", subok: bool = True, copy: bool = True
    ) -> Any:
        """As `numpy.ndarray.astype`; the result is in shared memory from `config.inline_nbytes` on.

        Parameters
        ----------
        dtype : data-type
        order, casting, subok, copy
            As `numpy.ndarray.astype`.

        Returns
        -------
        SharedArray
            A copy; with `copy=False` the array itself where it is of that dtype. A plain ndarray with `subok=False`.

        Examples
        --------
        >>> import shmarray as sa
        >>> sa.array([1.5, 2.5]).astype(int)
        SharedArray([1, 2])
        """
        target_dtype = np.dtype(dtype)
        simple = self.dtype.kind in "biuf" and target_dtype.kind in "biufc"
        if (
            simple
            and subok
            and order == "K"
            and (copy or self.dtype != target_dtype)
            and wants_sharing(self.size * target_dtype.itemsize, target_dtype)
            and casting in _CASTINGS
            and np.can_cast(self.dtype, target_dtype, casting)
        ):
            target = allocate(self.shape, target_dtype, axes=axes_of_copy(self))
            if target is not None:
                copy_parallel(target, self.view(ndarray))
                return target.view(type(self))
        plain = self.view(ndarray)
        result = plain.astype(dtype, order, casting, subok, copy)
        if result is plain:  # copy=False, and nothing had to be converted
            return self
        if not subok:
            return result
        return share(result).view(type(self))

    def flatten(self, order: Any = "C") -> Any:
        """As `numpy.ndarray.flatten`: always a copy; in shared memory from `config.inline_nbytes` on.

        Parameters
        ----------
        order : {"C", "F", "A", "K"}

        Returns
        -------
        SharedArray
            One dimension.

        Examples
        --------
        >>> import shmarray as sa
        >>> sa.array([[1, 2], [3, 4]]).flatten("F")
        SharedArray([1, 3, 2, 4])
        """
        if order != "C" or not wants_sharing(self.nbytes, self.dtype):
            return share(self.view(ndarray).flatten(order)).view(type(self))
        return self.copy("C").reshape(-1)

    # --- methods with a version in the table ----------------------------------------------------------------

    def sort(self, *args: Any, **kwargs: Any) -> None:
        """As `numpy.ndarray.sort`: in place, returns None. Large arrays are sorted with all cores.

        Examples
        --------
        >>> import shmarray as sa
        >>> a = sa.array([3, 1, 2])
        >>> a.sort()
        >>> a
        SharedArray([1, 2, 3])
        """
        version = functions.implementation(ndarray.sort)
        if version is None or version(self, *args, **kwargs) is NotImplemented:
            ndarray.sort(self, *args, **kwargs)

    def partition(self, *args: Any, **kwargs: Any) -> None:
        """As `numpy.ndarray.partition`: in place, returns None.

        Examples
        --------
        >>> import shmarray as sa
        >>> a = sa.array([3, 1, 2])
        >>> a.partition(0)
        >>> int(a[0])
        1
        """
        version = functions.implementation(ndarray.partition)
        if version is None or version(self, *args, **kwargs) is NotImplemented:
            ndarray.partition(self, *args, **kwargs)

    def compress(self, condition: Any, axis: Any = None, out: Any = None) -> Any:
        """As `numpy.ndarray.compress`: a copy of the places where `condition` holds.

        Examples
        --------
        >>> import shmarray as sa
        >>> sa.array([3, 1, 2]).compress([True, False, True])
        SharedArray([3, 2])
        """
        return np.compress(condition, self, axis, out)  # the function has the array second

    # Written out, not made in a loop, so that type checkers and `help` see them.
    all = _method(np.all)
    any = _method(np.any)
    argmax = _method(np.argmax)
    argmin = _method(np.argmin)
    argpartition = _method(np.argpartition)
    argsort = _method(np.argsort)
    choose = _method(np.choose)
    clip = _method(np.clip)
    cumprod = _method(np.cumprod)
    cumsum = _method(np.cumsum)
    dot = _method(np.dot)
    max = _method(np.max)
    mean = _method(np.mean)
    min = _method(np.min)
    nonzero = _method(np.nonzero)
    prod = _method(np.prod)
    put = _method(np.put)
    repeat = _method(np.repeat)
    round = _method(np.round)
    searchsorted = _method(np.searchsorted)
    std = _method(np.std)
    sum = _method(np.sum)
    take = _method(np.take)
    trace = _method(np.trace)
    var = _method(np.var)
