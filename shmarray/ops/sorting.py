"""`np.sort`, `argsort`, `partition` and `argpartition` of large SharedArrays, on all cores.

Bits of items are sorted, by counting (`shmarray.kernels.sorting`): 32- and 64-bit integers and floats. All of it is
stable, so `kind` and `stable` change nothing but one thing: an unstable sort of floats puts -0.0 before 0.0 (a stable
one leaves equal zeros in their order) and gives every nan the same bits. Other dtypes, `order=` and small arrays fall
through to NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from shmarray.array import implements
from shmarray.array.transfer import copy_parallel
from shmarray.configuration import config
from shmarray.ops.cells import FLOAT_EQUAL_ZEROS, Cells, code_of, signed, words_of
from shmarray.ops.results import new_result
from shmarray.ops.steps import Array, plain, run_step, scratch

__all__ = ["order_flat", "sort_flat"]

#: Items that buckets are made of: with its copies such a bucket fits the second-level cache.
_BUCKET_ITEMS = 1 << 15

#: Rows up to this length are sorted each by one task.
_ROW_ITEMS = 1 << 16

#: Numbers of items are kept in 32 bits while they are sorted.
_MOST_ITEMS = 1 << 32


class _Buckets:
    """Neighbouring cells joined, and where each task's part of each bucket begins."""

    def __init__(self, cells: Cells) -> None:
        of_cell = cells.counts.sum(axis=0, dtype=np.int64)
        before = np.cumsum(of_cell) - of_cell
        # Cells of one bucket begin in the same stretch of items; a cell of many items is a bucket of its own.
        stretch = before // _BUCKET_ITEMS
        bucket_of = np.concatenate([[0], np.cumsum(stretch[1:] != stretch[:-1])])
        first_cells = np.flatnonzero(np.concatenate([[True], bucket_of[1:] != bucket_of[:-1]]))
        counts = np.add.reduceat(cells.counts, first_cells, axis=1, dtype=np.int64)
        self.count = len(first_cells)
        self.bucket_of = scratch(len(of_cell), np.int32, like=cells.words)
        self.bucket_of[:] = bucket_of
        self.edges = scratch(self.count + 1, np.int64, like=cells.words)
        self.edges[:-1], self.edges[-1] = before[first_cells], cells.words.size
        self.starts = scratch(counts.shape, np.int64, like=cells.words)
        self.starts[:] = self.edges[:-1] + np.cumsum(counts, axis=0) - counts


def sort_flat(array: Array, code: int, out: Array, ranks: Sequence[int] | None = None) -> None:
    """Sort a flat array into another, which may be the same memory.

    With `ranks`, only so far that the items at these places are right, smaller ones before them and larger ones behind.
    """
    cells = Cells.of(array, code)
    buckets = _Buckets(cells)
    wanted = scratch(buckets.count, np.uint8, like=array)
    wanted[:] = ranks is None
    if ranks is not None:
        wanted[np.searchsorted(buckets.edges, np.asarray(ranks), side="right") - 1] = 1
    keys = scratch(array.size, cells.words.dtype, like=array)
    run_step(
        "sorting.scatter_keys",
        [cells.words, code, signed(cells.low), cells.shift, cells.step, buckets.bucket_of, buckets.starts, keys],
        cells.n_tasks,
    )
    run_step("sorting.sort_buckets", [keys, buckets.edges, wanted, code, words_of(out)], buckets.count)


def order_flat(array: Array, code: int, order: Array) -> Array:
    """Put the stable order of a flat array's items into `order` (int64), and give their keys in that order."""
    cells = Cells.of(array, code)
    buckets = _Buckets(cells)
    keys = scratch(array.size, cells.words.dtype, like=array)
    origins = scratch(array.size, np.uint32, like=array)
    places = [buckets.bucket_of, buckets.starts, keys, origins]
    run_step(
        "sorting.scatter_pairs",
        [cells.words, code, signed(cells.low), cells.shift, cells.step, *places],
        cells.n_tasks,
    )
    sorted_keys = scratch(array.size, cells.words.dtype, like=array)
    run_step("sorting.order_buckets", [keys, origins, buckets.edges, order, sorted_keys], buckets.count)
    return sorted_keys


