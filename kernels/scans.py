"""Running sums and products: of flat arrays in two steps, and along an axis.

A flat array goes by blocks of a fixed grid. `sum_of_blocks` and `product_of_blocks` say what each block comes to, the
caller joins these in order (identity -0.0 or 1, combine + or *), and `running_sum` and `running_product` go through
each block once more from what came before it. The grid decides the bits: they are the same for any number of workers.
Integers are exact (they wrap). A float is the sum of accurately summed whole blocks and of the items of its own block
one after another, in float64.

A task is four blocks. Each addition must wait for the one before, so four running sums, one of each block, go on side
by side.

Along an axis every row is a running sum of its own: of rows that are contiguous one item after another
(`running_sum_rows`), of columns many of them at once (`running_sum_columns`). Tasks write nothing that they read.

Examples
--------
>>> import numpy as np
>>> from shmarray.kernels.scans import running_sum, sum_of_blocks
>>> x, totals, out = np.array([1.0, 2.0, 3.0, 4.0]), np.empty(2), np.empty(4)
>>> sum_of_blocks(0, x, 2, totals)
>>> running_sum(0, x, 2, np.array([0.0, totals[0]]), out)
>>> out.tolist()
[1.0, 3.0, 6.0, 10.0]
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from ._folding import as_type_of
from ._jit import inlined, loop
from ._views import stretch
from .reductions import fold_prod, fold_sum

__all__ = [
    "product_of_blocks",
    "running_product",
    "running_product_columns",
    "running_product_rows",
    "running_sum",
    "running_sum_columns",
    "running_sum_rows",
    "sum_of_blocks",
]


def _add(total, x):
    return total + as_type_of(x, total)


def _multiply(total, x):
    return total * as_type_of(x, total)


# -- a flat array
# ------------------------------------------------------------------------------------------------------


def _of_blocks(fold, identity):
    def of_blocks(task, x, step, totals):
        start = as_type_of(identity, totals[0])
        for block in range(4 * task, min(4 * task + 4, totals.size)):
            first = block * step
            totals[block] = fold(stretch(x, first, min(step, x.size - first)), start)

    return loop(of_blocks)


sum_of_blocks = _of_blocks(fold_sum, -0.0)
product_of_blocks = _of_blocks(fold_prod, 1)


def _running(join):
    joined = inlined(join)

    def running(task, x, step, before, out):
        first = 4 * task * step
        if first + 4 * step <= x.size:
            total_0, total_1 = before[4 * task], before[4 * task + 1]
            total_2, total_3 = before[4 * task + 2], before[4 * task + 3]
            for i in range(first, first + step):
                total_0 = joined(total_0, x[i])
                out[i] = total_0
                total_1 = joined(total_1, x[i + step])
                out[i + step] = total_1
                total_2 = joined(total_2, x[i + 2 * step])
                out[i + 2 * step] = total_2
                total_3 = joined(total_3, x[i + 3 * step])
                out[i + 3 * step] = total_3
        else:
            for block in range(4 * task, before.size):
                total_0 = before[block]
                for i in range(block * step, min(x.size, (block + 1) * step)):
                    total_0 = joined(total_0, x[i])
                    out[i] = total_0

    return loop(running)


running_sum, running_product = _running(_add), _running(_multiply)


# -- along an axis
# -----------------------------------------------------------------------------------------------------


def _along_rows(join, identity):
    joined = inlined(join)

    def rows(task, x, n, step, kind, out):
        for row in range(task * step, min(x.size // n, (task + 1) * step)):
            total = as_type_of(identity, kind[0])
            for i in range(row * n, (row + 1) * n):
                total = joined(total, x[i])
                out[i] = total

    return loop(rows)


def _along_columns(join, identity):
    joined = inlined(join)

    def columns(task, x, n, width, step, kind, out):
        across = (width + step - 1) // step
        first = task % across * step
        count = min(step, width - first)
        start = task // across * n * width + first
        totals = np.full(step, as_type_of(identity, kind[0]))
        for _ in range(n):
            items, target = stretch(x, start, count), stretch(out, start, count)
            for j in range(count):
                totals[j] = joined(totals[j], items[j])
                target[j] = totals[j]
            start += width

    return loop(columns)


# `kind` is an array of the type that sums are kept in; `step` is rows, or columns, of a task.
running_sum_rows, running_product_rows = _along_rows(_add, -0.0), _along_rows(_multiply, 1)
running_sum_columns, running_product_columns = _along_columns(_add, -0.0), _along_columns(_multiply, 1)
