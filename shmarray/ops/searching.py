"""`np.searchsorted`, `digitize` and `unique` of large SharedArrays, and `topk`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shmarray.array import SharedArray, asarray, implements
from shmarray.configuration import config
from shmarray.ops.cells import code_of, words_of
from shmarray.ops.quantiles import items_of_rank
from shmarray.ops.results import new_result
from shmarray.ops.selection import true_places
from shmarray.ops.sorting import order_flat, sort_flat
from shmarray.ops.steps import Array, cut, plain, run_step, scratch

__all__ = ["TopK", "topk"]

_MOST_ITEMS = 1 << 32

#: Items of a task of `topk` at least, and the largest k whose candidates, some from every task, are few.
_TOPK_ITEMS, _MOST_TOPK = 1 << 19, 1 << 14


# --- places in what is sorted -------------------------------------------------------------------------------


def _search(x: Any, values: Any, *, right: bool) -> Any:
    """Places of values in sorted x; NotImplemented where NumPy is to find them."""
    if not isinstance(values, np.ndarray) or values.nbytes < config.parallel_nbytes or not values.flags.c_contiguous:
        return NotImplemented
    sorted_ = np.ascontiguousarray(plain(x))
    kinds = {sorted_.dtype.kind, values.dtype.kind}
    known = kinds == {"f"} or (sorted_.dtype == values.dtype and kinds <= {"i", "u"})
    sizes_known = {sorted_.dtype.itemsize, values.dtype.itemsize} <= {1, 4, 8}
    if sorted_.ndim != 1 or not known or not sizes_known or not values.dtype.isnative or not sorted_.dtype.isnative:
        return NotImplemented
    shared = scratch(max(1, sorted_.size), sorted_.dtype, like=values)[: sorted_.size]
    shared[:] = sorted_
    flat = plain(values).reshape(-1)
    result = new_result(values.shape, np.dtype(np.intp))
    step, n_tasks = cut(flat.size)
    run_step("searching.search", [shared, flat, int(right), step, plain(result).reshape(-1)], n_tasks)
    return result


@implements(np.searchsorted)
def _searchsorted(a: Any, v: Any, side: Any = "left", sorter: Any = None) -> Any:
    if sorter is not None or side not in ("left", "right"):
        return NotImplemented
    return _search(a, v, right=side == "right")


@implements(np.digitize)
def _digitize(x: Any, bins: Any, right: Any = False) -> Any:
    edges = plain(bins)
    if edges.ndim != 1 or edges.dtype.kind not in "iuf" or not (edges[1:] >= edges[:-1]).all():
        return NotImplemented
    return _search(edges, x, right=not right)


# --- unique -------------------------------------------------------------------------------------------------


@implements(np.unique)
def _unique(
    ar: Any,
    return_index: Any = False,
    return_inverse: Any = False,
    return_counts: Any = False,
    axis: Any = None,
    *,
    equal_nan: Any = True,
    **other: Any,
) -> Any:
    if not isinstance(ar, np.ndarray) or axis is not None or not equal_nan or not other.get("sorted", True):
        return NotImplemented
    code = code_of(ar.dtype, equal_zeros=True)
    if code is None or ar.nbytes < config.parallel_nbytes or ar.size >= _MOST_ITEMS or not ar.flags.c_contiguous:
        return NotImplemented
    x = plain(ar).reshape(-1)
    step, n_tasks = cut(x.size)
    order = None
    if return_index or return_inverse:
        order = scratch(x.size, np.int64, like=x)
        ordered = order_flat(x, code, order)
    else:
        ordered = scratch(x.size, x.dtype, like=x)
        sort_flat(x, code, ordered)
    marks = scratch(x.size, np.uint8, like=x)
    run_step("searching.mark_changes", [ordered, step, marks], n_tasks)
    places, starts = true_places(marks)
    first = plain(places)
    results: list[Any] = [_as_result(ordered[first] if order is None else x[order[first]])]
    if order is not None:
        if return_index:
            results.append(_as_result(order[first]))
        if return_inverse:
            inverse = new_result(ar.shape, np.dtype(np.intp))
            run_step("searching.scatter_ranks", [marks, starts, order, step, plain(inverse).reshape(-1)], n_tasks)
            results.append(inverse)
    if return_counts:
        results.append(_as_result(np.diff(first, append=x.size)))
    return results[0] if len(results) == 1 else tuple(results)


def _as_result(values: Array) -> SharedArray:
    result = new_result(values.shape, values.dtype)
    plain(result)[...] = values
    return result


# --- the largest --------------------------------------------------------------------------------------------


class TopK(NamedTuple):
    """The items that :func:`topk` found, best first, and where they are."""

    values: SharedArray
    indices: SharedArray


def topk(array: Any, k: int, *, largest: bool = True) -> TopK:
    """The k largest (or smallest) items of a one-dimensional array, and where they are.

    The array is not sorted: up to a k of 16384 one pass keeps what is beyond the k-th best so far; otherwise the k-th
    item is found by counting, then those beyond it are collected.

    Parameters
    ----------
    array : (n,) array
        Numbers. nan counts as larger than all others, as in `np.sort`.
    k : int
        From 0 to n.
    largest : bool
        False: the smallest.

    Returns
    -------
    TopK
        `values` and `indices` of shape (k,), best first; of equal items the earlier one comes first.

    Raises
    ------
    ValueError
        The array is not one-dimensional, or k out of range.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.topk(sa.array([3.0, 9.0, 1.0, 9.0]), 2)
    TopK(values=SharedArray([9., 9.]), indices=SharedArray([1, 3]))
    """
    a = asarray(array)
    x = plain(a)
    if x.ndim != 1:
        raise ValueError(f"topk takes a one-dimensional array; got shape {x.shape}. Use a.ravel(), or rows of it")
    if not 0 <= k <= x.size:
        raise ValueError(f"topk: k must be from 0 to {x.size}, the number of items; got {k}")
    code = code_of(x.dtype, equal_zeros=True)
    by_keys = code is not None and x.nbytes >= config.parallel_nbytes and x.flags.c_contiguous
    if by_keys and code is not None and 0 < k <= min(_MOST_TOPK, x.size):
        step, n_tasks = cut(x.size, max(_TOPK_ITEMS, 32 * k))
        keys, numbers = scratch(n_tasks * k, np.uint64, like=x), scratch(n_tasks * k, np.int64, like=x)
        flip = 0 if largest else -1
        run_step("selection.greatest_keys", [words_of(x), code, flip, k, step, keys, numbers], n_tasks)
        # Of equal keys the earlier item's stands first: tasks follow each other, and each one's items. What stands for
        # an item that a task does not have comes last: there are k items at least.
        there = np.flatnonzero(numbers >= 0)
        found = numbers[there[np.argsort(keys[there], kind="stable")[:k]]]
        return TopK(_as_result(x[found]), _as_result(found))
    candidates = np.arange(x.size)
    if by_keys and 0 < k < x.size:
        limit = items_of_rank(x, [x.size - k if largest else k - 1])[0][0]
        candidates = plain(np.flatnonzero(~(a < limit) if largest else (a <= limit)))
        if largest and limit != limit:
            candidates = plain(np.flatnonzero(np.isnan(a)))
        elif not largest and limit != limit:
            candidates = np.arange(x.size)
    items = x[candidates]
    if largest:  # a stable sort backwards puts the earlier of equals last: so it is run over them backwards
        order = np.argsort(items[::-1], kind="stable")[::-1][:k]
        order = len(items) - 1 - order
    else:
        order = np.argsort(items, kind="stable")[:k]
    return TopK(_as_result(items[order]), _as_result(candidates[order]))
