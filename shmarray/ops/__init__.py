"""Kernels over SharedArrays: the decorators, and parallel functions."""

from shmarray.engine import ChunkInfo
from shmarray.ops.chunkwise import chunkwise, map_chunks
from shmarray.ops.elementwise import elementwise
from shmarray.ops.reduction import reduction
from shmarray.ops.stencil import stencil

__all__ = ["ChunkInfo", "chunkwise", "elementwise", "map_chunks", "reduction", "stencil"]
