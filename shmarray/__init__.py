"""NumPy arrays in shared memory, processed in place by numba kernels across worker processes.

>>> import shmarray as sa
>>> a = sa.array([1.0, 2.0, 3.0])
>>> @sa.elementwise
... def double(x):
...     return 2 * x
>>> double(a)
SharedArray([2., 4., 6.])
"""

from __future__ import annotations

from shmarray import ops, registry
from shmarray._version import __version__
from shmarray.array import (
    SharedArray,
    array,
    asarray,
    empty,
    from_raw,
    full,
    load,
    ones,
    open,
    save,
    unlink,
    zeros,
)
from shmarray.configuration import config
from shmarray.errors import (
    ChunksUnknownError,
    CorruptSegmentError,
    KernelCompileError,
    KernelError,
    KernelTimeoutError,
    LockTimeoutError,
    OutOfSharedMemoryError,
    SegmentAccessError,
    SegmentExistsError,
    SegmentNotFoundError,
    ShmArrayError,
    WorkerDiedError,
)
from shmarray.ops import ChunkInfo, chunkwise, elementwise, map_chunks, reduction
from shmarray.pool import Pool, WorkerInfo, get_pool

__all__ = [
    "ChunkInfo",
    "ChunksUnknownError",
    "CorruptSegmentError",
    "KernelCompileError",
    "KernelError",
    "KernelTimeoutError",
    "LockTimeoutError",
    "OutOfSharedMemoryError",
    "Pool",
    "SegmentAccessError",
    "SegmentExistsError",
    "SegmentNotFoundError",
    "SharedArray",
    "ShmArrayError",
    "WorkerDiedError",
    "WorkerInfo",
    "__version__",
    "array",
    "asarray",
    "chunkwise",
    "config",
    "elementwise",
    "empty",
    "from_raw",
    "full",
    "get_pool",
    "load",
    "map_chunks",
    "ones",
    "open",
    "ops",
    "reduction",
    "registry",
    "save",
    "unlink",
    "zeros",
]
