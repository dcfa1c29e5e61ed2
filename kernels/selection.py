"""Selecting items: by number, by mask and by rank, as loops over plain arrays.

A selection whose size is not known ahead goes in two steps: `count_true` counts what each task will select, the caller
adds up where each task's items begin, and `compress` or `nonzero` put them there, in the order of the array. These two
store every item, and go on by one place only behind those that are wanted: a branch on random masks would be guessed
wrong every other time. They stop when a task's places are full, so they write nothing that is another task's.

Tasks are about items `task * step` and following, and write nothing that they read, but where an array is changed in
place (`fill_where`, `fill_from`, `put`): those write the same if they are done again. Only wanted items are written, so
that others may change the rest of the array at the same time. (Unsigned numbers of items spare the look whether they
are negative.)
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from ._jit import loop
from ._views import stretch
from .keys import FLOAT, key_of, rules_of, word_of
from .sorting import sort_keys, sort_pairs

__all__ = [
    "compress",
    "count_true",
    "fill_from",
    "fill_where",
    "greatest_keys",
    "items_of_rows",
    "nonzero",
    "put",
    "split_numbers",
    "take_flat",
    "where_items",
]


# -- by number
# ---------------------------------------------------------------------------------------------------------


@loop
def take_flat(task, x, numbers, step, out):
    """`out[i] = x[numbers[i]]`; numbers must be in range, from the end if negative."""
    for i in range(task * step, min(out.size, (task + 1) * step)):
        out[i] = x[numbers[i]]


@loop
def put(task, numbers, values, span, out):
    """`out[numbers[i]] = values[i % values.size]` of numbers that fall into `task * span` to `(task + 1) * span`.

    Every task goes through all numbers, in order: of equal ones the last wins. They must be in range, from the end if
    negative.
    """
    low, high, next_ = task * span, (task + 1) * span, 0
    for i in range(numbers.size):
        number = numbers[i] + (out.size if numbers[i] < 0 else 0)
        if low <= number < high:
            out[number] = values[next_]
        next_ = next_ + 1 if next_ + 1 < values.size else 0


@loop
def split_numbers(task, numbers, extent, step, quotients, remainders):
    """Numbers of items as pairs: of the row of `extent` items, to `quotients`, and of the item in it.

    `quotients` may be `numbers`, if no task is done twice.
    """
    for i in range(task * step, min(numbers.size, (task + 1) * step)):
        row = numbers[i] // extent
        remainders[i] = numbers[i] - row * extent
        quotients[i] = row


# -- by mask
# -----------------------------------------------------------------------------------------------------------


@loop
def where_items(task, mask, x, y, step, out):
    """`out[i]` is `x[i]` where the mask is not zero, else `y[i]`."""
    for i in range(task * step, min(out.size, (task + 1) * step)):
        out[i] = x[i] if mask[i] else y[i]


@loop
def fill_where(task, mask, value, step, out):
    """Set the items where the mask is not zero to `value[0]`."""
    for i in range(task * step, min(out.size, (task + 1) * step)):
        if mask[i]:
            out[i] = value[0]


@loop
def fill_from(task, mask, values, step, starts, out):
    """Set the items where the mask is not zero to one value after another, from `values[starts[task]]` on."""
    place = starts[task]
    for i in range(task * step, min(out.size, (task + 1) * step)):
        if mask[i]:
            out[i] = values[place]
            place += 1


@loop
def count_true(task, mask, step, counts):
    """How many of items `task * step` and following of a mask are not zero, to `counts[task]`.

    Examples
    --------
    >>> import numpy as np
    >>> from shmarray.kernels.selection import compress, count_true
    >>> mask, counts = np.array([True, False, True, True]), np.empty(2, np.int64)
    >>> for task in range(2):
    ...     count_true(task, mask, 2, counts)
    >>> out = np.empty(3)
    >>> for task in range(2):
    ...     compress(task, mask, np.arange(4.0), 2, np.array([0, 1, 3]), out)
    >>> out.tolist()
    [0.0, 2.0, 3.0]
    """
    here = stretch(mask, task * step, min(step, mask.size - task * step))
    count = 0
    for i in range(here.size):
        count += here[i] != 0
    counts[task] = count


@loop
def compress(task, mask, x, step, starts, out):
    """Put the items of `x` where the mask is not zero to `out`, from `starts[task]` to `starts[task + 1]`."""
    place, end, i = np.uint64(starts[task]), np.uint64(starts[task + 1]), np.uint64(task * step)
    while place < end:
        out[place] = x[i]
        place += np.uint64(mask[i] != 0)
        i += np.uint64(1)


@loop
def nonzero(task, mask, step, starts, out):
    """The same with the items' numbers."""
    place, end, i = np.uint64(starts[task]), np.uint64(starts[task + 1]), np.uint64(task * step)
    while place < end:
        out[place] = i
        place += np.uint64(mask[i] != 0)
        i += np.uint64(1)


# -- by rank
# -----------------------------------------------------------------------------------------------------------

_FEW = 64  # items that are sorted right away
_CELLS = 1 << 11


