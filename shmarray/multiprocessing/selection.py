"""Which part of an array is meant by a key that comes from elsewhere?

Basic indexing alone (integers, slices, an ellipsis, new axes): it selects a view, so that a server copies nothing, and
what it selects follows from the shape, so that both sides know the length of what comes.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

__all__ = ["basic_key", "check_values", "select", "shape_of"]


def basic_key(key: Any) -> tuple[Any, ...]:
    """The key as a tuple of what travels: ints, slices of ints, `...` and None.

    Examples
    --------
    >>> import numpy as np
    >>> basic_key(np.int64(3)), basic_key((slice(None, np.int32(4)), ...))
    ((3,), (slice(None, 4, None), Ellipsis))
    """
    return tuple(_part(part) for part in (key if isinstance(key, tuple) else (key,)))


def _part(part: Any) -> Any:
    if part is Ellipsis or part is None:
        return part
    if isinstance(part, slice):
        return slice(*(None if end is None else operator.index(end) for end in (part.start, part.stop, part.step)))
    if not isinstance(part, bool | np.bool_) and np.ndim(part) == 0:
        try:
            return operator.index(part)
        except TypeError:
            pass
    raise TypeError(
        f"a RemoteArray takes integers, slices, '...' and None as indices; got {type(part).__name__}. "
        "Read a block and index that: remote[a:b][mask]"
    )


def select(array: np.ndarray[Any, Any], key: Any) -> np.ndarray[Any, Any]:
    """The view of a plain ndarray that a basic key selects; a view of no dimension where NumPy would give a scalar.

    Raises
    ------
    IndexError
        Out of range, or too many indices.
    """
    parts = basic_key(key)
    if Ellipsis not in parts:
        parts = (*parts, ...)
    view: np.ndarray[Any, Any] = array[parts]
    return view


def shape_of(shape: tuple[int, ...], key: Any) -> tuple[int, ...]:
    """The shape of what a basic key selects from an array of that shape. `IndexError` as :func:`select`.

    Examples
    --------
    >>> shape_of((10, 4), (slice(2, None, 3), 1))
    (3,)
    """
    # Of no bytes, whatever the shape: all strides are zero.
    selected: tuple[int, ...] = select(np.broadcast_to(np.empty((), "u1"), shape), key).shape
    return selected


def check_values(shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    """`ValueError` unless values of that shape can be assigned to a selection of the other."""
    try:
        fits = np.broadcast_shapes(shape, target) == target
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"values of shape {shape} cannot be assigned to a selection of shape {target}")
