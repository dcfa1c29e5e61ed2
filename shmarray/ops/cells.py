"""Where in the range of an array's values do its items lie? The common first steps of sorting and selecting.

See `shmarray.kernels.keys`: items become unsigned keys, the range of keys is cut into cells, and each task of a
fixed number of items counts how many of its own are in each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shmarray.ops.steps import Array, run_step, scratch

__all__ = ["FLOAT", "FLOAT_EQUAL_ZEROS", "Cells", "code_of", "words_of"]

# As in `shmarray.kernels.keys`, which brings numba with it.
UNSIGNED, SIGNED, FLOAT, FLOAT_EQUAL_ZEROS = range(4)

#: Cells that the range of keys is cut into; more where a cell of a large array would be more than a cache holds.
_CELL_BITS, _MANY_CELL_BITS = 14, 16
_MANY_ITEMS = 1 << 26

#: Items of one task, unless that would make more than so many tasks.
_TASK_ITEMS, _MOST_TASKS = 1 << 17, 512


def code_of(dtype: np.dtype[np.generic], *, equal_zeros: bool = False) -> int | None:
    """What the items' bits say; None for dtypes that are not sorted by key."""
    if dtype.itemsize not in (4, 8) or dtype.kind not in "iuf" or not dtype.isnative:
        return None
    if dtype.kind == "f":
        return FLOAT_EQUAL_ZEROS if equal_zeros else FLOAT
    return SIGNED if dtype.kind == "i" else UNSIGNED


def words_of(array: Array) -> Array:
    """The same memory as unsigned integers."""
    return array.view(f"u{array.dtype.itemsize}")


@dataclass(frozen=True, slots=True)
class Cells:
    """How the items of a flat array spread over the range of its keys.

    Attributes
    ----------
    words : (n,) array of uint32 or uint64
    code : int
        What the words are.
    low : int
        The smallest key, which cell 0 begins with.
    shift : int
        A cell is 2**shift keys wide.
    step, n_tasks : int
        Items of a task, and how many tasks there are.
    nans : int
        How many items are nan.
    counts : (n_tasks, cells) array of int32
    """

    words: Array
    code: int
    low: int
    shift: int
    step: int
    n_tasks: int
    nans: int
    counts: Array

    @classmethod
    def of(cls, array: Array, code: int) -> Cells:
        """Count. The array is flat, and not empty."""
        words = words_of(array)
        n = words.size
        step = max(_TASK_ITEMS, -(-n // _MOST_TASKS))
        n_tasks = -(-n // step)
        bounds = scratch((n_tasks, 3), np.uint64, like=array)
        run_step("keys.key_bounds", [words, code, step, bounds], n_tasks)
        low, high = int(bounds[:, 0].min()), int(bounds[:, 1].max())
        bits = _MANY_CELL_BITS if n > _MANY_ITEMS else _CELL_BITS
        shift = max(0, max(0, high - low).bit_length() - bits)
        counts = scratch((n_tasks, 1 << bits), np.int32, like=array)
        run_step("keys.count_cells", [words, code, signed(low), shift, step, counts], n_tasks)
        return cls(words, code, low, shift, step, n_tasks, int(bounds[:, 2].sum()), counts)


def signed(word: int) -> int:
    """An unsigned word as the int64 of the same bits, which is how it travels."""
    return word - (1 << 64) if word >> 63 else word
