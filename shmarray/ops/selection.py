"""`np.where`, `take`, `compress`, `extract`, `nonzero`, `putmask` and `clip` of large SharedArrays.

`a[mask]` itself is NumPy's, on one core, as every index: a look at each of them would cost small ones more than large
ones win. `np.compress(mask, a)` and `np.extract(mask, a)` are the same on all cores, and `np.putmask(a, mask, value)`
is `a[mask] = value`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shmarray.array import SharedArray, implements
from shmarray.configuration import config
from shmarray.ops.results import new_result
from shmarray.ops.steps import Array, cut, plain, run_step, scratch

__all__ = ["true_places"]

_TAKE_ITEMS = 1 << 16
_KINDS = "biuf"


def true_places(mask: Array) -> tuple[SharedArray, Array]:
    """Where the items of a flat plain array are not zero, and how many are before each task (see `cut`)."""
    starts, count = _starts(mask)
    places = new_result((count,), np.dtype(np.intp))
    step, n_tasks = cut(mask.size)
    if count:
        target = _reachable(places, mask)
        run_step("selection.nonzero", [mask, step, starts, target], n_tasks)
        if not places.is_shared:
            plain(places)[...] = target
    return places, starts


def _starts(mask: Array) -> tuple[Array, int]:
    step, n_tasks = cut(mask.size)
    starts = scratch(n_tasks, np.int64, like=mask)
    run_step("selection.count_true", [mask, step, starts], n_tasks)
    ends = np.cumsum(starts)
    starts[:] = ends - starts
    return starts, int(ends[-1])


def _reachable(result: SharedArray, like: Array) -> Array:
    """Where workers can write a result: itself, unless it is so small that it is private."""
    return plain(result) if result.is_shared else scratch(result.shape, result.dtype, like=like)


def _is_ours(a: Any) -> bool:
    """Whether a is an array of numbers that steps can walk, and large."""
    return (
        isinstance(a, np.ndarray)
        and a.flags.c_contiguous
        and a.dtype.kind in _KINDS
        and a.dtype != np.float16
        and a.dtype.itemsize <= 8
        and a.dtype.isnative
        and a.nbytes >= config.parallel_nbytes
    )


def _is_mask_of(mask: Any, a: Array) -> bool:
    return isinstance(mask, np.ndarray) and mask.dtype == bool and mask.flags.c_contiguous and mask.size == a.size


@implements(np.nonzero)
def _nonzero(a: Any) -> Any:
    if not _is_ours(a) or a.ndim == 0:
        return NotImplemented
    places = true_places(plain(a).reshape(-1))[0]
    if a.ndim == 1:
        return (places,)
    by_axis = np.unravel_index(plain(places), a.shape)
    results = tuple(new_result(part.shape, np.dtype(np.intp)) for part in by_axis)
    for result, part in zip(results, by_axis, strict=True):
        plain(result)[...] = part
    return results


@implements(np.flatnonzero)
def _flatnonzero(a: Any) -> Any:
    return true_places(plain(a).reshape(-1))[0] if _is_ours(a) else NotImplemented


def _compressed(mask: Array, x: Array) -> Any:
    starts, count = _starts(mask)
    result = new_result((count,), x.dtype)
    step, n_tasks = cut(mask.size)
    if count:
        target = _reachable(result, x)
        run_step("selection.compress", [mask, x, step, starts, target], n_tasks)
        if not result.is_shared:
            plain(result)[...] = target
    return result


@implements(np.compress)
def _compress(condition: Any, a: Any, axis: Any = None, out: Any = None) -> Any:
    if out is not None or not _is_ours(a) or not _is_mask_of(condition, a) or condition.ndim != 1:
        return NotImplemented
    if axis is not None and (a.ndim != 1 or axis not in (0, -1)):
        return NotImplemented
    return _compressed(plain(condition), plain(a).reshape(-1))


@implements(np.extract)
def _extract(condition: Any, arr: Any) -> Any:
    if not _is_ours(arr) or not _is_mask_of(condition, arr):
        return NotImplemented
    return _compressed(plain(condition).reshape(-1), plain(arr).reshape(-1))


@implements(np.take)
def _take(a: Any, indices: Any, axis: Any = None, out: Any = None, mode: Any = "raise") -> Any:
    if out is not None or mode != "raise" or not _is_ours(indices) or indices.dtype != np.int64:
        return NotImplemented
    if not isinstance(a, np.ndarray) or not a.flags.c_contiguous or a.dtype.kind not in _KINDS or not a.size:
        return NotImplemented
    if a.dtype == np.float16 or a.dtype.itemsize > 8 or not a.dtype.isnative:
        return NotImplemented
    if axis is not None and (a.ndim != 1 or axis not in (0, -1)):
        return NotImplemented
    if np.min(indices) < -a.size or np.max(indices) >= a.size:
        return NotImplemented  # NumPy says which
    result = new_result(indices.shape, a.dtype)
    step, n_tasks = cut(indices.size, _TAKE_ITEMS)
    numbers, target = plain(indices).reshape(-1), plain(result).reshape(-1)
    run_step("selection.take_flat", [plain(a).reshape(-1), numbers, step, target], n_tasks)
    return result


@implements(np.where)
def _where(condition: Any, *branches: Any) -> Any:
    if len(branches) == 0:
        return _nonzero(condition)
    if len(branches) != 2 or not isinstance(condition, np.ndarray) or condition.dtype != bool:
        return NotImplemented
    if not condition.flags.c_contiguous or not condition.ndim:
        return NotImplemented
    if not all(type(v) in (int, float, bool) or isinstance(v, np.ndarray | np.generic) for v in branches):
        return NotImplemented
    dtype = np.result_type(*branches)
    n = condition.size
    if n * dtype.itemsize < config.parallel_nbytes or dtype.kind not in _KINDS or dtype == np.float16:
        return NotImplemented
    if dtype.itemsize > 8:
        return NotImplemented
    operands = []
    for value in branches:
        if isinstance(value, np.ndarray) and value.ndim:
            same = value.shape == condition.shape and value.dtype == dtype and value.flags.c_contiguous
            if not same or not dtype.isnative:
                return NotImplemented
            operands.append(plain(value).reshape(-1))
        else:
            one = scratch(1, dtype, like=plain(condition))
            one[0] = value
            operands.append(np.broadcast_to(one, (n,)))
    result = new_result(condition.shape, dtype)
    step, n_tasks = cut(n)
    mask = plain(condition).reshape(-1)
    run_step("selection.where_items", [mask, *operands, step, plain(result).reshape(-1)], n_tasks)
    return result


@implements(np.putmask)
def _putmask(a: Any, mask: Any, values: Any) -> Any:
    if not _is_ours(a) or not _is_mask_of(mask, a) or not a.flags.writeable or mask.shape != a.shape:
        return NotImplemented
    if type(values) not in (int, float, bool) or np.shares_memory(a, mask):
        return NotImplemented
    if not np.can_cast(np.min_scalar_type(values) if type(values) is int else type(values), a.dtype, "same_kind"):
        return NotImplemented
    x = plain(a).reshape(-1)
    value = scratch(1, a.dtype, like=x)
    value[0] = values
    step, n_tasks = cut(x.size)
    run_step("selection.fill_where", [plain(mask).reshape(-1), value, step, x], n_tasks)
    return None


@implements(np.clip)
def _clip(a: Any, a_min: Any = np._NoValue, a_max: Any = np._NoValue, out: Any = None, **kwargs: Any) -> Any:
    """The method ends in a ufunc, which the engine runs."""
    low, high = (kwargs.pop(key, given) for key, given in (("min", a_min), ("max", a_max)))
    if kwargs or not isinstance(a, SharedArray) or out is not None:
        return NotImplemented
    low, high = (None if bound is np._NoValue else bound for bound in (low, high))
    method: Any = np.ndarray.clip
    return NotImplemented if low is None and high is None else method(a, low, high)
