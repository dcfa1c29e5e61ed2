"""Counting and adding up by bins and by integer keys, as loops over plain arrays.

Every task has a table of its own, so none waits for another; the caller adds the tables up in the order of the tasks,
whose number depends on the sizes alone.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from ._folding import as_type_of
from ._jit import loop, part
from ._views import stack_array, stretch

__all__ = [
    "add_and_count_by_key",
    "add_by_key",
    "count_by_key",
    "count_uniform",
    "largest_by_key",
    "smallest_by_key",
]


@loop
def count_uniform(task, x, edges, scale, slack, step, counts):
    """Count items `task * step` and following of a contiguous array in bins of equal width.

    `edges` are the bins' n + 1 edges, `scale` bins for a unit. The edges have the last word, as in NumPy: an item that
    rounding put beside its bin is moved. That can only happen to one that is nearer to an edge than `slack`, in widths
    of a bin: blocks without any are not compared with the edges. All bins but the last are open on the right. nan and
    what lies outside is counted in `counts[task, n]`.
    """
    here = counts[task]
    here[:] = 0
    n = edges.size - 1
    first, last = edges[0], edges[n]
    places = stack_array(np.int32(0), 512)
    start, stop = task * step, min(x.size, (task + 1) * step)
    while start < stop:
        block = stretch(x, start, min(places.size, stop - start))
        start += block.size
        doubtful = 0
        for i in range(block.size):
            at = (block[i] - first) * scale if (block[i] >= first) & (block[i] <= last) else n + 0.5
            place = np.int32(at)
            doubtful += (at - place < slack) | (at - place > 1.0 - slack)
            places[i] = place
        if doubtful:
            _compare_with_edges(block, edges, scale, places)
        for i in range(block.size):
            here[np.uint64(places[i])] += 1


@part
def _compare_with_edges(block, edges, scale, places):
    """The place of each item of a block, by the edges themselves."""
    n = edges.size - 1
    for i in range(block.size):
        value, place = block[i], n
        if (value >= edges[0]) & (value <= edges[n]):
            place = min(int((value - edges[0]) * scale), n - 1)
            if value < edges[place]:
                place -= 1
            elif (value >= edges[place + 1]) & (place < n - 1):
                place += 1
        places[i] = place


@loop
def count_by_key(task, keys, low, step, counts):
    """How many of items `task * step` and following have each key, to `counts[task, key - low]`."""
    here = counts[task]
    here[:] = 0
    for i in range(task * step, min(keys.size, (task + 1) * step)):
        here[np.uint64(keys[i] - low)] += 1


@loop
def add_by_key(task, keys, low, values, step, sums):
    """The sum of the values beside each key."""
    here = sums[task]
    here[:] = 0
    for i in range(task * step, min(keys.size, (task + 1) * step)):
        here[np.uint64(keys[i] - low)] += as_type_of(values[i], here[0])


@loop
def add_and_count_by_key(task, keys, low, values, step, sums, counts):
    """Both in one pass, which costs little more than either."""
    here, count = sums[task], counts[task]
    here[:] = 0
    count[:] = 0
    for i in range(task * step, min(keys.size, (task + 1) * step)):
        key = np.uint64(keys[i] - low)
        here[key] += as_type_of(values[i], here[0])
        count[key] += 1


@loop
def smallest_by_key(task, keys, low, values, step, found, seen):
    """The smallest value beside each key, nan if there is one; `seen` tells which keys there are."""
    here, is_seen = found[task], seen[task]
    is_seen[:] = 0
    for i in range(task * step, min(keys.size, (task + 1) * step)):
        key, value = np.uint64(keys[i] - low), values[i]
        if (is_seen[key] == 0) | (value < here[key]) | (value != value):
            here[key] = value
            is_seen[key] = 1


@loop
def largest_by_key(task, keys, low, values, step, found, seen):
    """The same for the largest."""
    here, is_seen = found[task], seen[task]
    is_seen[:] = 0
    for i in range(task * step, min(keys.size, (task + 1) * step)):
        key, value = np.uint64(keys[i] - low), values[i]
        if (is_seen[key] == 0) | (value > here[key]) | (value != value):
            here[key] = value
            is_seen[key] = 1
