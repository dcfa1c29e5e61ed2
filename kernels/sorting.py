"""Sorting by keys: the steps of a parallel sort, as loops over plain arrays.

An item's bits become a *key*, an unsigned integer in whose order the items stand: signed integers have their sign bit
turned over, negative floats all bits, other floats the sign bit; nan is the largest key. Keys are cut into *cells*, a
few thousand equal ranges between the smallest and the largest one. Then, each step being any number of tasks::

    key_bounds   ->  smallest and largest key of each task's items
    count_cells  ->  how many of each task's items are in each cell
    (the caller joins neighbouring cells to buckets of some 32 thousand items, and adds up where each begins)
    scatter_keys ->  every item's key in its bucket; within a bucket in the order of the array
    sort_buckets ->  every bucket sorted, as items again

What a task takes into its hands fits the second-level cache. `scatter_pairs` and `order_buckets` carry along where the
items came from. A bucket is sorted by radix: counting passes over the upper 24 bits in which its keys differ, after
which next to nothing is out of place, and insertion for that; where much is (keys that agree in those bits), counting
passes over all bits that differ. Radix sorts are stable, so all of this is.

Words are uint32 or uint64 arrays: the items' bits. `code` says what they are: UNSIGNED, SIGNED, FLOAT, or
FLOAT_EQUAL_ZEROS where -0.0 and 0.0 are to be one key.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from ._jit import inlined, loop, part

__all__ = [
    "FLOAT",
    "FLOAT_EQUAL_ZEROS",
    "SIGNED",
    "UNSIGNED",
    "collect",
    "count_cells",
    "key_bounds",
    "mark_changes",
    "order_buckets",
    "order_rows",
    "scatter_keys",
    "scatter_pairs",
    "scatter_ranks",
    "search",
    "sort_buckets",
    "sort_keys",
    "sort_pairs",
    "sort_rows",
]

UNSIGNED, SIGNED, FLOAT, FLOAT_EQUAL_ZEROS = range(4)

_SHORT = 24  # up to here insertion alone is fastest
_MOVES = 4  # moves an item that insertion may take before counting takes over
_DIGIT = np.uint64(255)
_NONE, _ONE = np.uint64(0), np.uint64(1)
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


# -- keys
# ---------------------------------------------------------------------------------------------------------


@inlined
def rules_of(words, code):
    """What `key_of` and `word_of` need to know: sign bit, all bits, what negative floats and others turn over, the
    largest magnitude that is no nan, and whether zeros are equal."""
    wide = words.itemsize == 8
    sign = _ONE << np.uint64(63 if wide else 31)
    every = _ALL if wide else np.uint64(0xFFFF_FFFF)
    negative = every if code >= FLOAT else _NONE
    flip = sign if code != UNSIGNED else _NONE
    infinity = np.uint64(0x7FF0_0000_0000_0000) if wide else np.uint64(0x7F80_0000)
    limit = infinity if code >= FLOAT else every
    return sign, every, negative, flip, limit, code == FLOAT_EQUAL_ZEROS


@inlined
def key_of(bits, rules):
    """The key of an item's bits."""
    sign, every, negative, flip, limit, equal_zeros = rules
    word = np.uint64(bits)
    word = _NONE if equal_zeros & (word == sign) else word
    key = word ^ ((negative if (word & sign) != _NONE else _NONE) | flip)
    return every if (negative != _NONE) & ((word & ~sign) > limit) else key


@inlined
def word_of(key, rules):
    """The bits of the item that has a key; all nans are one."""
    sign, every, negative, flip, limit, _ = rules
    if negative == _NONE:
        return key ^ flip
    quiet_nan = limit | ((limit & (~limit + _ONE)) >> _ONE)
    word = key ^ (sign if (key & sign) != _NONE else every)
    return quiet_nan if key == every else word


@loop
def key_bounds(task, words, code, step, bounds):
    """Smallest and largest key of items `task * step` and following, and how many are nan, to `bounds[task]`.

    nan does not count for the largest.
    """
    rules = rules_of(words, code)
    low, high, nans = _ALL, _NONE, _NONE
    for i in range(task * step, min(words.size, (task + 1) * step)):
        key = key_of(words[i], rules)
        is_nan = (key == rules[1]) & (code >= FLOAT)
        low = min(low, key)
        high = max(high, _NONE if is_nan else key)
        nans += np.uint64(is_nan)
    bounds[task, 0], bounds[task, 1], bounds[task, 2] = low, high, nans


@inlined
def cell_of(key, low, shift, last):
    """The number of the cell that a key is in; what lies above the last one is in that."""
    return min((key - low) >> shift, last)


@loop
def count_cells(task, words, code, low, shift, step, counts):
    """How many of items `task * step` and following are in each cell, to `counts[task]`."""
    rules = rules_of(words, code)
    here = counts[task]
    here[:] = 0
    base, by, last = np.uint64(low), np.uint64(shift), np.uint64(here.size - 1)
    for i in range(task * step, min(words.size, (task + 1) * step)):
        here[cell_of(key_of(words[i], rules), base, by, last)] += 1