def _is_ours(a: Any, code: int | None) -> bool:
    return (
        isinstance(a, np.ndarray)
        and code is not None
        and a.nbytes >= config.parallel_nbytes
        and 0 < a.size < _MOST_ITEMS
    )


def _stable(kind: Any, stable: Any) -> bool:
    return bool(stable) or (isinstance(kind, str) and kind.lower() in ("stable", "mergesort"))


def _is_known(kind: Any, order: Any, stable: Any) -> bool:
    """Whether keywords are such as NumPy takes; its own errors are left to it."""
    kinds = (None, "quicksort", "heapsort", "mergesort", "stable")
    return order is None and kind in kinds and (stable is None or (kind is None and isinstance(stable, bool)))


def _rows(a: Array, axis: int) -> Array:
    """The array with `axis` last, as C-contiguous rows: itself, or a copy in shared memory."""
    moved = np.moveaxis(a, axis, -1)
    if not moved.flags.c_contiguous:
        copy = scratch(moved.shape, a.dtype, like=a)
        copy_parallel(copy, moved)
        moved = copy
    return moved.reshape(-1, moved.shape[-1])


def _steps(n_rows: int, n: int) -> tuple[int, int]:
    """Rows of a task, and tasks."""
    step = max(1, (1 << 17) // n)
    return step, -(-n_rows // step)


def _sort_rows(rows: Array, code: int, out: Array, ranks: Sequence[int] | None = None) -> None:
    n_rows, n = rows.shape
    if n > _ROW_ITEMS:
        for row, target in zip(rows, out, strict=True):
            sort_flat(row, code, target, ranks)
        return
    step, n_tasks = _steps(n_rows, n)
    in_place = rows.__array_interface__["data"][0] == out.__array_interface__["data"][0]
    words = [words_of(array).reshape(-1) for array in (rows, out)]
    run_step("sorting.sort_rows", [words[0], code, n_rows, step, words[1]], n_tasks, in_place=in_place)


def _sorted(a: Any, axis: Any, ranks: Sequence[int] | None = None) -> Any:
    """A sorted copy; None where NumPy is to make it."""
    data = plain(a)
    code = code_of(data.dtype)
    if axis is None:
        data, axis = data.reshape(-1), 0
    if code is None or data.ndim == 0:
        return NotImplemented
    axis = normalize_axis_index(axis, data.ndim)
    rows = _rows(data, axis)
    result = new_result(data.shape, data.dtype)
    target = plain(result)
    if axis == data.ndim - 1:
        _sort_rows(rows, code, target.reshape(rows.shape), ranks)
        return result
    moved = np.moveaxis(target, axis, -1)
    done = scratch(rows.shape, data.dtype, like=data)
    _sort_rows(rows, code, done, ranks)
    copy_parallel(moved, done.reshape(moved.shape))
    return result


@implements(np.sort)
def _sort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    if not _is_ours(a, code_of(a.dtype) if isinstance(a, np.ndarray) else None) or not _is_known(kind, order, stable):
        return NotImplemented
    if _stable(kind, stable) and a.dtype.kind == "f":
        if axis is not None and a.ndim > 1:
            return NotImplemented
        flat = plain(a).reshape(-1)
        order_ = scratch(flat.size, np.int64, like=flat)
        order_flat(flat, FLOAT_EQUAL_ZEROS, order_)
        result = new_result(flat.shape, flat.dtype)
        run_step("selection.take_flat", [flat, order_, _TAKE_ITEMS, plain(result)], -(-flat.size // _TAKE_ITEMS))
        return result
    return _sorted(a, axis)


_TAKE_ITEMS = 1 << 16


@implements(np.ndarray.sort)
def _sort_in_place(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    data = plain(a)
    code = code_of(data.dtype)
    if not _is_ours(a, code) or not _is_known(kind, order, stable) or not data.flags.writeable or code is None:
        return NotImplemented
    if not isinstance(axis, int) or not -data.ndim <= axis < data.ndim:
        return NotImplemented
    if (_stable(kind, stable) and data.dtype.kind == "f") or not data.flags.c_contiguous:
        return NotImplemented
    if axis % data.ndim == data.ndim - 1:
        rows = data.reshape(-1, data.shape[-1])
        _sort_rows(rows, code, rows)
    else:
        copy_parallel(data, plain(_sorted(a, axis)))
    return None


@implements(np.argsort)
def _argsort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    code = code_of(a.dtype, equal_zeros=True) if isinstance(a, np.ndarray) else None
    if not _is_ours(a, code) or code is None or not _is_known(kind, order, stable):
        return NotImplemented
    data = plain(a)
    if axis is None:
        data, axis = data.reshape(-1), 0
    axis = normalize_axis_index(axis, data.ndim)
    rows = _rows(data, axis)
    result = new_result(data.shape, np.dtype(np.intp))
    is_last = axis == data.ndim - 1
    done = plain(result).reshape(rows.shape) if is_last else scratch(rows.shape, np.intp, like=data)
    if rows.shape[1] > _ROW_ITEMS:
        for row, target in zip(rows, done, strict=True):
            order_flat(row, code, target)
    else:
        step, n_tasks = _steps(*rows.shape)
        run_step("sorting.order_rows", [words_of(rows).reshape(-1), code, len(rows), step, done.reshape(-1)], n_tasks)
    if not is_last:
        moved = np.moveaxis(plain(result), axis, -1)
        copy_parallel(moved, done.reshape(moved.shape))
    return result


# --- partition: sorting where it matters --------------------------------------------------------------------


def _ranks(kth: Any, n: int) -> list[int] | None:
    """Places as NumPy takes them; None where it would refuse."""
    try:
        places = np.asarray(kth)
    except ValueError:
        return None
    if places.dtype.kind not in "iu" or places.ndim > 1:
        return None
    ranks = [int(k) for k in np.atleast_1d(places)]
    return [k % n for k in ranks] if all(-n <= k < n for k in ranks) else None


@implements(np.partition)
def _partition(a: Any, kth: Any, axis: Any = -1, kind: Any = "introselect", order: Any = None) -> Any:
    if not isinstance(a, np.ndarray) or not _is_ours(a, code_of(a.dtype)) or kind != "introselect" or order is not None:
        return NotImplemented
    n = a.size if axis is None else a.shape[normalize_axis_index(axis, a.ndim)]
    ranks = _ranks(kth, n)
    return NotImplemented if ranks is None else _sorted(a, axis, ranks)


@implements(np.ndarray.partition)
def _partition_in_place(a: Any, kth: Any, axis: Any = -1, kind: Any = "introselect", order: Any = None) -> Any:
    data = plain(a)
    code = code_of(data.dtype)
    if not _is_ours(a, code) or code is None or data.ndim != 1 or axis not in (0, -1):
        return NotImplemented
    if kind != "introselect" or order is not None or not data.flags.writeable or not data.flags.c_contiguous:
        return NotImplemented
    ranks = _ranks(kth, data.size)
    if ranks is None:
        return NotImplemented
    sort_flat(data, code, data, ranks)
    return None


@implements(np.argpartition)
def _argpartition(a: Any, kth: Any, axis: Any = -1, kind: Any = "introselect", order: Any = None) -> Any:
    if kind != "introselect" or order is not None or not isinstance(a, np.ndarray):
        return NotImplemented
    n = a.size if axis is None else a.shape[normalize_axis_index(axis, a.ndim)]
    return NotImplemented if _ranks(kth, n) is None else _argsort(a, axis)
