"""Which start method do processes have, and which classes come with it?

A context here is the standard library's context of that start method with our `Pool`, `Value`, `Array`, `RawValue`,
`RawArray`, `Manager`, `Pipe` and queues. It is a subclass, so it goes wherever a context of `multiprocessing` is taken
(`concurrent.futures.ProcessPoolExecutor(mp_context=...)` for one).

Invariant: the default start method is kept in one place, the standard library's. `set_start_method` of either package
changes it for both.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from multiprocessing import context as _standard
from typing import TYPE_CHECKING, Any

from shmarray.interrupts import handlers_held_back

if TYPE_CHECKING:
    from shmarray.multiprocessing.managers import ArrayManager
    from shmarray.multiprocessing.pool import Pool

__all__ = ["DefaultContext", "ForkContext", "ForkServerContext", "SpawnContext", "default_context"]


def _load(module: str, name: str) -> Any:
    """What a module of ours defines; loading it is not interrupted, as NumPy cannot be imported again after that."""
    full = f"shmarray.multiprocessing.{module}"
    if full not in sys.modules:
        with handlers_held_back():
            import_module(full)
    return getattr(import_module(full), name)


class _OurClasses:
    """What our contexts have in place of the standard library's."""

    if TYPE_CHECKING:

        def get_context(self, method: str | None = None) -> Any: ...

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        retries: int = 0,
    ) -> Pool:
        """A pool of worker processes; see :class:`shmarray.multiprocessing.pool.Pool`."""
        made: Pool = _load("pool", "Pool")(
            processes, initializer, initargs, maxtasksperchild, context=self.get_context(), retries=retries
        )
        return made

    def Manager(self) -> ArrayManager:
        """A server process for arrays, and for objects that others use through proxies.

        Examples
        --------
        >>> with default_context.Manager() as manager:
        ...     shared = manager.list(range(3))
        ...     image = manager.array((2, 2), "i4")
        ...     image += 1
        ...     sum(shared), int(image.sum())
        (3, 4)
        """
        manager: ArrayManager = _load("managers", "ArrayManager")(ctx=self.get_context())
        manager.start()
        return manager

    def Pipe(self, duplex: bool = True) -> Any:
        """Two connected ends; see :func:`shmarray.multiprocessing.connection.Pipe`."""
        return _load("connection", "Pipe")(duplex)

    def Queue(self, maxsize: int = 0) -> Any:
        """A queue; see :class:`shmarray.multiprocessing.queues.Queue`."""
        return _load("queues", "Queue")(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        """A queue with `task_done` and `join`; see :class:`shmarray.multiprocessing.queues.JoinableQueue`."""
        return _load("queues", "JoinableQueue")(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> Any:
        """A pipe with locks; see :class:`shmarray.multiprocessing.queues.SimpleQueue`."""
        return _load("queues", "SimpleQueue")(ctx=self.get_context())

    def RawValue(self, typecode_or_type: Any, *args: Any, **naming: Any) -> Any:
        """A ctypes object in shared memory; see :func:`shmarray.multiprocessing.sharedctypes.RawValue`."""
        return _load("sharedctypes", "RawValue")(typecode_or_type, *args, **naming)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any, **naming: Any) -> Any:
        """A ctypes array in shared memory; see :func:`shmarray.multiprocessing.sharedctypes.RawArray`."""
        return _load("sharedctypes", "RawArray")(typecode_or_type, size_or_initializer, **naming)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True, **naming: Any) -> Any:
        """A ctypes object in shared memory and its lock; see :func:`shmarray.multiprocessing.sharedctypes.Value`."""
        return _load("sharedctypes", "Value")(typecode_or_type, *args, lock=lock, ctx=self.get_context(), **naming)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, **naming: Any) -> Any:
        """A ctypes array in shared memory and its lock; see :func:`shmarray.multiprocessing.sharedctypes.Array`."""
        make = _load("sharedctypes", "Array")
        return make(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context(), **naming)


def _context(method: str | None) -> Any:
    """Our context of a start method, by default the program's."""
    if method is None:
        method = multiprocessing.get_start_method()
    try:
        context = _contexts[method]
    except KeyError:
        raise ValueError(
            f"there is no start method {method!r}; there are {', '.join(multiprocessing.get_all_start_methods())}"
        ) from None
    context._check_available()
    return context


class ForkContext(_OurClasses, _standard.ForkContext):
    """Children are forked: they inherit everything."""

    def get_context(self, method: str | None = None) -> Any:
        return self if method is None else _context(method)


class SpawnContext(_OurClasses, _standard.SpawnContext):
    """Children are new interpreters that import the main module."""

    def get_context(self, method: str | None = None) -> Any:
        return self if method is None else _context(method)


class ForkServerContext(_OurClasses, _standard.ForkServerContext):
    """Children are forked by a server process that has nothing to inherit."""

    def get_context(self, method: str | None = None) -> Any:
        return self if method is None else _context(method)


class DefaultContext(_OurClasses, _standard.DefaultContext):
    """The program's start method, whatever it is when something is made."""

    def __init__(self) -> None:
        super().__init__(_contexts["fork"])

    def get_context(self, method: str | None = None) -> Any:
        return _context(method)

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        multiprocessing.set_start_method(method, force)

    def get_start_method(self, allow_none: bool = False) -> Any:
        return multiprocessing.get_start_method(allow_none)


_contexts: dict[str, Any] = {"fork": ForkContext(), "spawn": SpawnContext(), "forkserver": ForkServerContext()}

#: The one behind the functions of this package.
default_context = DefaultContext()


def __getattr__(name: str) -> Any:
    # `multiprocessing.context` has more names, private ones that others use too.
    try:
        return getattr(_standard, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