@loop
def collect(task, words, code, low, shift, step, wanted, starts, out):
    """Put the items of this task that are in wanted cells side by side to `out`, from `starts[task]` on."""
    rules = rules_of(words, code)
    base, by, last = np.uint64(low), np.uint64(shift), np.uint64(wanted.size - 1)
    place = starts[task]
    for i in range(task * step, min(words.size, (task + 1) * step)):
        if wanted[cell_of(key_of(words[i], rules), base, by, last)]:
            out[place] = words[i]
            place += 1


# -- into buckets
# -------------------------------------------------------------------------------------------------


@loop
def scatter_keys(task, words, code, low, shift, step, bucket_of, starts, keys):
    """Put the keys of items `task * step` and following into their buckets.

    `bucket_of` gives the bucket of each cell, `starts[task]` where in `keys` this task's part of each bucket begins.
    """
    rules = rules_of(words, code)
    base, by, last = np.uint64(low), np.uint64(shift), np.uint64(bucket_of.size - 1)
    places = starts[task].copy()
    for i in range(task * step, min(words.size, (task + 1) * step)):
        key = key_of(words[i], rules)
        bucket = bucket_of[cell_of(key, base, by, last)]
        keys[places[bucket]] = key
        places[bucket] += 1


@loop
def scatter_pairs(task, words, code, low, shift, step, bucket_of, starts, keys, origins):
    """The same, and beside each key the number of its item."""
    rules = rules_of(words, code)
    base, by, last = np.uint64(low), np.uint64(shift), np.uint64(bucket_of.size - 1)
    places = starts[task].copy()
    for i in range(task * step, min(words.size, (task + 1) * step)):
        key = key_of(words[i], rules)
        bucket = bucket_of[cell_of(key, base, by, last)]
        keys[places[bucket]] = key
        origins[places[bucket]] = i
        places[bucket] += 1


# -- one bucket
# ---------------------------------------------------------------------------------------------------


@inlined
def _differing(keys):
    """The bits in which keys differ."""
    some, every = _NONE, _ALL
    for key in keys:
        some |= np.uint64(key)
        every &= np.uint64(key)
    return some & ~every if keys.size > 0 else _NONE


@inlined
def _lowest_digit(differing):
    """Where counting begins: 24 bits below the highest that differs, or at bit 0."""
    top = 0
    while (differing >> np.uint64(top)) > _ONE:
        top += 1
    return max(0, top - 23)


@part
def _count_keys(source, target, shift, places):
    """One counting pass over keys; the places of digits are made on the way."""
    places[:] = 0
    by = np.uint64(shift)
    for key in source:
        places[(np.uint64(key) >> by) & _DIGIT] += 1
    total = 0
    for value in range(256):
        total, places[value] = total + places[value], total
    for key in source:
        digit = (np.uint64(key) >> by) & _DIGIT
        target[places[digit]] = key
        places[digit] += 1


@part
def _insert_keys(keys, budget):
    """Insertion sort; false when it took more moves than `budget`."""
    for i in range(1, keys.size):
        key = keys[i]
        j = i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = key
        budget -= i - j
        if budget < 0:
            return False
    return True


@part
def _count_all_keys(source, one, other, differing, first):
    """Counting passes from bit `first` on over the digits that differ; true when the result is in `one`."""
    places = np.empty(256, np.int64)
    in_one = False
    moved = False
    shift = first
    while shift < 64:
        if ((differing >> np.uint64(shift)) & _DIGIT) != _NONE:
            if not moved:
                _count_keys(source, one, shift, places)
            elif in_one:
                _count_keys(one, other, shift, places)
            else:
                _count_keys(other, one, shift, places)
            in_one = not in_one
            moved = True
        shift += 8
    return in_one


@loop
def sort_keys(source, target, spare):
    """Sort unsigned integers into `target`; `spare` is as large, and neither overlaps the source.

    Examples
    --------
    >>> import numpy as np
    >>> from shmarray.kernels.sorting import sort_keys
    >>> target, spare = np.empty(3, np.uint64), np.empty(3, np.uint64)
    >>> sort_keys(np.array([3, 1, 2], np.uint64), target, spare)
    >>> target.tolist()
    [1, 2, 3]
    """
    differing = _differing(source)
    if source.size <= _SHORT or differing == _NONE:
        target[:] = source
        _insert_keys(target, source.size * source.size)
        return
    first = _lowest_digit(differing)
    if not _count_all_keys(source, target, spare, differing, first):
        target[:] = spare
    if first == 0 or _insert_keys(target, _MOVES * source.size):
        return
    if not _count_all_keys(source, target, spare, differing, 0):
        target[:] = spare


