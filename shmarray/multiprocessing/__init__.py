"""The standard library's `multiprocessing`, with what it gets wrong put right: only the import line changes.

>>> from shmarray import multiprocessing as mp
>>> with mp.Pool(2) as pool:
...     pool.map(abs, [-1, 2, -3])
[1, 2, 3]

`Pool`, `Value`, `Array`, `RawValue`, `RawArray`, `Manager`, `Pipe` and the queues are this package's; everything else
is the standard library's own object under a second name, the submodules included.

Invariant: there is one state. The start method, the current process, the logger, the resource tracker are those of
`multiprocessing`, whichever of the two packages asks for or changes them.
"""

from __future__ import annotations

import multiprocessing as _standard
from importlib import import_module
from typing import TYPE_CHECKING, Any

from shmarray.multiprocessing.context import _load
from shmarray.multiprocessing.context import default_context as _context

if TYPE_CHECKING:
    from multiprocessing import *

    from shmarray.multiprocessing.managers import ArrayManager as ArrayManager
    from shmarray.multiprocessing.remote import RemoteArray as RemoteArray

#: Ours, as methods of the default context; the rest is forwarded.
Array = _context.Array
JoinableQueue = _context.JoinableQueue  # type: ignore[misc,assignment]
Manager = _context.Manager
Pipe = _context.Pipe
Pool = _context.Pool
Queue = _context.Queue  # type: ignore[misc,assignment]
RawArray = _context.RawArray
RawValue = _context.RawValue
SimpleQueue = _context.SimpleQueue  # type: ignore[misc,assignment]
Value = _context.Value
get_context = _context.get_context

__all__ = list(_standard.__all__)


#: Ours, with nothing like them in the standard library; loaded when asked for.
_BESIDE = {"ArrayManager": "managers", "RemoteArray": "remote"}
#: Modules of which the standard package may have its own loaded already, and this one another.
_MODULES = {"connection", "managers", "pool", "queues", "sharedctypes"}


def __getattr__(name: str) -> Any:
    if name in _BESIDE:
        return _load(_BESIDE[name], name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    try:
        return getattr(_standard, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_BESIDE, *dir(_standard)})
