"""Numbers as unsigned keys, and where in the range of its keys an array's items lie: what sorting and selecting share.

An item's bits become a *key*, an unsigned integer in whose order the items stand: signed integers have their sign bit
turned over, negative floats all bits, other floats the sign bit; nan is the largest key. Keys are cut into *cells*, a
few thousand equal ranges between the smallest and the largest one::

    key_bounds   ->  smallest and largest key of each task's items
    count_cells  ->  how many of each task's items are in each cell
    collect      ->  the items in some cells, side by side

Each is any number of tasks; bounds and counts of the tasks are joined by the caller (least, greatest, sums), and what a
task reads no task writes. Words are uint32 or uint64 arrays: the items' bits. `code` says what they are: UNSIGNED,
SIGNED, FLOAT, or FLOAT_EQUAL_ZEROS where -0.0 and 0.0 are to be one key.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from ._jit import inlined, loop

__all__ = [
    "FLOAT",
    "FLOAT_EQUAL_ZEROS",
    "SIGNED",
    "UNSIGNED",
    "cell_of",
    "collect",
    "count_cells",
    "key_bounds",
    "key_of",
    "rules_of",
    "word_of",
]

UNSIGNED, SIGNED, FLOAT, FLOAT_EQUAL_ZEROS = range(4)

_NONE, _ONE = np.uint64(0), np.uint64(1)
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


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
