"""Numeric loops on plain ndarrays, for numba: the ground that everything else stands on.

The folder lies at the top level of the repository and is installed as `shmarray.kernels`. It imports NumPy
and numba only; nothing of it is compiled at import, and numba comes with the first module asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

# A package of another project owns the import name `kernels`; found under it, this folder would shadow that
# one (or run twice under two names), so it refuses.
if __name__ != "shmarray.kernels":
    raise ImportError(f"import this package as shmarray.kernels, not as {__name__}")

__all__ = [
    "accumulators",
    "atomics",
    "boundaries",
    "filters",
    "histograms",
    "keys",
    "math",
    "moments",
    "moving",
    "random",
    "reductions",
    "scans",
    "searching",
    "selection",
    "sorting",
    "stencils",
    "vectors",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__doc__", "__file__", "__name__", *__all__]
