"""In which order do the dimensions of a result lie in memory?

NumPy decides by the strides of the operands, by three rules that differ where dimensions tie or have length 1. Results
in shared memory have the strides that NumPy's would have, since code depends on them: `reshape`, `view`, and loops.

An answer is the dimensions, outermost in memory first; None stands for C order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["axes_of_call", "axes_of_concatenation", "axes_of_copy", "axes_of_result"]

Array = np.ndarray[Any, Any]
Axes = tuple[int, ...]


def axes_of_copy(array: Array) -> Axes | None:
    """Of a copy in "K" order, as `numpy.empty_like` has it.

    Examples
    --------
    >>> axes_of_copy(np.empty((2, 3, 4)).transpose(1, 0, 2))
    (1, 0, 2)
    """
    if array.ndim < 2 or array.flags.c_contiguous:
        return None
    if array.flags.f_contiguous:
        return tuple(range(array.ndim))[::-1]
    strides = array.strides
    return _answer(sorted(range(array.ndim), key=lambda axis: -abs(strides[axis])))


def axes_of_result(array: Array) -> Axes | None:
    """Of the same bytes elsewhere: an array in this order has the strides that this one has, if its bytes lie dense."""
    if array.ndim < 2 or (array.flags.c_contiguous and 1 not in array.shape):
        return None
    strides, shape = array.strides, array.shape
    # A dimension of length 1 has the stride of what it goes round.
    return _answer(sorted(range(array.ndim), key=lambda axis: (-abs(strides[axis]), shape[axis] == 1)))


def axes_of_call(arrays: Sequence[Array], shape: tuple[int, ...], *, as_they_are: bool) -> Axes | None:
    """Of what a ufunc makes of arrays that broadcast to `shape`, as NumPy's iterator has it.

    `as_they_are`: one output, and no operand has to be converted first; then arrays of one order and that shape hand
    their order on.

    Examples
    --------
    >>> axes_of_call([np.empty((2, 3)).T, np.empty(2)], (3, 2), as_they_are=True)
    (1, 0)
    """
    n_dims = len(shape)
    if n_dims < 2 or all(x.flags.c_contiguous and x.shape == shape for x in arrays):
        return None
    if as_they_are and all(x.flags.f_contiguous and x.shape == shape for x in arrays):
        return tuple(range(n_dims))[::-1]
    # Of each operand its strides by dimension of the result; 0 where it has none of its own, and does not count.
    strides = [
        (0,) * (n_dims - x.ndim)
        + tuple(abs(stride) if extent != 1 else 0 for stride, extent in zip(x.strides, x.shape, strict=True))
        for x in arrays
    ]

    def compare(one: int, other: int) -> int:
        return _compared([(of[one], of[other]) for of in strides if of[one] and of[other]])

    return _answer(_sorted(list(range(n_dims))[::-1], compare)[::-1])


def axes_of_concatenation(arrays: Sequence[Array]) -> Axes | None:
    """Of arrays joined along a dimension, as `numpy.concatenate` has it."""
    if all(x.flags.c_contiguous for x in arrays) and 1 not in arrays[0].shape:
        return None

    def compare(one: int, other: int) -> int:
        # Here the larger stride comes first, which the signs say.
        both = [x for x in arrays if x.shape[one] != 1 and x.shape[other] != 1]
        return _compared([(-abs(x.strides[one]), -abs(x.strides[other])) for x in both])

    return _answer(_sorted(list(range(arrays[0].ndim)), compare))


def _compared(pairs: Sequence[tuple[int, int]]) -> int:
    """Whether the first goes before the other (1) or behind it (-1) by the strides of some operands; 0 if none tells.

    Where operands contradict each other they stay as they were, in C order.
    """
    if not pairs:
        return 0
    return 1 if all(one < other for one, other in pairs) else -1


def _sorted(axes: list[int], compare: Callable[[int, int], int]) -> list[int]:
    """NumPy's insertion sort: one that no operand can tell from another passes it only together with a further one."""
    for start in range(1, len(axes)):
        axis, place = axes[start], start
        for before in range(start - 1, -1, -1):
            verdict = compare(axis, axes[before])
            if verdict < 0:
                break
            if verdict > 0:
                place = before
        axes.insert(place, axes.pop(start))
    return axes


def _answer(axes: list[int]) -> Axes | None:
    return None if axes == sorted(axes) else tuple(axes)
