"""NumPy arrays over segments: creation, NumPy's protocols, pickling as handles, locks and files.

The names are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmarray._lazy import lazy_names

if TYPE_CHECKING:
    from shmarray.array.creation import array, asarray, empty, from_raw, full, ones, open, unlink, zeros
    from shmarray.array.files import load, save
    from shmarray.array.functions import implements
    from shmarray.array.handles import Location, locate
    from shmarray.array.locks import ArrayLock
    from shmarray.array.results import allocate
    from shmarray.array.shared import SharedArray

__all__ = [
    "ArrayLock",
    "Location",
    "SharedArray",
    "allocate",
    "array",
    "asarray",
    "empty",
    "from_raw",
    "full",
    "implements",
    "load",
    "locate",
    "ones",
    "open",
    "save",
    "unlink",
    "zeros",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(__all__, "creation"),
        **dict.fromkeys(["load", "save"], "files"),
        **dict.fromkeys(["Location", "locate"], "handles"),
        "ArrayLock": "locks",
        "SharedArray": "shared",
        "allocate": "results",
        "implements": "functions",
    },
)
