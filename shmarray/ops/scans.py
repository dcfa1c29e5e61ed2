"""`np.cumsum`, `cumprod` and `diff` of large SharedArrays.

Running sums go over a fixed grid of blocks twice, a few blocks at a time, so that the second reading comes from the
cache. Integers are NumPy's exactly. Floats are added in another order than NumPy's, which is one after another from the
first item to the last: here only within a block, in float64, and blocks by their accurate sums; so every value is at
least as near to the true one, and the same for any number of workers. Running products of floats are left to NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from shmarray.array import SharedArray, implements
from shmarray.ops.results import new_result
from shmarray.ops.steps import Array, cut, plain, run_step, scratch

__all__: list[str] = []

#: Items of a block. Part of what a result's bits depend on: changing it changes results.
_BLOCK_ITEMS = 1 << 13

#: Blocks of a task, and those that are summed up before they are gone through again: 8 MiB of float64.
_TASK_BLOCKS, _GROUP_BLOCKS = 4, 128

_ONE_PART = 1 << 17

#: Columns of a task: a row of them, and their totals, stay in the first-level cache.
_COLUMNS = 512


def _running(what: str, join: np.ufunc, start: float) -> Callable[..., Any]:
    def version(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        if not isinstance(a, np.ndarray) or a.size <= _ONE_PART or not a.dtype.isnative or out is not None:
            return NotImplemented
        if a.dtype.kind not in "biuf" or a.dtype.itemsize not in (1, 2, 4, 8) or a.dtype == np.float16:
            return NotImplemented
        if what == "product" and a.dtype.kind == "f":
            return NotImplemented  # what over- or underflows on the way depends on the order, and on the precision
        if not a.flags.c_contiguous or not (axis is None or isinstance(axis, int)):
            return NotImplemented
        result_dtype = join.accumulate(np.empty(0, a.dtype)).dtype
        if dtype is not None and np.dtype(dtype) != result_dtype:
            return NotImplemented
        x = plain(a) if axis is not None else plain(a).reshape(-1)
        axis = 0 if axis is None else normalize_axis_index(axis, x.ndim)
        result = new_result(x.shape, result_dtype)
        target = plain(result)
        kind = np.dtype({"f": "f8", "u": "u8"}.get(result_dtype.kind, "i8"))
        if x.ndim == 1:
            _flat(x, target, what, join, kind.type(start))
        else:
            _along(x, target, what, axis, kind, lambda row, to: _flat(row, to, what, join, kind.type(start)))
        return result

    return version


def _flat(x: Array, target: Array, what: str, join: np.ufunc, carried: Any) -> None:
    n_blocks = -(-x.size // _BLOCK_ITEMS)
    totals, before = (scratch(n_blocks, carried.dtype, like=x) for _ in range(2))
    for first in range(0, n_blocks, _GROUP_BLOCKS):
        blocks = slice(first, min(n_blocks, first + _GROUP_BLOCKS))
        items = slice(first * _BLOCK_ITEMS, blocks.stop * _BLOCK_ITEMS)
        n_tasks = -(-(blocks.stop - first) // _TASK_BLOCKS)
        run_step(f"scans.{what}_of_blocks", [x[items], _BLOCK_ITEMS, totals[blocks]], n_tasks)
        with np.errstate(all="ignore"):
            for block in range(first, blocks.stop):
                before[block] = carried
                carried = join(carried, totals[block])
        run_step(f"scans.running_{what}", [x[items], _BLOCK_ITEMS, before[blocks], target[items]], n_tasks)


def _along(
    x: Array, target: Array, what: str, axis: int, kind: np.dtype[Any], long_row: Callable[[Array, Array], None]
) -> None:
    n, width = x.shape[axis], math.prod(x.shape[axis + 1 :])
    if width == 1 and n > _ONE_PART:
        for row, to in zip(x.reshape(-1, n), target.reshape(-1, n), strict=True):
            long_row(row, to)
        return
    like = scratch(1, kind, like=x)
    flat, to = x.reshape(-1), target.reshape(-1)
    if width == 1:
        step, n_tasks = cut(x.size // n, max(1, _ONE_PART // n))
        run_step(f"scans.running_{what}_rows", [flat, n, step, like, to], n_tasks)
    else:
        n_tasks = x.size // (n * width) * -(-width // _COLUMNS)
        run_step(f"scans.running_{what}_columns", [flat, n, width, _COLUMNS, like, to], n_tasks)


# From -0.0 on: 0.0 + -0.0 would lose the sign.
implements(np.cumsum)(_running("sum", np.add, -0.0))
implements(np.cumprod)(_running("product", np.multiply, 1))


@implements(np.diff)
def _diff(a: Any, n: Any = 1, axis: Any = -1, prepend: Any = np._NoValue, append: Any = np._NoValue) -> Any:
    """Differences of slices: a ufunc of views, which the engine runs."""
    if not isinstance(a, SharedArray) or prepend is not np._NoValue or append is not np._NoValue:
        return NotImplemented
    if not isinstance(n, int) or n < 1 or not isinstance(axis, int) or not -a.ndim <= axis < a.ndim:
        return NotImplemented
    subtract = np.not_equal if a.dtype == bool else np.subtract
    before: Array = a
    for _ in range(n):
        moved = np.moveaxis(before, axis, 0)
        before = np.moveaxis(subtract(moved[1:], moved[:-1]), 0, axis)
    return before
