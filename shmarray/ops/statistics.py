"""NumPy's statistics and their nan variants on large SharedArrays: one pass over the memory, no temporary array.

The array is cut into a grid that depends on its shape and the axes alone; each part becomes a small state (a sum, a
count with a mean and a spread, a place), and the states are joined in pairs, in the order of the grid. So results have
the same bits for any number of workers. Sums are kept in float64, also for float32.

What is not foreseen here (dtypes, `where=`, too few degrees of freedom, slices of nan alone) falls through to NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from shmarray._caller import warn
from shmarray.array import implements
from shmarray.engine.floating import report
from shmarray.ops.results import new_result
from shmarray.ops.steps import Array, plain, reduce_blocks

__all__: list[str] = []

#: Arrays up to this many items are NumPy's: they would be one part of the grid anyway.
_ONE_PART = 1 << 17

#: NumPy's bits of floating-point errors.
_OVERFLOW, _INVALID = 2, 8

_FLOATS = "f4", "f8"
_NUMBERS = "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", *_FLOATS


class _Call:
    """What a reduction was asked for, made uniform.

    Attributes
    ----------
    array : ndarray
        A plain view.
    axes : tuple of int
        Which are reduced.
    count : int
        Items of each result.
    """

    def __init__(self, array: Any, axis: Any, keepdims: Any) -> None:
        self.array = plain(array)
        n_dims = self.array.ndim
        self.axes = normalize_axis_tuple(range(n_dims) if axis is None else axis, n_dims)
        self.keepdims = keepdims is not np._NoValue and bool(keepdims)
        shape = self.array.shape
        self.kept = tuple(extent for i, extent in enumerate(shape) if i not in self.axes)
        self.with_ones = tuple(1 if i in self.axes else extent for i, extent in enumerate(shape))
        self.count = self.array.size // max(1, int(np.prod(self.kept, dtype=object)))

    @classmethod
    def of(cls, array: Any, axis: Any, keepdims: Any, dtypes: tuple[str, ...]) -> _Call | None:
        """None where NumPy is to do it."""
        if not isinstance(array, np.ndarray) or array.size <= _ONE_PART or not array.dtype.isnative:
            return None
        return cls(array, axis, keepdims) if array.dtype.str[1:] in _codes(dtypes) else None

    def states(self, loop: str, state: Any = np.float64, n_words: int = 1) -> Array:
        return reduce_blocks(loop, self.array, self.axes, state, n_words)

    def shaped(self, values: Array, dtype: Any, out: Any = None) -> Any:
        """The values, one a kept element, as NumPy returns them; NotImplemented where `out` is of another kind."""
        shape = self.with_ones if self.keepdims else self.kept
        if out is not None:
            if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
                return NotImplemented
            plain(out)[...] = values.reshape(shape)
            return out
        if not shape:
            return np.dtype(dtype).type(values[0])
        result = new_result(shape, np.dtype(dtype))
        plain(result)[...] = values.reshape(shape)
        return result


def _codes(dtypes: tuple[str, ...]) -> set[str]:
    return {np.dtype(code).str[1:] for code in dtypes}


def _fold(states: Array, join: Callable[[Array, Array], Array]) -> Array:
    """Join adjacent states in pairs until one is left: the error grows with the logarithm of their number."""
    while len(states) > 1:
        pairs = len(states) // 2
        joined = join(states[0 : 2 * pairs : 2], states[1 : 2 * pairs : 2])
        states = np.concatenate([joined, states[2 * pairs :]])
    only: Array = states[0]
    return only


def _fold_sums(states: Array) -> Array:
    return _fold(states, np.add)


def _fold_moments(states: Array) -> Array:
    def join(left: Array, right: Array) -> Array:
        n, m = left[..., 0], right[..., 0]
        both = n + m
        share = np.divide(m, both, out=np.zeros_like(both), where=both > 0)
        distance = np.where((n > 0) & (m > 0), right[..., 1] - left[..., 1], 0.0)
        mean = np.where(n > 0, left[..., 1] + distance * share, right[..., 1])
        return np.stack([both, mean, left[..., 2] + right[..., 2] + distance * distance * share * n], axis=-1)

    with np.errstate(all="ignore"):
        return _fold(states, join)


def _floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if dtype.kind == "f" else np.dtype(np.float64)


# --- mean and variance --------------------------------------------------------------------------------------


def _variance(loop: str, dtypes: tuple[str, ...], *, root: bool) -> Callable[..., Any]:
    def version(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        ddof: Any = 0,
        keepdims: Any = np._NoValue,
        *,
        where: Any = np._NoValue,
        mean: Any = np._NoValue,
        correction: Any = np._NoValue,
    ) -> Any:
        if correction is not np._NoValue:
            if ddof != 0:
                return NotImplemented
            ddof = correction
        if where is not np._NoValue or mean is not np._NoValue:
            return NotImplemented
        call = _Call.of(a, axis, keepdims, dtypes)
        if call is None or not call.count > ddof:
            return NotImplemented
        result = _floating(call.array.dtype)
        if dtype is not None and np.dtype(dtype) != result:
            return NotImplemented
        moments = _fold_moments(call.states(loop, n_words=3))
        freedom = moments[..., 0] - ddof
        if not (freedom > 0).all():  # NumPy warns, and says which
            return NotImplemented
        values = moments[..., 2] / freedom
        if not np.isfinite(values).all():
            _report_on_the_way(a, values)
        return call.shaped(np.sqrt(values) if root else values, result, out)

    return version


def _report_on_the_way(array: Array, variances: Array) -> None:
    """The floating-point errors that NumPy meets, for which variances that are no numbers are the sign."""
    ends = [ufunc.reduce(array, axis=None) for ufunc in (np.fmin, np.fmax)]
    if np.isinf(ends).any():
        report(_INVALID, "subtract")  # of an infinite mean from an infinite item
    elif np.isinf(variances).any():
        report(_OVERFLOW, "multiply")


implements(np.var)(_variance("moments", _NUMBERS, root=False))
implements(np.std)(_variance("moments", _NUMBERS, root=True))
implements(np.nanvar)(_variance("nanmoments", _FLOATS, root=False))
implements(np.nanstd)(_variance("nanmoments", _FLOATS, root=True))


@implements(np.nanmean)
def _nanmean(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = np._NoValue,
    *,
    where: Any = np._NoValue,
) -> Any:
    call = _Call.of(a, axis, keepdims, _FLOATS)
    if call is None or dtype is not None or where is not np._NoValue:
        return NotImplemented
    states = _fold_sums(call.states("nanaverage", n_words=2))
    if not states[..., 0].all():
        return NotImplemented
    return call.shaped(states[..., 1] / states[..., 0], call.array.dtype, out)


# --- sums and products --------------------------------------------------------------------------------------


def _skipping(loop: str, join: Callable[[Array, Array], Array]) -> Callable[..., Any]:
    def version(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: Any = np._NoValue,
        initial: Any = np._NoValue,
        where: Any = np._NoValue,
    ) -> Any:
        call = _Call.of(a, axis, keepdims, _FLOATS)
        if call is None or dtype is not None or initial is not np._NoValue or where is not np._NoValue:
            return NotImplemented
        with np.errstate(all="ignore"):
            values = _fold(call.states(loop), join)[..., 0]
        return call.shaped(values, call.array.dtype, out)

    return version


implements(np.nansum)(_skipping("nantotal", np.add))
implements(np.nanprod)(_skipping("nanproduct", np.multiply))


@implements(np.count_nonzero)
def _count_nonzero(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    call = _Call.of(a, axis, keepdims, _NUMBERS)
    if call is None:
        return NotImplemented
    counts = _fold_sums(call.states("nonzeros", np.int64))[..., 0]
    if axis is None and not keepdims:
        return type(np.count_nonzero(np.zeros(1)))(counts[0])
    return call.shaped(counts, np.intp)


@implements(np.linalg.norm)
def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: Any = False) -> Any:
    if not isinstance(x, np.ndarray) or x.ndim == 0:
        return NotImplemented
    if axis is None:
        is_vector = ord is None or x.ndim == 1
    else:
        is_vector = isinstance(axis, int) or (isinstance(axis, tuple) and len(axis) == 1)
    if not is_vector or not (ord is None or (isinstance(ord, int | float) and ord in (1, 2))):
        return NotImplemented  # a matrix norm, or one of the rarer ones
    call = _Call.of(x, axis, keepdims, _FLOATS)
    if call is None:
        return NotImplemented
    if ord == 1:
        values = _fold_sums(call.states("magnitudes"))[..., 0]
    else:
        values = np.sqrt(_fold_sums(call.states("squares"))[..., 0])
    return call.shaped(values, call.array.dtype)


# --- extrema and their places -------------------------------------------------------------------------------


def _extremum(ufunc: np.ufunc) -> Callable[..., Any]:
    """fmin and fmax skip nan, and their `reduce` is the engine's."""

    def version(
        a: Any,
        axis: Any = None,
        out: Any = None,
        keepdims: Any = np._NoValue,
        initial: Any = np._NoValue,
        where: Any = np._NoValue,
    ) -> Any:
        call = _Call.of(a, axis, keepdims, _FLOATS)
        if call is None or out is not None or initial is not np._NoValue or where is not np._NoValue:
            return NotImplemented
        result = ufunc.reduce(a, axis=axis, keepdims=call.keepdims)
        if np.isnan(result).any():
            warn("All-NaN slice encountered", RuntimeWarning)
        return result

    return version


