"""NumPy arrays in shared memory, processed in place by numba kernels across worker processes."""

from __future__ import annotations

from shmarray import registry
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
from shmarray.errors import *  # noqa: F403

__all__ = [
    "SharedArray",
    "__version__",
    "array",
    "asarray",
    "config",
    "empty",
    "from_raw",
    "full",
    "load",
    "ones",
    "open",
    "registry",
    "save",
    "unlink",
    "zeros",
]
