"""`np.cumsum`, `cumprod` and `diff` of large SharedArrays.

Running sums go over a fixed grid of blocks twice, a few blocks at a time, so that the second reading comes from the
cache. Integers are NumPy's exactly. Floats are added in another order than NumPy's, which is one after another from the
first item to the last: here only within a block, in float64, and blocks by their accurate sums; so every value is at
least as near to the true one, and the same for any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shmarray.array import SharedArray, implements
from shmarray.ops.results import new_result
from shmarray.ops.steps import Array, plain, run_step, scratch

__all__: list[str] = []

#: Items of a block. Part of what a result's bits depend on: changing it changes results.
_BLOCK_ITEMS = 1 << 15

#: Blocks that are summed up before they are gone through again: 8 MiB of float64.
_GROUP_BLOCKS = 32

_ONE_PART = 1 << 17


def _running(total_loop: str, running_loop: str, join: np.ufunc, start: float) -> Callable[..., Any]:
    def version(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        if not isinstance(a, np.ndarray) or a.size <= _ONE_PART or not a.dtype.isnative or out is not None:
            return NotImplemented
        if (axis is not None and (a.ndim != 1 or axis not in (0, -1))) or not a.flags.c_contiguous:
            return NotImplemented
        if a.dtype.kind not in "biuf" or a.dtype.itemsize not in (1, 2, 4, 8) or a.dtype == np.float16:
            return NotImplemented
        result_dtype = join.accumulate(np.empty(0, a.dtype)).dtype
        if dtype is not None and np.dtype(dtype) != result_dtype:
            return NotImplemented
        kind = {"f": "f8", "u": "u8"}.get(result_dtype.kind, "i8")
        x = plain(a).reshape(-1)
        result = new_result(x.shape, result_dtype)
        target = plain(result)
        n_blocks = -(-x.size // _BLOCK_ITEMS)
        totals, before = (scratch(n_blocks, kind, like=x) for _ in range(2))
        carried = np.dtype(kind).type(start)
        for first in range(0, n_blocks, _GROUP_BLOCKS):
            blocks = slice(first, min(n_blocks, first + _GROUP_BLOCKS))
            items = slice(first * _BLOCK_ITEMS, blocks.stop * _BLOCK_ITEMS)
            count = blocks.stop - first
            run_step(total_loop, [x[items], _BLOCK_ITEMS, totals[blocks]], count)
            with np.errstate(all="ignore"):
                for block in range(first, blocks.stop):
                    before[block] = carried
                    carried = join(carried, totals[block])
            run_step(running_loop, [x[items], _BLOCK_ITEMS, before[blocks], target[items]], count)
        return result

    return version


# From -0.0 on: 0.0 + -0.0 would lose the sign.
implements(np.cumsum)(_running("scans.sum_of_block", "scans.running_sum", np.add, -0.0))
implements(np.cumprod)(_running("scans.product_of_block", "scans.running_product", np.multiply, 1))


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
