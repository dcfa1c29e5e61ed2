"""Sorting by keys: the steps of a parallel sort, as loops over plain arrays.

Items become unsigned keys, and the range of keys is cut into cells (`shmarray.kernels.keys`). Then, each step being any
number of tasks::

    (the caller joins neighbouring cells to buckets of some 32 thousand items, and adds up where each begins)
    scatter_keys ->  every item's key in its bucket; within a bucket in the order of the array
    sort_buckets ->  every bucket sorted, as items again

What a task takes into its hands fits the second-level cache. `scatter_pairs` and `order_buckets` carry along where the
items came from. A bucket is sorted by radix (Knuth, The Art of Computer Programming 3, 5.2.5): counting passes over
the upper 24 bits in which its keys differ, after which next to nothing is out of place, and insertion for that; where
much is (keys that agree in those bits), counting passes over all bits that differ. Radix sorts are stable, so all of
this is.

Words and codes are those of `shmarray.kernels.keys`; arrays are contiguous.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from ._jit import inlined, loop, part
from ._views import stack_array, stretch
from .keys import FLOAT, FLOAT_EQUAL_ZEROS, SIGNED, UNSIGNED, cell_of, key_of, rules_of, word_of

__all__ = [
    "FLOAT",
    "FLOAT_EQUAL_ZEROS",
    "SIGNED",
    "UNSIGNED",
    "order_buckets",
    "order_rows",
    "scatter_keys",
    "scatter_pairs",
    "sort_buckets",
    "sort_keys",
    "sort_pairs",
    "sort_rows",
]

_SHORT = 24  # up to here insertion alone is fastest
_MOVES = 4  # moves an item that insertion may take before counting takes over
_DIGIT = np.uint64(255)
_NONE, _ONE = np.uint64(0), np.uint64(1)
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


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
    return top - 23 if top > 23 else 0


@inlined
def _digits(differing, first):
    """How many digits of 8 bits, from bit `first` on, differ."""
    count, by = 0, np.uint64(first)
    while by < np.uint64(64):
        count += ((differing >> by) & _DIGIT) != _NONE
        by += np.uint64(8)
    return count


@inlined
def _begin_digits(keys, by, places):
    """Where the keys of each digit begin."""
    for value in range(256):
        places[value] = 0
    for i in range(keys.size):
        places[(np.uint64(keys[i]) >> by) & _DIGIT] += 1
    total = 0
    for value in range(256):
        total, places[value] = total + places[value], total


@part
def _radix_keys(source, target, spare, differing, first):
    """Counting passes from bit `first` on over the digits that differ; the last one ends in `target`.

    A digit at least must differ, but from bit 64 on, where there is none: the keys are copied then.
    """
    places = stack_array(np.int64(0), 256)
    n, odd = source.size, _digits(differing, first) & 1
    here = stretch(source, 0, n)
    into, other = stretch(spare, 0, n), stretch(target, 0, n)
    if odd:
        into, other = other, into
    by = np.uint64(first)
    while by < np.uint64(64):
        if ((differing >> by) & _DIGIT) != _NONE:
            _begin_digits(here, by, places)
            for i in range(n):
                digit = (np.uint64(here[i]) >> by) & _DIGIT
                into[places[digit]] = here[i]
                places[digit] += 1
            here, into, other = into, other, into
        by += np.uint64(8)
    if first >= 64:
        for i in range(n):
            target[i] = source[i]


@part
def _insert_keys(keys, budget):
    """Sort by insertion; false when that would move more than `budget` items."""
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


@loop
def sort_keys(source, target, spare):
    """Sort unsigned integers into `target`; `spare` is as large, and none of the three overlap.

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
    first, budget = _lowest_digit(differing), _MOVES * source.size
    if source.size <= _SHORT or differing == _NONE:
        first, budget = 64, source.size * source.size  # no digits at all, then
    while True:  # twice at most: what is compiled once is in here once
        _radix_keys(source, target, spare, differing, first)
        if first == 0 or _insert_keys(target, budget):
            return
        first = 0


