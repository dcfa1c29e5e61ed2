"""NumPy arrays in shared memory, processed in place by numba kernels across worker processes."""

from __future__ import annotations

from shmarray._version import __version__
from shmarray.configuration import config
from shmarray.errors import *  # noqa: F403

__all__ = ["__version__", "config"]
