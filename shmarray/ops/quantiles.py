"""`np.median`, `quantile` and `percentile` over all of a large SharedArray, without sorting it.

Counting tells in which narrow range of values (a cell, see `shmarray.ops.cells`) the item of each rank lies; the items
of these cells are collected, and sorted. What is made of the items is NumPy's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shmarray.array import implements
from shmarray.configuration import config
from shmarray.ops.cells import Cells, code_of, signed, words_of
from shmarray.ops.results import new_result
from shmarray.ops.steps import Array, plain, run_step, scratch

__all__ = ["items_of_rank"]

#: Collected items that are sorted at once; a larger collection is narrowed down again.
_SORTED_ITEMS = 1 << 20


def items_of_rank(array: Array, ranks: Sequence[int]) -> tuple[Array, int]:
    """The items that stand at some places of the sorted array, and how many items are nan.

    Parameters
    ----------
    array : (n,) array
        Of 32- or 64-bit numbers; a plain view.
    ranks : sequence of int
        From 0 to n - 1, in any order; nans have the last ones.
    """
    code = code_of(array.dtype)
    assert code is not None
    cells = Cells.of(array, code)
    before = np.concatenate([[0], np.cumsum(cells.counts.sum(axis=0, dtype=np.int64))])
    places = np.searchsorted(before, np.asarray(ranks), side="right") - 1
    found: dict[int, Any] = {}
    for cell in np.unique(places):
        here = [rank for rank, place in zip(ranks, places, strict=True) if place == cell]
        collected = _collect(array, cells, int(cell))
        inside = [rank - int(before[cell]) for rank in here]
        if len(collected) <= _SORTED_ITEMS or cells.shift == 0 or len(collected) == len(array):
            # In one cell of shift 0 all items are equal, but for nan in the last one: NumPy is done with it in no time.
            values = np.partition(collected, inside)[inside]
        else:
            values = items_of_rank(collected, inside)[0]
        found.update(zip(here, values, strict=True))
    return np.array([found[rank] for rank in ranks], array.dtype), cells.nans


def _collect(array: Array, cells: Cells, cell: int) -> Array:
    counts = cells.counts[:, cell].astype(np.int64)
    starts = scratch(cells.n_tasks, np.int64, like=array)
    starts[:] = np.cumsum(counts) - counts
    wanted = scratch(cells.counts.shape[1], np.uint8, like=array)
    wanted[:] = 0
    wanted[cell] = 1
    out = scratch(max(1, int(counts.sum())), array.dtype, like=array)
    run_step(
        "sorting.collect",
        [cells.words, cells.code, signed(cells.low), cells.shift, cells.step, wanted, starts, words_of(out)],
        cells.n_tasks,
    )
    return out


def _flat(a: Any, axis: Any) -> Array | None:
    """The array as one row; None where NumPy is to do it."""
    if not isinstance(a, np.ndarray) or code_of(a.dtype) is None or a.nbytes < config.parallel_nbytes:
        return None
    if (axis is not None and (a.ndim != 1 or axis not in (0, -1))) or not a.flags.c_contiguous:
        return None
    return plain(a).reshape(-1)


@implements(np.median)
def _median(a: Any, axis: Any = None, out: Any = None, overwrite_input: Any = False, keepdims: Any = False) -> Any:
    x = _flat(a, axis)
    if x is None or out is not None or keepdims:
        return NotImplemented
    middle = x.size // 2
    items, nans = items_of_rank(x, [middle] if x.size % 2 else [middle - 1, middle])
    return x.dtype.type(np.nan) if nans else np.mean(items)


@implements(np.quantile)
def _quantile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: Any = None,
    overwrite_input: Any = False,
    method: Any = "linear",
    keepdims: Any = False,
    **other: Any,
) -> Any:
    x = _flat(a, axis)
    if x is None or out is not None or keepdims or method != "linear" or any(v is not None for v in other.values()):
        return NotImplemented
    return _by_rank(x, np.asanyarray(q))


@implements(np.percentile)
def _percentile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: Any = None,
    overwrite_input: Any = False,
    method: Any = "linear",
    keepdims: Any = False,
    **other: Any,
) -> Any:
    x = _flat(a, axis)
    if x is None or out is not None or keepdims or method != "linear" or any(v is not None for v in other.values()):
        return NotImplemented
    return _by_rank(x, np.asanyarray(np.true_divide(q, 100)))


def _by_rank(x: Array, q: Array) -> Any:
    if x.dtype == np.float32 or (q.dtype.kind == "f" and q.dtype != np.float64):
        return NotImplemented  # in which precision NumPy works then differs between its versions
    if q.dtype.kind not in "iuf" or q.ndim > 1 or not ((q >= 0) & (q <= 1)).all() or not q.size:
        return NotImplemented  # among them the ones that NumPy refuses
    places = (x.size - 1) * q.ravel()
    first = np.minimum(np.floor(places).astype(np.int64), x.size - 1)
    second = np.minimum(first + 1, x.size - 1)
    items, nans = items_of_rank(x, [*first.tolist(), *second.tolist()])
    # Between two items NumPy's own interpolation: that of an array of the two.
    between = np.where(places >= x.size - 1, 0, places - np.floor(places)).astype(places.dtype)
    results = [
        np.quantile(np.array(pair), share)
        for *pair, share in zip(items[: len(first)], items[len(first) :], between, strict=True)
    ]
    values = np.array(results).reshape(q.shape)
    if nans:
        values[...] = np.nan
    if not values.ndim:
        return values[()]
    result = new_result(values.shape, values.dtype)
    plain(result)[...] = values
    return result
