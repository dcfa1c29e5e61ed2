"""What, apart from the function, decides which machine code comes out?

Invariant: two processes with the same :func:`environment` give the same function the same code, and may run
each other's.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core import config
from numba.core.codegen import get_host_cpu_features

from shmarray._version import __version__
from shmarray.jit import forks  # noqa: F401  # what is asked here takes a lock of llvmlite's
from shmarray.jit.identity import Fingerprint, fingerprint

__all__ = ["code_key", "environment"]

#: Settings of numba's that reach the generated code (from NUMBA_* variables or a .numba_config.yaml).
_SETTINGS = (
    "BOUNDSCHECK",
    "CPU_FEATURES",
    "CPU_NAME",
    "DEBUGINFO_DEFAULT",
    "DISABLE_INTEL_SVML",
    "ENABLE_AVX",
    "EXTEND_VARIABLE_LIFETIMES",
    "LLVM_REFPRUNE_FLAGS",
    "LLVM_REFPRUNE_PASS",
    "LOOP_VECTORIZE",
    "OPT",
    "SLP_VECTORIZE",
    "USE_LEGACY_TYPE_SYSTEM",
    "USING_SVML",
)
_SOURCES = ("engine", "jit", "kernels", "ops", "pool")


def environment() -> tuple[Any, ...]:
    """Return versions, processor and settings as one value."""
    return _fixed(), tuple(repr(getattr(config, name, None)) for name in _SETTINGS)


def code_key(key: Any) -> Fingerprint:
    """Return the fingerprint of `key` in this environment."""
    return fingerprint((environment(), key))


@functools.cache
def _fixed() -> Fingerprint:
    parts = (
        sys.implementation.cache_tag,
        sys.hexversion,
        np.__version__,
        numba.__version__,
        llvmlite.__version__,
        llvm.get_process_triple(),
        config.CPU_NAME or llvm.get_host_cpu_name(),
        config.CPU_FEATURES or get_host_cpu_features(),
        __version__,
        _stamps(),
    )
    return fingerprint(parts)


def _stamps() -> tuple[Any, ...]:
    """Sizes and times of this package's own sources: fingerprints name its functions and do not read them."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    stamps = []
    for package in _SOURCES:
        for folder, folders, files in os.walk(os.path.join(root, package), followlinks=True):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in sorted(files):
                if name.endswith(".py"):
                    found = os.stat(os.path.join(folder, name))
                    stamps.append((name, found.st_size, found.st_mtime_ns))
    return tuple(stamps)
