"""Places in sorted arrays, and where a sorted array changes: what `searchsorted`, `digitize` and `unique` are made of.

Tasks are about items `task * step` and following of the result, and read nothing that they write. `scatter_ranks` is a
running sum: the caller adds up how many changes there are before each task.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from ._jit import loop

__all__ = ["mark_changes", "scatter_ranks", "search"]


@loop
def mark_changes(task, x, step, marks):
    """`marks[i]` is 1 where sorted item `i` is another than the one before; all nans are one."""
    for i in range(task * step, min(x.size, (task + 1) * step)):
        marks[i] = i == 0 or ((x[i] != x[i - 1]) & ((x[i] == x[i]) | (x[i - 1] == x[i - 1])))


@loop
def scatter_ranks(task, marks, starts, order, step, ranks):
    """`ranks[order[i]]` is the number of changes up to `i`, less one; `starts[task]` are those before this task."""
    rank = starts[task] - 1
    for i in range(task * step, min(marks.size, (task + 1) * step)):
        rank += marks[i]
        ranks[order[i]] = rank


@loop
def search(task, x, values, right, step, places):
    """Where values `task * step` and following belong in sorted `x`: before equal items, or behind them.

    nan is larger than all others, as in what NumPy sorts.
    """
    for i in range(task * step, min(values.size, (task + 1) * step)):
        value = values[i]
        low, n = 0, x.size
        while n > 0:
            half = n >> 1
            item = x[low + half]
            if right:
                before = not ((value < item) | ((item != item) & (value == value)))
            else:
                before = (item < value) | ((value != value) & (item == item))
            low = low + half + 1 if before else low
            n = n - half - 1 if before else half
        places[i] = low