implements(np.nanmin)(_extremum(np.fmin))
implements(np.nanmax)(_extremum(np.fmax))


def _place(loop: str, dtypes: tuple[str, ...], better: np.ufunc) -> Callable[..., Any]:
    skips_nan = loop.startswith("nan")

    def version(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = np._NoValue) -> Any:
        call = _Call.of(a, axis, keepdims, dtypes) if axis is None or isinstance(axis, int) else None
        if call is None or not call.count:
            return NotImplemented
        dtype = call.array.dtype

        def join(left: Array, right: Array) -> Array:
            one, other = (np.ascontiguousarray(side[..., 1]).view(dtype) for side in (left, right))
            one, other = (values[:, :: 8 // dtype.itemsize] for values in (one, other))
            takes = better(other, one)
            if skips_nan:
                takes = (takes & (right[..., 0] >= 0)) | (left[..., 0] < 0)
            elif dtype.kind == "f":
                takes |= np.isnan(other) & ~np.isnan(one)
            return np.where(takes[..., np.newaxis], right, left)

        places = _fold(call.states(loop, np.int64, 2), join)[..., 0]
        if skips_nan and (places < 0).any():
            raise ValueError("All-NaN slice encountered")
        return call.shaped(places, np.intp, out)

    return version


implements(np.argmin)(_place("argmin", _NUMBERS, np.less))
implements(np.argmax)(_place("argmax", _NUMBERS, np.greater))
implements(np.nanargmin)(_place("nanargmin", _FLOATS, np.less))
implements(np.nanargmax)(_place("nanargmax", _FLOATS, np.greater))
