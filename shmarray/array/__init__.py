"""NumPy arrays over segments: creation, NumPy's protocols, pickling as handles, locks and files."""

from __future__ import annotations

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
