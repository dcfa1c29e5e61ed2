"""Moving windows along an axis: `rolling_sum` and its kin."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from shmarray.array import SharedArray
from shmarray.ops.filter_passes import move_along, tiles
from shmarray.ops.results import new_result
from shmarray.ops.units import options_of, packed, run_units

__all__ = ["rolling_max", "rolling_mean", "rolling_min", "rolling_std", "rolling_sum"]

Array = np.ndarray[Any, Any]


def rolling_sum(a: Any, window: int, *, axis: int = -1, out: Any = None, **options: Any) -> Any:
    """The sum of every `window` neighbours along an axis.

    As `np.lib.stride_tricks.sliding_window_view(a, window, axis).sum(-1)`: the axis has `window - 1` elements less.
    Each window is summed by itself, pairwise: a nan or a huge number spoils the windows that hold it and no others, and
    the bits do not depend on where the array is cut.

    Parameters
    ----------
    a : array_like
        Real numbers.
    window : int
        From 1 to the axis's extent.
    axis : int
    out : SharedArray, optional
        Takes the result; it shares no memory with `a`.
    **options
        `pool`, `progress`, `timeout`, `retries`.

    Returns
    -------
    SharedArray
        Sums of integers are int64 or uint64, as NumPy's; otherwise of the array's dtype.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.rolling_sum(sa.array([1, 2, 3, 4]), 2)
    SharedArray([3, 5, 7])
    """
    call = _Call("rolling_sum", a, window, axis, options)
    integer = {"b": np.int64, "i": np.int64, "u": np.uint64}.get(call.source.dtype.kind)
    work = np.dtype(np.float64 if integer is None else integer)
    return call.move("moving_sum", work, call.source.dtype if integer is None else work, out)


def rolling_mean(a: Any, window: int, *, axis: int = -1, out: Any = None, **options: Any) -> Any:
    """The mean of every `window` neighbours; see :func:`rolling_sum`. float32 stays float32, integers give float64.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.rolling_mean(sa.array([1, 2, 3, 4]), 2)
    SharedArray([1.5, 2.5, 3.5])
    """
    call = _Call("rolling_mean", a, window, axis, options)
    return call.move("moving_mean", np.dtype(np.float64), call.real_dtype, out)


def rolling_min(a: Any, window: int, *, axis: int = -1, out: Any = None, **options: Any) -> Any:
    """The least of every `window` neighbours, nan where there is one; see :func:`rolling_sum`.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.rolling_min(sa.array([3, 1, 2, 4]), 2)
    SharedArray([1, 1, 2])
    """
    call = _Call("rolling_min", a, window, axis, options)
    return call.move("moving_min", call.source.dtype, call.source.dtype, out)


def rolling_max(a: Any, window: int, *, axis: int = -1, out: Any = None, **options: Any) -> Any:
    """The greatest of every `window` neighbours, nan where there is one; see :func:`rolling_sum`.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.rolling_max(sa.array([3, 1, 2, 4]), 2)
    SharedArray([3, 2, 4])
    """
    call = _Call("rolling_max", a, window, axis, options)
    return call.move("moving_max", call.source.dtype, call.source.dtype, out)


def rolling_std(a: Any, window: int, *, axis: int = -1, ddof: int = 0, out: Any = None, **options: Any) -> Any:
    """The standard deviation of every `window` neighbours, `ddof` degrees of freedom less; see :func:`rolling_sum`.

    From means and squared distances of halves, joined (Chan, Golub and LeVeque 1979): nothing is subtracted that could
    cancel, so a large mean does not spoil a small spread.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.rolling_std(sa.array([1.0, 3.0, 3.0, 7.0]), 2)
    SharedArray([1., 0., 2.])
    """
    call = _Call("rolling_std", a, window, axis, options)
    return call.spread(operator.index(ddof), out)


class _Call:
    """One call: arguments checked, the array seen as (before, positions, columns)."""

    def __init__(self, name: str, a: Any, window: Any, axis: Any, options: dict[str, Any]) -> None:
        self.name, self.options = name, options_of(name, options)
        array = np.asarray(a)
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8 or array.dtype == np.float16:
            raise TypeError(f"{name} takes arrays of integers, booleans, float32 or float64; got dtype {array.dtype}")
        if array.ndim == 0:
            raise ValueError(f"{name} needs an array with at least one dimension")
        axis = operator.index(axis)
        if not -array.ndim <= axis < array.ndim:
            raise np.exceptions.AxisError(axis, array.ndim)
        axis %= array.ndim
        extent = array.shape[axis]
        self.window = operator.index(window)
        if not 1 <= self.window <= extent:
            raise ValueError(f"{name}: window must be from 1 to the axis's extent, {extent}; got {window!r}")
        self.source = packed(array)
        self.given = array
        self.shape = (*array.shape[:axis], extent - self.window + 1, *array.shape[axis + 1 :])
        before, behind = math.prod(array.shape[:axis]), math.prod(array.shape[axis + 1 :])
        self.view, self.out_view = (before, extent, behind), (before, self.shape[axis], behind)

    @property
    def real_dtype(self) -> np.dtype[Any]:
        return self.source.dtype if self.source.dtype.kind == "f" else np.dtype(np.float64)

    def move(self, kernel: str, work: np.dtype[Any], dtype: np.dtype[Any], out: Any) -> Any:
        result, target = self._result(dtype, out)
        if target.size:
            if self.source.dtype.kind in "biu":
                self.source = self.source.astype(work)  # rather than a kernel for each type of integers
            move_along(
                self.name,
                kernel,
                self.source.reshape(self.view),
                target.reshape(self.out_view),
                self.window,
                0,
                0,
                work.type(0),
                options=self.options,
            )
        return self._given(result, out)

    def spread(self, ddof: int, out: Any) -> Any:
        if ddof >= self.window:
            raise ValueError(f"{self.name}: ddof must be less than the window, {self.window}; got {ddof}")
        result, target = self._result(self.real_dtype, out)
        if target.size:
            positions, columns, units = tiles(self.out_view, self.window)
            extents = [np.int64(extent) for extent in (self.view[1], *self.out_view[1:])]
            integers = [np.int64(value) for value in (self.window, ddof)]
            run_units(
                self.name,
                ("moving", "moving_spread"),
                [
                    self.source.reshape(-1),
                    *extents,
                    *integers,
                    np.bool_(True),
                    np.int64(positions),
                    np.int64(columns),
                ],
                [target.reshape(-1)],
                units,
                unit_nbytes=positions * columns * 8,
                options=self.options,
            )
        return self._given(result, out)

    def _result(self, dtype: np.dtype[Any], out: Any) -> tuple[SharedArray, Array]:
        if out is not None:
            if not isinstance(out, SharedArray):
                raise TypeError(f"{self.name}: out must be a SharedArray; got {type(out).__name__}")
            if out.shape != self.shape:
                raise ValueError(f"{self.name}: out has shape {out.shape}; the result has shape {self.shape}")
            if not np.can_cast(dtype, out.dtype, casting="same_kind") or not out.flags.writeable:
                raise ValueError(f"{self.name}: out must be writeable and hold {dtype}; it has dtype {out.dtype}")
            if out.dtype == dtype and out.flags.c_contiguous and not np.may_share_memory(out, self.source):
                return out, out.view(np.ndarray)
        result = new_result(self.shape, dtype)
        return result, result.view(np.ndarray)

    def _given(self, result: SharedArray, out: Any) -> Any:
        if out is None or out is result:
            return result
        out[...] = result
        return out
