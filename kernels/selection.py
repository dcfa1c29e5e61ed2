"""Selecting items: taking by number or by mask, and counting what a mask selects, as loops over plain arrays.

A selection whose size is not known ahead goes in two steps: `count_true` counts what each task will select, the caller
adds up where each task's items begin, and `compress` or `nonzero` put them there, in the order of the array.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from ._jit import loop

__all__ = ["compress", "count_true", "fill_where", "nonzero", "take_flat", "where_items"]


@loop
def take_flat(task, x, numbers, step, out):
    """`out[i] = x[numbers[i]]` for items `task * step` and following; numbers must be in range, from the end if
    negative."""
    for i in range(task * step, min(out.size, (task + 1) * step)):
        out[i] = x[numbers[i]]


@loop
def where_items(task, mask, x, y, step, out):
    """`out[i]` is `x[i]` where the mask is not zero, else `y[i]`."""
    for i in range(task * step, min(out.size, (task + 1) * step)):
        out[i] = x[i] if mask[i] else y[i]


@loop
def fill_where(task, mask, value, step, out):
    """Set the items where the mask is not zero to `value[0]`."""
    for i in range(task * step, min(out.size, (task + 1) * step)):
        out[i] = value[0] if mask[i] else out[i]


@loop
def count_true(task, mask, step, counts):
    """How many of items `task * step` and following of a mask are not zero, to `counts[task]`."""
    count = 0
    for i in range(task * step, min(mask.size, (task + 1) * step)):
        count += mask[i] != 0
    counts[task] = count


@loop
def compress(task, mask, x, step, starts, out):
    """Put the items of `x` where the mask is not zero side by side to `out`, from `starts[task]` on."""
    place = starts[task]
    for i in range(task * step, min(mask.size, (task + 1) * step)):
        if mask[i] != 0:
            out[place] = x[i]
            place += 1


@loop
def nonzero(task, mask, step, starts, out):
    """The same with the items' numbers."""
    place = starts[task]
    for i in range(task * step, min(mask.size, (task + 1) * step)):
        if mask[i] != 0:
            out[place] = i
            place += 1