@loop
def items_of_rows(task, words, code, rows, step, shares, skips_nan, items, counts):
    """The two items of each row between which a share of its items lies below: what quantiles are made of.

    Counting tells in which of 2048 cells of the row's range an item of a given rank lies; the items of this cell are
    sorted, and no others.

    Parameters
    ----------
    words : (rows * n,) array of uint32 or uint64
        The rows' bits, one row behind the other; see `shmarray.kernels.keys` for these and `code`.
    shares : (q,) array of float64
        From 0 to 1. Of m items, those of ranks `floor((m - 1) * share)` and one more (but the last one at most).
    skips_nan : int
        Not 0: m does not count nan; a row of nan alone gives nan.
    items : (rows * 2 * q,) array of words
        Of each row the lower items, then the upper ones.
    counts : (rows,) array of int64
        How many items of each row are not nan.
    """
    rules = rules_of(words, code)
    n, q = words.size // rows, shares.size
    keys, found = np.empty(n, words.dtype), np.empty(n, words.dtype)
    ordered, spare = np.empty(n, words.dtype), np.empty(n, words.dtype)
    cells = np.empty(_CELLS, np.int64)
    last = np.uint64(_CELLS - 1)
    for row in range(task * step, min(rows, (task + 1) * step)):
        of_row = stretch(words, row * n, n)
        numbers, low, high = 0, np.uint64(0xFFFF_FFFF_FFFF_FFFF), np.uint64(0)
        for i in range(n):
            key = key_of(of_row[i], rules)
            keys[i] = key
            is_nan = (key == rules[1]) & (code >= FLOAT)
            low = key if key < low else low
            high = key if (key > high) & (not is_nan) else high
            numbers += not is_nan
        counts[row] = numbers
        wide, shift = (high - low) if high > low else np.uint64(0), np.uint64(0)
        while (wide >> shift) > last:
            shift += np.uint64(1)
        if n > _FEW:
            for c in range(_CELLS):
                cells[c] = 0
            for i in range(n):
                cell = (np.uint64(keys[i]) - low) >> shift
                cells[cell if cell < last else last] += 1
        cell_at, before, size, is_sorted = -1, 0, 0, False
        m = numbers if skips_nan and numbers > 0 else n
        for k in range(2 * q):
            place = (m - 1) * shares[k % q]
            rank = int(np.floor(place)) + (k >= q)
            rank = rank if rank < m else m - 1
            if rank < before or rank >= before + size:
                cell_at, before, size, is_sorted = 0, 0, n, False
                if n > _FEW:
                    size = cells[0]
                    while rank >= before + size:
                        before += size
                        cell_at += 1
                        size = cells[cell_at]
            if not is_sorted:
                at = 0
                for i in range(n):
                    cell = (np.uint64(keys[i]) - low) >> shift
                    if n <= _FEW or (cell if cell < last else last) == np.uint64(cell_at):
                        found[at] = keys[i]
                        at += 1
                sort_keys(stretch(found, 0, size), stretch(ordered, 0, size), stretch(spare, 0, size))
                is_sorted = True
            items[row * 2 * q + k] = word_of(np.uint64(ordered[rank - before]), rules)


_BLOCK = 256  # items whose best key is looked at first


@loop
def greatest_keys(task, words, code, flip, k, step, keys, numbers):
    """The k greatest keys among items `task * step` and following, and the items' numbers, greatest first.

    A running threshold filters: the k-th greatest key so far. What is above it goes to a buffer of some 4 k; when that
    is full it is sorted, all but the first k are dropped, and the threshold rises. On random data nearly all blocks of
    items are below it, and looking at them is one vectorised pass. Of equal keys the earlier ones stay.

    Parameters
    ----------
    words, code
        See `shmarray.kernels.keys`.
    flip : int
        0, or -1 for the least keys: all bits are turned over.
    keys : (tasks * k,) array of uint64
        All bits turned over, so that the greatest is the least.
    numbers : (tasks * k,) array of int64
        -1 where a task has fewer than k items.
    """
    rules, turn = rules_of(words, code), ~np.uint64(flip)
    room, every = 4 * k + _BLOCK, ~np.uint64(0)
    found, places = np.empty(room, np.uint64), np.empty(room, np.int64)
    ordered, ordered_places = np.empty(room, np.uint64), np.empty(room, np.int64)
    spare, spare_places = np.empty(room, np.uint64), np.empty(room, np.int64)
    limit, size = every, 0
    start, stop = task * step, min(words.size, (task + 1) * step)
    while True:
        # Put in order when a block may not fit any more, and at the end; the rest of the buffer is behind everything.
        if size > room - _BLOCK or start >= stop:
            for t in range(size, room):
                found[t], places[t] = every, -1
            sort_pairs(found, places, ordered, ordered_places, spare, spare_places)
            if start >= stop:
                break
            for t in range(k):
                found[t], places[t] = ordered[t], ordered_places[t]
            size, limit = k, found[k - 1]
        block = stretch(words, start, min(_BLOCK, stop - start))
        least = every
        for j in range(block.size):
            key = key_of(block[j], rules) ^ turn
            least = key if key < least else least
        if least < limit or size < k:
            for j in range(block.size):
                key = key_of(block[j], rules) ^ turn
                if key < limit or size < k:
                    found[size], places[size] = key, start + j
                    size += 1
        start += block.size
    for t in range(k):
        keys[task * k + t], numbers[task * k + t] = ordered[t], ordered_places[t]