@part
def _radix_pairs(source, origins, target, target_origins, spare, spare_origins, differing, first):
    """As `_radix_keys`, with the number beside each key."""
    places = stack_array(np.int64(0), 256)
    n, odd = source.size, _digits(differing, first) & 1
    here, here_origins = stretch(source, 0, n), stretch(origins, 0, n)
    into, into_origins = stretch(spare, 0, n), stretch(spare_origins, 0, n)
    other, other_origins = stretch(target, 0, n), stretch(target_origins, 0, n)
    if odd:
        into, other = other, into
        into_origins, other_origins = other_origins, into_origins
    by = np.uint64(first)
    while by < np.uint64(64):
        if ((differing >> by) & _DIGIT) != _NONE:
            _begin_digits(here, by, places)
            for i in range(n):
                digit = (np.uint64(here[i]) >> by) & _DIGIT
                place = places[digit]
                into[place] = here[i]
                into_origins[place] = here_origins[i]
                places[digit] = place + 1
            here, into, other = into, other, into
            here_origins, into_origins, other_origins = into_origins, other_origins, into_origins
        by += np.uint64(8)
    if first >= 64:
        for i in range(n):
            target[i], target_origins[i] = source[i], origins[i]


@part
def _insert_pairs(keys, origins, budget):
    """As `_insert_keys`, with the number beside each key."""
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


@loop
def sort_pairs(source, origins, target, target_origins, spare, spare_origins):
    """Sort unsigned integers, each with the number beside it; equal ones keep their order."""
    differing = _differing(source)
    first, budget = _lowest_digit(differing), _MOVES * source.size
    if source.size <= _SHORT or differing == _NONE:
        first, budget = 64, source.size * source.size
    while True:
        _radix_pairs(source, origins, target, target_origins, spare, spare_origins, differing, first)
        if first == 0 or _insert_pairs(target, target_origins, budget):
            return
        first = 0


@loop
def sort_buckets(task, keys, edges, wanted, code, words):
    """Sort bucket number `task`, `keys[edges[task]:edges[task + 1]]`, to the same place in `words`, as items.

    A bucket that is not `wanted` is not sorted.
    """
    start, n = edges[task], edges[task + 1] - edges[task]
    source, target = stretch(keys, start, n), stretch(words, start, n)
    rules = rules_of(words, code)
    if wanted[task]:
        sort_keys(source, target, np.empty_like(source))
        source = target
    for i in range(n):
        target[i] = word_of(np.uint64(source[i]), rules)


@loop
def order_buckets(task, keys, origins, edges, order, sorted_keys):
    """Sort bucket number `task`: where its items came from to `order`, and their keys to `sorted_keys`."""
    start, n = edges[task], edges[task + 1] - edges[task]
    source, numbers = stretch(keys, start, n), stretch(origins, start, n)
    target, spare = stretch(sorted_keys, start, n), np.empty_like(source)
    target_numbers, spare_numbers = np.empty_like(numbers), np.empty_like(numbers)
    sort_pairs(source, numbers, target, target_numbers, spare, spare_numbers)
    for i in range(n):
        order[start + i] = target_numbers[i]


@loop
def sort_rows(task, words, code, rows, step, out):
    """Sort each of the rows `task * step` and following of flat `words`, which has `rows` of them."""
    rules = rules_of(words, code)
    n = words.size // rows
    source, spare = np.empty(n, words.dtype), np.empty(n, words.dtype)
    for row in range(task * step, min(rows, (task + 1) * step)):
        items, target = stretch(words, row * n, n), stretch(out, row * n, n)
        for i in range(n):
            source[i] = key_of(items[i], rules)
        sort_keys(source, target, spare)
        for i in range(n):
            target[i] = word_of(np.uint64(target[i]), rules)


@loop
def order_rows(task, words, code, rows, step, out):
    """The order of the items of each of the rows `task * step` and following; as `sort_rows`."""
    rules = rules_of(words, code)
    n = words.size // rows
    source, target, spare = np.empty(n, words.dtype), np.empty(n, words.dtype), np.empty(n, words.dtype)
    numbers, target_numbers = np.empty(n, np.uint32), np.empty(n, np.uint32)
    spare_numbers = np.empty(n, np.uint32)
    for i in range(n):
        numbers[i] = i
    for row in range(task * step, min(rows, (task + 1) * step)):
        items = stretch(words, row * n, n)
        for i in range(n):
            source[i] = key_of(items[i], rules)
        sort_pairs(source, numbers, target, target_numbers, spare, spare_numbers)
        for i in range(n):
            out[row * n + i] = target_numbers[i]
