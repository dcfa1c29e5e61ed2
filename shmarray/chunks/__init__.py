"""Pure integers: how a shape is cut into chunks. Nothing here knows of memory."""

from shmarray.chunks.grid import ChunkGrid, normalize_chunks

__all__ = ["ChunkGrid", "normalize_chunks"]
