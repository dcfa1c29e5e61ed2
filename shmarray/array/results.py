"""Where does the result of an operation go?

What an operator or a function returns is private memory below `config.inline_nbytes` (a segment would cost
more than the operation) and a segment from there on. Results that can be foreseen are computed straight into
shared pages (:func:`allocate`); what NumPy has already put into private memory is copied over once
(:func:`share`).

Invariant: an operation never fails for want of shared memory. It warns once per process and stays private.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shmarray import registry
from shmarray._caller import warn
from shmarray.array.layout import axes_of_result
from shmarray.array.transfer import copy_parallel
from shmarray.configuration import config
from shmarray.errors import OutOfSharedMemoryError
from shmarray.segment import segment_of

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["allocate", "is_shareable", "over_segment", "share", "wants_sharing"]

_warned = False


def is_shareable(dtype: np.dtype[Any]) -> bool:
    """Whether elements of this dtype mean the same elsewhere (no pointers, no user-defined types)."""
    return dtype.kind in "biufcmMSUV" and not dtype.hasobject and dtype.isbuiltin != 2 and dtype.itemsize > 0


def wants_sharing(nbytes: int, dtype: np.dtype[Any]) -> bool:
    """Whether a result of that size belongs into a segment."""
    return nbytes >= config.inline_nbytes and is_shareable(dtype)


def over_segment(
    segment: Segment,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    offset: int = 0,
    strides: tuple[int, ...] | None = None,
    kind: type[np.ndarray[Any, Any]] = np.ndarray,
) -> np.ndarray[Any, Any]:
    """An array over a segment's bytes; its `.base` chain ends in the segment, which so stays mapped.

    NumPy checks that every element lies inside the segment and raises ValueError otherwise, so that a damaged
    handle cannot read past the mapping.
    """
    memory = np.asarray(segment)
    return np.ndarray.__new__(kind, shape, dtype, memory, offset, strides)  # by keyword it takes twice as long


def allocate(
    shape: tuple[int, ...], dtype: np.dtype[Any], *, axes: tuple[int, ...] | None = None
) -> np.ndarray[Any, Any] | None:
    """Uninitialised shared memory for a result, or None when shared memory is short.

    `axes` gives the order of the dimensions in memory, outermost first; None is C order. The array is a plain
    ndarray over the segment; the caller makes it a SharedArray when it is filled.
    """
    try:
        if axes is None:
            return over_segment(registry.create(shape, dtype), shape, dtype)
        stored = tuple(shape[axis] for axis in axes)
        inverse = sorted(range(len(axes)), key=axes.__getitem__)
        return over_segment(registry.create(stored, dtype), stored, dtype).transpose(inverse)
    except OutOfSharedMemoryError as error:
        _warn_short(error)
        return None


def share(result: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same values in shared memory, in the same memory order, where the result is large enough for it."""
    if not wants_sharing(result.nbytes, result.dtype) or segment_of(result) is not None:
        return result
    shared = allocate(result.shape, result.dtype, axes=axes_of_result(result))
    if shared is None:
        return result
    copy_parallel(shared, result)
    if not result.flags.writeable:
        shared.flags.writeable = False
    return shared


def _warn_short(error: OutOfSharedMemoryError) -> None:
    global _warned
    if _warned:
        return
    _warned = True
    warn(
        "shared memory is short, and results of operators and functions for which there is no room stay private to "
        f"this process (they pickle by value): {error}. This warning appears once.",
        RuntimeWarning,
    )
