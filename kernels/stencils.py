"""Loops over neighbours, under one name: weighted sums, ranks, moving windows, and what lies beyond the edges.

================================================================  =======================================
function                                                          what it needs of its surroundings (halo)
================================================================  =======================================
`separable_rows` (`shmarray.kernels.filters`)                     the reach of the weights, along two axes
`footprint_rows`, `rank_rows` (the same)                          the reach of the taps
`moving_sum`, `_mean`, `_min`, `_max`, `_spread` (`moving`)        the window's length less one
`source_index` (`boundaries`)                                     says which element stands beyond an edge
================================================================  =======================================

They see whole arrays and are told which units of work are theirs, so the halo is read where it lies; nothing has to be
combined afterwards. Each unit's result depends on its own surroundings alone: the same bits however an array is cut.

Examples
--------
>>> import numba
>>> import numpy as np
>>> from shmarray.kernels.stencils import REFLECT, source_index
>>> @numba.njit
... def second_difference(x, i):
...     left, right = source_index(i - 1, x.size, REFLECT), source_index(i + 1, x.size, REFLECT)
...     return x[left] - 2 * x[i] + x[right]
>>> second_difference(np.array([1.0, 4.0, 9.0]), 0)
3.0
"""

from __future__ import annotations

from .boundaries import CONSTANT, MIRROR, NEAREST, REFLECT, WRAP, source_index
from .filters import footprint_rows, rank_rows, separable_rows
from .moving import moving_max, moving_mean, moving_min, moving_spread, moving_sum

__all__ = [
    "CONSTANT",
    "MIRROR",
    "NEAREST",
    "REFLECT",
    "WRAP",
    "footprint_rows",
    "moving_max",
    "moving_mean",
    "moving_min",
    "moving_spread",
    "moving_sum",
    "rank_rows",
    "separable_rows",
    "source_index",
]
