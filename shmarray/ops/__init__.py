"""Kernels over SharedArrays: the decorators, and parallel functions."""

from shmarray.engine import ChunkInfo
from shmarray.ops.chunkwise import chunkwise, map_chunks
from shmarray.ops.elementwise import elementwise
from shmarray.ops.histograms import Groups, group_by
from shmarray.ops.reduction import reduction
from shmarray.ops.searching import TopK, topk

__all__ = ["ChunkInfo", "Groups", "TopK", "chunkwise", "elementwise", "group_by", "map_chunks", "reduction", "topk"]
