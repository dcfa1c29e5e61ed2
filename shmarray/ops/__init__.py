"""Kernels over SharedArrays: the decorators, and parallel functions that NumPy has no name for."""

from shmarray.engine import ChunkInfo
from shmarray.ops import random
from shmarray.ops.chunkwise import chunkwise, map_chunks
from shmarray.ops.elementwise import elementwise
from shmarray.ops.filters import (
    convolve,
    correlate,
    gaussian_filter,
    laplace,
    maximum_filter,
    median_filter,
    minimum_filter,
    uniform_filter,
)
from shmarray.ops.gradient import gradient
from shmarray.ops.histograms import Groups, group_by
from shmarray.ops.kernel import Kernel
from shmarray.ops.reduction import reduction
from shmarray.ops.rolling import rolling_max, rolling_mean, rolling_min, rolling_std, rolling_sum
from shmarray.ops.searching import TopK, topk
from shmarray.ops.stencil import stencil

__all__ = [
    "ChunkInfo",
    "Groups",
    "Kernel",
    "TopK",
    "chunkwise",
    "convolve",
    "correlate",
    "elementwise",
    "gaussian_filter",
    "gradient",
    "group_by",
    "laplace",
    "map_chunks",
    "maximum_filter",
    "median_filter",
    "minimum_filter",
    "random",
    "reduction",
    "rolling_max",
    "rolling_mean",
    "rolling_min",
    "rolling_std",
    "rolling_sum",
    "stencil",
    "topk",
    "uniform_filter",
]


def __dir__() -> list[str]:
    return ["__doc__", "__file__", "__name__", *__all__]
