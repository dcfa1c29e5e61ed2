"""`a[mask]`, `a[mask] = x`, `np.where`, `take`, `put`, `compress`, `extract`, `nonzero`, `putmask` and `clip` of large
SharedArrays.

Masks have the array's shape; what selects by whole rows, and every other index, is NumPy's.
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

#: Tasks of `put`, each of which reads all numbers: no more than that still pays.
_PUT_TASKS = 4
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
    """How many items of a mask are true before each task, and before the end."""
    step, n_tasks = cut(mask.size)
    starts = scratch(n_tasks + 1, np.int64, like=mask)
    run_step("selection.count_true", [mask, step, starts], n_tasks)
    starts[-1] = 0
    starts[1:] = np.cumsum(starts[:-1])
    starts[0] = 0
    return starts, int(starts[-1])


def _reachable(result: SharedArray, like: Array) -> Array:
    """Where workers can write a result: itself, unless it is so small that it is private."""
    return plain(result) if result.is_shared else scratch(result.shape, result.dtype, like=like)


def _as_result(values: Array) -> SharedArray:
    result = new_result(values.shape, values.dtype)
    plain(result)[...] = values
    return result


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
    if places.nbytes < config.parallel_nbytes or not places.is_shared:
        return tuple(_as_result(part) for part in np.unravel_index(plain(places), a.shape))
    step, n_tasks = cut(places.size)
    results, rows = [places], plain(places)
    for extent in a.shape[:0:-1]:
        within, before = new_result(places.shape, places.dtype), new_result(places.shape, places.dtype)
        run_step("selection.split_numbers", [rows, extent, step, plain(before), plain(within)], n_tasks)
        rows = plain(before)
        results[0:1] = [before, within]
    return tuple(results)


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
    _fill_where(plain(a), plain(mask), values)
    return None


def _fill_where(a: Array, mask: Array, value: Any) -> None:
    one = np.empty(1, a.dtype)
    one[np.array([True])] = value  # as NumPy converts, refuses and warns
    shared = scratch(1, a.dtype, like=a)
    shared[:] = one
    step, n_tasks = cut(a.size)
    run_step("selection.fill_where", [mask.reshape(-1), shared, step, a.reshape(-1)], n_tasks)


@implements(np.put)
def _put(a: Any, ind: Any, v: Any, mode: Any = "raise") -> Any:
    if not _is_ours(a) or not a.flags.writeable or mode != "raise":
        return NotImplemented
    if not _is_ours(ind) or ind.dtype != np.int64 or np.min(ind) < -a.size or np.max(ind) >= a.size:
        return NotImplemented  # NumPy says which
    x, numbers, given = plain(a), plain(ind), np.asarray(plain(v))
    if not given.size or not np.can_cast(given.dtype, a.dtype, "same_kind"):
        return NotImplemented
    if np.may_share_memory(x, numbers) or np.may_share_memory(x, given):
        return NotImplemented
    values = given.reshape(-1)
    if values.dtype != a.dtype or not _is_shared(v):
        values = scratch(given.size, a.dtype, like=numbers)
        values[:] = given.reshape(-1)
    span = -(-x.size // _PUT_TASKS)
    run_step("selection.put", [numbers.reshape(-1), values, span, x.reshape(-1)], _PUT_TASKS)
    return None


def _is_shared(value: Any) -> bool:
    return isinstance(value, SharedArray) and value.is_shared and value.flags.c_contiguous


# --- by mask, in brackets -----------------------------------------------------------------------------------


@implements(np.ndarray.__getitem__)
def _get_by_mask(a: Any, mask: Any) -> Any:
    if not _is_ours(a) or not _is_mask_of(mask, a) or mask.shape != a.shape:
        return NotImplemented
    return _compressed(_reachable_mask(mask), plain(a).reshape(-1))


def _reachable_mask(mask: Array) -> Array:
    """A flat mask where workers see it: an eighth, at most, of what it selects from is worth a copy."""
    flat = plain(mask).reshape(-1)
    if not _is_shared(mask):
        flat = scratch(mask.size, bool, like=flat)
        flat[:] = plain(mask).reshape(-1)
    return flat


@implements(np.ndarray.__setitem__)
def _set_by_mask(a: Any, mask: Any, value: Any) -> Any:
    if not _is_ours(a) or not _is_mask_of(mask, a) or mask.shape != a.shape or not a.flags.writeable:
        return NotImplemented
    x = plain(a)
    if np.may_share_memory(x, mask):
        return NotImplemented
    if isinstance(value, int | float | np.generic):
        _fill_where(x, _reachable_mask(mask), value)
        return None
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype != a.dtype or not value.flags.c_contiguous:
        return NotImplemented
    flat = _reachable_mask(mask)
    starts, count = _starts(flat)
    if value.size != count or np.may_share_memory(x, value):
        return NotImplemented  # among them what NumPy repeats, and what it refuses
    values = plain(value)
    if not _is_shared(value):
        values = scratch(value.size, value.dtype, like=flat)
        values[:] = plain(value)
    step, n_tasks = cut(flat.size)
    run_step("selection.fill_from", [flat, values, step, starts, x.reshape(-1)], n_tasks)
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
