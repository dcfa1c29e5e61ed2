"""NumPy arrays in shared memory, processed in place by numba kernels across worker processes.

>>> import shmarray as sa
>>> a = sa.array([1.0, 2.0, 3.0])
>>> @sa.elementwise
... def double(x):
...     return 2 * x
>>> double(a)
SharedArray([2., 4., 6.])

Names are loaded when they are first asked for: a program pays for arrays, the pool and the compiler as it comes to
use them, and `import shmarray` itself costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmarray._absent import hint as _hint
from shmarray._lazy import lazy_names
from shmarray._version import __version__

if TYPE_CHECKING:
    from shmarray import atomic, kernels, multiprocessing, ops, registry
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
        DamagedFrameError,
        KernelCompileError,
        KernelError,
        KernelIndexError,
        KernelTimeoutError,
        LockTimeoutError,
        ManagerAddressError,
        ManagerConnectionError,
        ManagerNotFoundError,
        OutOfSharedMemoryError,
        SegmentAccessError,
        SegmentExistsError,
        SegmentNotFoundError,
        ShmArrayError,
        WorkerDiedError,
    )
    from shmarray.multiprocessing.managers import ArrayManager
    from shmarray.multiprocessing.pool import Pool
    from shmarray.multiprocessing.remote import RemoteArray
    from shmarray.ops import ChunkInfo
    from shmarray.ops.chunkwise import chunkwise, map_chunks
    from shmarray.ops.elementwise import elementwise
    from shmarray.ops.kernel import Kernel
    from shmarray.ops.reduction import reduction
    from shmarray.ops.stencil import stencil
    from shmarray.pool import WorkerInfo, get_pool

__all__ = [
    "ArrayManager",
    "ChunkInfo",
    "ChunksUnknownError",
    "CorruptSegmentError",
    "DamagedFrameError",
    "Kernel",
    "KernelCompileError",
    "KernelError",
    "KernelIndexError",
    "KernelTimeoutError",
    "LockTimeoutError",
    "ManagerAddressError",
    "ManagerConnectionError",
    "ManagerNotFoundError",
    "OutOfSharedMemoryError",
    "Pool",
    "RemoteArray",
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
    "atomic",
    "chunkwise",
    "config",
    "elementwise",
    "empty",
    "from_raw",
    "full",
    "get_pool",
    "kernels",
    "load",
    "map_chunks",
    "multiprocessing",
    "ones",
    "open",
    "ops",
    "reduction",
    "registry",
    "save",
    "stencil",
    "unlink",
    "zeros",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **{name: "errors" if name.endswith("Error") else "array" for name in __all__},
        **dict.fromkeys(
            ["ChunkInfo", "Kernel", "chunkwise", "elementwise", "map_chunks", "reduction", "stencil"], "ops"
        ),
        **dict.fromkeys(["WorkerInfo", "get_pool"], "pool"),
        "Pool": "multiprocessing.pool",
        **dict.fromkeys(["atomic", "kernels", "multiprocessing", "ops", "registry"], ""),
        "ArrayManager": "multiprocessing.managers",
        "RemoteArray": "multiprocessing.remote",
        "config": "configuration",
    },
    hint=_hint,
)

# `shmarray.array` is the function, not the package that it comes from. The import system binds a package's name when it
# loads it: so it is loaded now (it is as lazy as this module), and the name taken away again.
__import__("shmarray.array")
globals().pop("array")
