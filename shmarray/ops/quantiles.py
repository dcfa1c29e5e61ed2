"""`np.median`, `quantile`, `percentile` and their nan variants of large SharedArrays, without sorting them.

Over all of an array, counting tells in which narrow range of values (a cell, see `shmarray.ops.cells`) the item of each
rank lies; the items of these cells are collected, and sorted. Along an axis every row is one task's, which does the
same for itself (`shmarray.kernels.selection.items_of_rows`). What is made of the items is NumPy's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from shmarray.array import implements
from shmarray.array.transfer import copy_parallel
from shmarray.configuration import config
from shmarray.ops.cells import Cells, code_of, signed, words_of
from shmarray.ops.results import new_result
from shmarray.ops.steps import Array, plain, run_step, scratch

__all__ = ["items_of_rank"]

#: Collected items that are sorted at once; a larger collection is narrowed down again.
_SORTED_ITEMS = 1 << 20

#: Rows up to this length are one task's; longer ones go across the workers one after another.
_ROW_ITEMS = 1 << 18

#: Before, a quantile of float32 numbers was looked for at a place computed in float32.
_PLACES_ARE_FLOAT64 = np.lib.NumpyVersion(np.__version__) >= "2.4.0"


def items_of_rank(array: Array, ranks: Sequence[int] | Callable[[int], Sequence[int]]) -> tuple[Array, int]:
    """The items that stand at some places of the sorted array, and how many items are nan.

    Parameters
    ----------
    array : (n,) array
        Of 32- or 64-bit numbers; a plain view.
    ranks : sequence of int, or callable
        From 0 to n - 1, in any order; nans have the last ones. Or what gives them for the number of nans.
    """
    code = code_of(array.dtype)
    assert code is not None
    cells = Cells.of(array, code)
    wanted = ranks(cells.nans) if callable(ranks) else ranks
    before = np.concatenate([[0], np.cumsum(cells.counts.sum(axis=0, dtype=np.int64))])
    places = np.searchsorted(before, np.asarray(wanted), side="right") - 1
    found: dict[int, Any] = {}
    for cell in np.unique(places):
        here = [rank for rank, place in zip(wanted, places, strict=True) if place == cell]
        collected = _collect(array, cells, int(cell))
        inside = [rank - int(before[cell]) for rank in here]
        if len(collected) <= _SORTED_ITEMS or cells.shift == 0 or len(collected) == len(array):
            # In one cell of shift 0 all items are equal, but for nan in the last one: NumPy is done with it in no time.
            values = np.partition(collected, inside)[inside]
        else:
            values = items_of_rank(collected, inside)[0]
        found.update(zip(here, values, strict=True))
    return np.array([found[rank] for rank in wanted], array.dtype), cells.nans


def _collect(array: Array, cells: Cells, cell: int) -> Array:
    counts = cells.counts[:, cell].astype(np.int64)
    starts = scratch(cells.n_tasks, np.int64, like=array)
    starts[:] = np.cumsum(counts) - counts
    wanted = scratch(cells.counts.shape[1], np.uint8, like=array)
    wanted[:] = 0
    wanted[cell] = 1
    out = scratch(max(1, int(counts.sum())), array.dtype, like=array)
    run_step(
        "keys.collect",
        [cells.words, cells.code, signed(cells.low), cells.shift, cells.step, wanted, starts, words_of(out)],
        cells.n_tasks,
    )
    return out


# --- rows, and what NumPy makes of their items --------------------------------------------------------------


class _Call:
    """What NumPy was asked for, as rows of which every one gives some values.

    Attributes
    ----------
    rows : (n_rows, n) array
        C-contiguous; a plain view, or a copy where the axes do not lie so.
    """

    def __init__(self, array: Any, axis: Any, keepdims: Any) -> None:
        self.keepdims = keepdims is not np._NoValue and bool(keepdims)
        n_dims = array.ndim
        self.axes = normalize_axis_tuple(range(n_dims) if axis is None else axis, n_dims)
        kept = [d for d in range(n_dims) if d not in self.axes]
        self.shape = tuple(
            1 if d in self.axes else extent
            for d, extent in enumerate(array.shape)
            if self.keepdims or d not in self.axes
        )
        data = plain(array).transpose(*kept, *sorted(self.axes))
        if not data.flags.c_contiguous:
            copy = scratch(data.shape, data.dtype, like=data)
            copy_parallel(copy, data)
            data = copy
        n_rows = int(np.prod([array.shape[d] for d in kept], dtype=np.int64))
        self.rows = data.reshape(n_rows, -1)

    @classmethod
    def of(cls, array: Any, axis: Any, out: Any, keepdims: Any) -> _Call | None:
        """None where NumPy is to do it."""
        if not isinstance(array, np.ndarray) or array.nbytes < config.parallel_nbytes or out is not None:
            return None
        if code_of(array.dtype) is None or array.ndim == 0:
            return None
        return cls(array, axis, keepdims)

    def items(self, shares: Array, *, skips_nan: bool) -> tuple[Array, Array]:
        """The items of each row between which its quantiles lie, lower ones and upper ones, and how many are no nan.

        Returns
        -------
        (2, n_rows, shares) array, (n_rows,) array of int64
        """
        rows = self.rows
        n_rows, n = rows.shape
        if n > _ROW_ITEMS:
            return self._items_of_long_rows(shares, skips_nan=skips_nan)
        of_rows = scratch((n_rows, 2, len(shares)), rows.dtype, like=rows)
        counts = scratch(n_rows, np.int64, like=rows)
        shared = scratch(len(shares), np.float64, like=rows)
        shared[:] = shares
        step = max(1, (1 << 17) // n)
        code = code_of(rows.dtype)
        assert code is not None
        words, found = words_of(rows.reshape(-1)), words_of(of_rows.reshape(-1))
        run_step(
            "selection.items_of_rows",
            [words, code, n_rows, step, shared, int(skips_nan), found, counts],
            -(-n_rows // step),
        )
        return of_rows.transpose(1, 0, 2), counts

    def _items_of_long_rows(self, shares: Array, *, skips_nan: bool) -> tuple[Array, Array]:
        n_rows, n = self.rows.shape
        items = np.empty((2, n_rows, len(shares)), self.rows.dtype)
        counts = np.empty(n_rows, np.int64)

        def ranks(nans: int) -> list[int]:
            lower, upper, _ = _places(n - nans if skips_nan and nans < n else n, shares)
            return [*lower.tolist(), *upper.tolist()]

        for row, values in enumerate(self.rows):
            found, nans = items_of_rank(values, ranks)
            items[:, row] = found.reshape(2, -1)
            counts[row] = n - nans
        return items, counts

    def shaped(self, values: Array, before: tuple[int, ...]) -> Any:
        """Values of shape (quantiles, rows) as NumPy returns them: quantiles first, in their own shape."""
        shape = (*before, *self.shape)
        if not shape:
            return values.reshape(-1)[0]
        result = new_result(shape, values.dtype)
        plain(result)[...] = values.reshape(shape)
        return result


def _places(m: int, shares: Array) -> tuple[Array, Array, Array]:
    """Of m items, the lower and the upper one of each quantile, and how far it is between them."""
    places = (m - 1) * shares
    lower = np.minimum(np.floor(places).astype(np.int64), m - 1)
    between = np.where(places >= m - 1, 0, places - np.floor(places)).astype(places.dtype)
    return lower, np.minimum(lower + 1, m - 1), between


def _median_by_rows(array: Any, axis: Any, out: Any, keepdims: Any, *, skips_nan: bool) -> Any:
    call = _Call.of(array, axis, out, keepdims)
    if call is None or not call.rows.size:
        return NotImplemented
    items, counts = call.items(np.array([0.5]), skips_nan=skips_nan)
    n = call.rows.shape[1]
    if skips_nan and not counts.all():
        return NotImplemented  # NumPy warns
    m = counts if skips_nan else np.full(len(counts), n)
    # The mean of one item has its value, but not always its dtype.
    values: Any = np.where(m % 2 == 1, np.mean(items[:1, :, 0], axis=0), np.mean(items[:, :, 0], axis=0))
    if not skips_nan:
        values[counts < n] = np.nan
    return call.shaped(values, ())


def _quantiles_by_rows(
    array: Any, q: Array, axis: Any, out: Any, keepdims: Any, *, is_weak: bool, skips_nan: bool
) -> Any:
    """`is_weak`: q was given as a number of Python's, which leaves the dtype of the array's interpolation alone."""
    if q.dtype.kind not in "if" or q.dtype.itemsize < 8 or q.ndim > 1 or not q.size or not ((q >= 0) & (q <= 1)).all():
        return NotImplemented  # among them the ones that NumPy refuses
    if isinstance(array, np.ndarray) and array.dtype == np.float32 and not _PLACES_ARE_FLOAT64:
        return NotImplemented
    call = _Call.of(array, axis, out, keepdims)
    if call is None or not call.rows.size:
        return NotImplemented
    shares = q.reshape(-1)
    items, counts = call.items(shares.astype(np.float64), skips_nan=skips_nan)
    n = call.rows.shape[1]
    if skips_nan and not counts.all():
        return NotImplemented
    # Between two items NumPy's own interpolation: that of an array of the two. Rows of as many items go together.
    groups = np.unique(counts) if skips_nan else [n]
    values: Array | None = None
    for m in groups:
        here = np.flatnonzero(counts == m) if len(groups) > 1 else slice(None)
        for k, share in enumerate(_places(int(m), shares)[2]):
            found = np.quantile(items[:, here, k], share.item() if is_weak else share, axis=0)
            if values is None:
                values = np.empty((len(shares), len(counts)), found.dtype)  # integers for q of 0 and 1
            values[k, here] = found
    assert values is not None
    if not skips_nan and (counts < n).any():
        if values.dtype != array.dtype and not q.ndim and not call.shape:
            values = values.astype(array.dtype)  # then NumPy's result is the array's own nan
        values[:, counts < n] = np.nan
    return call.shaped(values, q.shape)


# --- NumPy's names ------------------------------------------------------------------------------------------


def _median(*, skips_nan: bool) -> Callable[..., Any]:
    def version(
        a: Any, axis: Any = None, out: Any = None, overwrite_input: Any = False, keepdims: Any = np._NoValue
    ) -> Any:
        return _median_by_rows(a, axis, out, keepdims, skips_nan=skips_nan)

    return version


def _quantile(*, percent: bool, skips_nan: bool) -> Callable[..., Any]:
    def version(
        a: Any,
        q: Any,
        axis: Any = None,
        out: Any = None,
        overwrite_input: Any = False,
        method: Any = "linear",
        keepdims: Any = np._NoValue,
        **other: Any,
    ) -> Any:
        if method != "linear" or any(value is not None for value in other.values()):
            return NotImplemented
        shares = np.asanyarray(np.true_divide(q, 100) if percent else q)
        is_weak = type(q) in (int, float)
        return _quantiles_by_rows(a, shares, axis, out, keepdims, is_weak=is_weak, skips_nan=skips_nan)

    return version


implements(np.median)(_median(skips_nan=False))
implements(np.nanmedian)(_median(skips_nan=True))
implements(np.quantile)(_quantile(percent=False, skips_nan=False))
implements(np.nanquantile)(_quantile(percent=False, skips_nan=True))
implements(np.percentile)(_quantile(percent=True, skips_nan=False))
implements(np.nanpercentile)(_quantile(percent=True, skips_nan=True))
