"""`np.histogram` and `bincount` of large SharedArrays, and `group_by`.

Tasks have tables of their own, which are added up in order; how many tasks there are depends on the number of items and
of bins alone. So counts are exact, and sums have the same bits for any number of workers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shmarray.array import SharedArray, asarray, implements
from shmarray.configuration import config
from shmarray.ops.results import new_result
from shmarray.ops.steps import Array, plain, run_step, scratch

__all__ = ["Groups", "group_by"]

#: Entries of all tables together, and tasks, at most. Part of what the bits of sums depend on.
_ENTRIES, _TASKS = 1 << 22, 64

#: Bins up to which rounding puts an item no further than one beside its bin.
_MOST_BINS = {4: 1 << 12, 8: 1 << 20}

_KEYS = "i1", "i2", "i4", "i8", "u1", "u2", "u4"


def _tables(n: int, n_bins: int) -> tuple[int, int]:
    """Items of a task, and tasks."""
    n_tasks = max(1, min(_TASKS, _ENTRIES // max(1, n_bins), -(-n // (1 << 17))))
    step = -(-n // n_tasks)
    return step, -(-n // step)


def _is_ours(a: Any, kinds: str) -> bool:
    return (
        isinstance(a, np.ndarray)
        and a.dtype.kind in kinds
        and a.dtype.isnative
        and a.flags.c_contiguous
        and a.nbytes >= config.parallel_nbytes
    )


@implements(np.histogram)
def _histogram(a: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    if not _is_ours(a, "f") or a.dtype.itemsize not in _MOST_BINS or weights is not None:
        return NotImplemented
    if not isinstance(bins, int | np.integer) or isinstance(bins, bool) or not 0 < bins <= _MOST_BINS[a.dtype.itemsize]:
        return NotImplemented
    ends = np.array([np.min(a), np.max(a)], a.dtype) if range is None else np.zeros(1, a.dtype)
    if not np.isfinite(ends).all():
        return NotImplemented  # NumPy refuses
    edges = np.histogram_bin_edges(ends, bins, range)
    width = float(edges[-1]) - float(edges[0])
    if edges.dtype.kind != "f" or not 0 < width < np.inf or not (edges[1:] > edges[:-1]).all():
        return NotImplemented
    x = plain(a).reshape(-1)
    shared = scratch(len(edges), edges.dtype, like=x)
    shared[:] = edges
    step, n_tasks = _tables(x.size, int(bins))
    counts = scratch((n_tasks, int(bins) + 1), np.int64, like=x)
    # How far from an edge, in widths of a bin, the roundings of edges and of an item's place can matter.
    scale = bins / width
    slack = 8 * float(np.finfo(edges.dtype).eps) * (float(np.abs(edges).max()) * scale + bins)
    run_step("histograms.count_uniform", [x, shared, scale, slack, step, counts], n_tasks)
    total = counts[:, :-1].sum(axis=0)
    if density:
        return _result(total / np.array(np.diff(edges), float) / total.sum()), _result(edges)
    return _result(total), _result(edges)


@implements(np.bincount)
def _bincount(x: Any, /, weights: Any = None, minlength: Any = 0) -> Any:
    if not _is_ours(x, "iu") or x.dtype.str[1:] not in _KEYS or x.ndim != 1 or not isinstance(minlength, int):
        return NotImplemented
    low, high = int(np.min(x)), int(np.max(x))
    n_bins = max(high + 1, minlength)
    if low < 0 or minlength < 0 or n_bins > 8 * x.size:
        return NotImplemented
    keys = plain(x)
    if weights is None:
        return _result(_counts(keys, 0, n_bins))
    if not isinstance(weights, np.ndarray) or weights.dtype != np.float64 or weights.shape != x.shape:
        return NotImplemented
    if not weights.flags.c_contiguous:
        return NotImplemented
    return _result(_sums(keys, 0, n_bins, plain(weights)))


def _counts(keys: Array, low: int, n_bins: int) -> Array:
    step, n_tasks = _tables(keys.size, n_bins)
    counts = scratch((n_tasks, n_bins), np.int64, like=keys)
    run_step("histograms.count_by_key", [keys, low, step, counts], n_tasks)
    total: Array = counts.sum(axis=0)
    return total


def _sums(keys: Array, low: int, n_bins: int, values: Array) -> Array:
    step, n_tasks = _tables(keys.size, n_bins)
    sums = scratch((n_tasks, n_bins), _sum_dtype(values), like=keys)
    run_step("histograms.add_by_key", [keys, low, values, step, sums], n_tasks)
    total: Array = sums.sum(axis=0)
    return total


def _sums_and_counts(keys: Array, low: int, n_bins: int, values: Array) -> tuple[Array, Array]:
    step, n_tasks = _tables(keys.size, n_bins)
    sums = scratch((n_tasks, n_bins), _sum_dtype(values), like=keys)
    counts = scratch((n_tasks, n_bins), np.int64, like=keys)
    run_step("histograms.add_and_count_by_key", [keys, low, values, step, sums, counts], n_tasks)
    return sums.sum(axis=0), counts.sum(axis=0)


def _sum_dtype(values: Array) -> type[np.generic]:
    if values.dtype.kind == "f":
        return np.float64
    return np.uint64 if values.dtype.kind == "u" else np.int64


def _extremes(keys: Array, low: int, n_bins: int, values: Array, how: str) -> Array:
    step, n_tasks = _tables(keys.size, n_bins)
    found = scratch((n_tasks, n_bins), values.dtype, like=keys)
    seen = scratch((n_tasks, n_bins), np.uint8, like=keys)
    loop = "smallest_by_key" if how == "min" else "largest_by_key"
    run_step(f"histograms.{loop}", [keys, low, values, step, found, seen], n_tasks)
    join = np.minimum if how == "min" else np.maximum
    best: Array = found[0].copy()
    known = seen[0] != 0
    for task in range(1, n_tasks):
        here = seen[task] != 0
        with np.errstate(invalid="ignore"):
            best = np.where(here, np.where(known, join(best, found[task]), found[task]), best)
        known |= here
    return best


def _result(values: Array) -> SharedArray:
    result = new_result(values.shape, values.dtype)
    plain(result)[...] = values
    return result


# --- groups -------------------------------------------------------------------------------------------------


class Groups(NamedTuple):
    """What :func:`group_by` found: the keys there are, in order, and a value for each."""

    keys: SharedArray
    values: SharedArray


_HOW = "count", "sum", "mean", "min", "max"


def group_by(keys: Any, values: Any = None, how: str = "sum") -> Groups:
    """Join the values that have the same integer key.

    Parameters
    ----------
    keys : (n,) array of integers
        Negative ones too. Best in a range that is not much larger than n; otherwise they are sorted first.
    values : (n,) array of numbers, optional
        Only "count" does without.
    how : {"sum", "mean", "min", "max", "count"}
        Sums of floats are float64, of integers int64 or uint64; means are float64. nan in a group makes its sum, mean,
        min and max nan.

    Returns
    -------
    Groups
        `keys`: the different keys, in order; `values`: one for each.

    Raises
    ------
    TypeError, ValueError
        Keys that are no integers, values of another length, or an unknown `how`.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.group_by(sa.array([7, 3, 7]), sa.array([1.0, 2.0, 4.0]))
    Groups(keys=SharedArray([3, 7]), values=SharedArray([2., 5.]))
    """
    if how not in _HOW:
        raise ValueError(f"group_by: how must be one of {', '.join(_HOW)}; got {how!r}")
    shared_keys: Any = asarray(keys)
    if shared_keys.dtype.kind not in "iu" or shared_keys.ndim != 1:
        raise TypeError(
            f"group_by takes a one-dimensional array of integers as keys; got {shared_keys.dtype} of shape "
            f"{shared_keys.shape}"
        )
    if values is None and how != "count":
        raise ValueError(f"group_by: how={how!r} joins values; give them, or use how='count'")
    data = None if values is None else np.ascontiguousarray(plain(asarray(values)))
    if data is not None and data.shape != shared_keys.shape:
        raise ValueError(f"group_by: there are {shared_keys.size} keys and values of shape {data.shape}")
    if data is not None and (data.dtype.kind not in "biuf" or data.dtype == np.float16):
        raise TypeError(f"group_by joins numbers; got values of dtype {data.dtype}")
    if not shared_keys.size:
        kind = np.dtype(np.int64 if data is None or how == "count" else np.float64 if how == "mean" else data.dtype)
        return Groups(_result(plain(shared_keys)), _result(np.empty(0, kind)))
    low, high = int(np.min(shared_keys)), int(np.max(shared_keys))
    n_bins = high - low + 1
    names: Array | None = None
    dtype = shared_keys.dtype
    if n_bins > max(1 << 16, shared_keys.size) or high >= 1 << 63:
        unique, inverse = np.unique(shared_keys, return_inverse=True)
        names, shared_keys, low, n_bins = plain(unique), inverse, 0, len(unique)
    numbers = np.ascontiguousarray(plain(shared_keys))
    if numbers.dtype == np.uint64:
        numbers = numbers.view(np.int64)  # all are below 2**63 here
    if data is not None and how in ("sum", "mean"):
        joined, counts = _sums_and_counts(numbers, low, n_bins, data)
    else:
        joined = counts = _counts(numbers, low, n_bins)
        if data is not None and how != "count":
            joined = _extremes(numbers, low, n_bins, data, how)
    there = np.flatnonzero(counts)
    found = joined[there] / counts[there] if how == "mean" else joined[there]
    names = (there + low).astype(dtype) if names is None else names[there]
    return Groups(_result(names), _result(found))
