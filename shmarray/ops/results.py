"""Where kernels put their results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shmarray import registry
from shmarray.array import SharedArray
from shmarray.array.results import allocate, over_segment, wants_sharing

__all__ = ["new_result", "new_shared"]


def new_result(shape: tuple[int, ...], dtype: np.dtype[Any]) -> SharedArray:
    """An uninitialised SharedArray: in shared memory, or private where it is small or shared memory is short."""
    if wants_sharing(math.prod(shape) * dtype.itemsize, dtype):
        shared = allocate(shape, dtype)
        if shared is not None:
            return shared.view(SharedArray)
    return np.empty(shape, dtype).view(SharedArray)


def new_shared(shape: tuple[int, ...], dtype: np.dtype[Any]) -> SharedArray:
    """An uninitialised SharedArray in shared memory, whatever its size: for what workers alone write."""
    return over_segment(registry.create(shape, dtype), shape, dtype).view(SharedArray)