@part
def _count_pairs(source, origins, target, places_of, shift, places):
    places[:] = 0
    by = np.uint64(shift)
    for key in source:
        places[(np.uint64(key) >> by) & _DIGIT] += 1
    total = 0
    for value in range(256):
        total, places[value] = total + places[value], total
    for i in range(source.size):
        digit = (np.uint64(source[i]) >> by) & _DIGIT
        target[places[digit]] = source[i]
        places_of[places[digit]] = origins[i]
        places[digit] += 1


@part
def _insert_pairs(keys, origins, budget):
    for i in range(1, keys.size):
        key, origin = keys[i], origins[i]
        j = i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            origins[j] = origins[j - 1]
            j -= 1
        keys[j] = key
        origins[j] = origin
        budget -= i - j
        if budget < 0:
            return False
    return True


@part
def _count_all_pairs(source, origins, one, one_origins, other, other_origins, differing, first):
    places = np.empty(256, np.int64)
    in_one = False
    moved = False
    shift = first
    while shift < 64:
        if ((differing >> np.uint64(shift)) & _DIGIT) != _NONE:
            if not moved:
                _count_pairs(source, origins, one, one_origins, shift, places)
            elif in_one:
                _count_pairs(one, one_origins, other, other_origins, shift, places)
            else:
                _count_pairs(other, other_origins, one, one_origins, shift, places)
            in_one = not in_one
            moved = True
        shift += 8
    return in_one


@loop
def sort_pairs(source, origins, target, target_origins, spare, spare_origins):
    """Sort unsigned integers, each with the number beside it; equal ones keep their order."""
    differing = _differing(source)
    if source.size <= _SHORT or differing == _NONE:
        target[:] = source
        target_origins[:] = origins
        _insert_pairs(target, target_origins, source.size * source.size)
        return
    first = _lowest_digit(differing)
    if not _count_all_pairs(source, origins, target, target_origins, spare, spare_origins, differing, first):
        target[:] = spare
        target_origins[:] = spare_origins
    if first == 0 or _insert_pairs(target, target_origins, _MOVES * source.size):
        return
    if not _count_all_pairs(source, origins, target, target_origins, spare, spare_origins, differing, 0):
        target[:] = spare
        target_origins[:] = spare_origins


# -- all buckets, and rows
# ----------------------------------------------------------------------------------------


@loop
def sort_buckets(task, keys, edges, wanted, code, words):
    """Sort bucket number `task`, `keys[edges[task]:edges[task + 1]]`, to the same place in `words`, as items.

    A bucket that is not `wanted` is not sorted.
    """
    source = keys[edges[task] : edges[task + 1]]
    target = words[edges[task] : edges[task + 1]]
    rules = rules_of(words, code)
    if wanted[task]:
        sort_keys(source, target, np.empty_like(source))
        source = target
    for i in range(source.size):
        target[i] = word_of(np.uint64(source[i]), rules)


@loop
def order_buckets(task, keys, origins, edges, order, sorted_keys):
    """Sort bucket number `task`: where its items came from to `order`, and their keys to `sorted_keys`."""
    start, stop = edges[task], edges[task + 1]
    source, numbers = keys[start:stop], origins[start:stop]
    target, spare = sorted_keys[start:stop], np.empty_like(source)
    target_numbers, spare_numbers = np.empty_like(numbers), np.empty_like(numbers)
    sort_pairs(source, numbers, target, target_numbers, spare, spare_numbers)
    for i in range(numbers.size):
        order[start + i] = target_numbers[i]


@loop
def sort_rows(task, words, code, step, out):
    """Sort each of the rows `task * step` and following."""
    rules = rules_of(words, code)
    n = words.shape[1]
    source, spare = np.empty(n, words.dtype), np.empty(n, words.dtype)
    for row in range(task * step, min(words.shape[0], (task + 1) * step)):
        for i in range(n):
            source[i] = key_of(words[row, i], rules)
        target = out[row]
        sort_keys(source, target, spare)
        for i in range(n):
            target[i] = word_of(np.uint64(target[i]), rules)


@loop
def order_rows(task, words, code, step, out):
    """The order of the items of each of the rows `task * step` and following."""
    rules = rules_of(words, code)
    n = words.shape[1]
    source, target, spare = np.empty(n, words.dtype), np.empty(n, words.dtype), np.empty(n, words.dtype)
    numbers, target_numbers = np.arange(n).astype(np.uint32), np.empty(n, np.uint32)
    spare_numbers = np.empty(n, np.uint32)
    for row in range(task * step, min(words.shape[0], (task + 1) * step)):
        for i in range(n):
            source[i] = key_of(words[row, i], rules)
        sort_pairs(source, numbers, target, target_numbers, spare, spare_numbers)
        for i in range(n):
            out[row, i] = target_numbers[i]


# -- in what is sorted
# ---------------------------------------------------------------------------------------------


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
