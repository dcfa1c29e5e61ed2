"""What does a name mean that is not here, but that users of NumPy and of other packages will try?

An `AttributeError` all the same, so `hasattr` says no; its message says what to use instead. Looked at only when a name
was not found: nothing here is on the way to one that is. Nor does it load anything: `from shmarray import engine` asks
the package for an attribute of that name before the module is looked for.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

__all__ = ["Absent", "hint"]

_SHARE = "shmarray.array(x) shares what x holds; shmarray.zeros, ones, full and empty make new arrays"
_REMOVE = "shmarray.unlink(name) takes an array's name away; the memory goes with its last view: `del` that"
_KERNELS = "functions become kernels by shmarray.elementwise, reduction, stencil and chunkwise, or shmarray.map_chunks"

#: What to use -> the names that users try for it.
_NAMES = {
    _SHARE: ("shared_array", "create", "share", "from_numpy", "from_array", "fromarray", "SharedMemory"),
    "shmarray.open(name) attaches an array by its name": ("attach", "connect", "get"),
    _REMOVE: ("close", "delete", "destroy", "free", "remove", "rm"),
    _KERNELS: ("apply", "jit", "kernel", "map", "njit", "parallel", "vectorize"),
    "it is in shmarray.multiprocessing, which has all that multiprocessing has": (
        *("Array", "Barrier", "Condition", "Event", "JoinableQueue", "Lock", "Manager", "Pipe", "Process", "Queue"),
        *("RLock", "Semaphore", "SimpleQueue", "Value", "cpu_count", "get_context"),
    ),
    "it is shmarray.registry.{name}": ("gc", "info", "list", "usage"),
    "shmarray.registry.list() lists the arrays, and so does `shmarray ls` in a shell": ("ls",),
    "it is shmarray.ops.{name}": (
        *("gaussian_filter", "group_by", "maximum_filter", "median_filter", "minimum_filter", "random", "rolling_max"),
        *("rolling_mean", "rolling_min", "rolling_std", "rolling_sum", "topk", "uniform_filter"),
    ),
}
_INSTEAD = {name: text.format(name=name) for text, names in _NAMES.items() for name in names}


def hint(name: str) -> str:
    """What to use in place of `shmarray.<name>`; empty where nothing is known.

    Examples
    --------
    >>> import numpy
    >>> hint("arange")
    'numpy.arange takes SharedArrays, and shmarray.array(x) shares what it returns'
    >>> hint("topk"), hint("no_such_thing")
    ('it is shmarray.ops.topk', '')
    """
    if name in _INSTEAD:
        return _INSTEAD[name]
    numpy = sys.modules.get("numpy")
    if not name.startswith("_") and callable(vars(numpy).get(name) if numpy else None):
        return f"numpy.{name} takes SharedArrays, and shmarray.array(x) shares what it returns"
    return ""


class Absent:
    """An attribute that is not there, and says what to use; `hasattr` is false.

    In place of `__getattr__`, which would make every other attribute of the class slower to find.

    Parameters
    ----------
    instead : str
        What to use.
    """

    def __init__(self, instead: str) -> None:
        self.instead = instead
        self.__doc__ = f"Not there: {instead}."
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type[Any]) -> NoReturn:
        raise AttributeError(
            f"{owner.__name__!r} object has no attribute {self.name!r}: {self.instead}", name=self.name, obj=instance
        )
