"""What do arrays hold on to, so that their memory stays?

A :class:`Segment`: the class of the standard library in name and use (it is a subclass, and goes
wherever `multiprocessing.shared_memory.SharedMemory` is taken), but with creation, `close`, `unlink`,
`__del__` and pickling made safe, and never known to the resource tracker, which would destroy what
other processes still use.

Invariant: while anything refers to a Segment, its pages are mapped. Arrays refer to it through
`.base`, so no view outlives its memory, whatever was closed or unlinked.

This module is loaded at the first segment, not with the package: the standard module brings 20 ms of
imports (subprocess, secrets, hmac), which a program that only imports shmarray need not pay.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shmarray.segment.descriptor import USER_LOCK, Descriptor
from shmarray.segment.mapping import Mapping

__all__ = ["Owner", "Segment"]


class Owner(Protocol):
    """What a segment asks of the registry, the only code that names, removes and reuses files."""

    def release(self, mapping: Mapping) -> None:
        """One segment object fewer stands for this mapping. Called from `__del__`."""

    def publish(self, mapping: Mapping) -> str:
        """Give the file a name if it has none; the pages are exported from now on."""

    def unlink(self, mapping: Mapping) -> None:
        """Remove the file's name; whoever maps it keeps it."""

    def reduce(self, segment: Segment) -> tuple[Callable[..., Segment], tuple[Any, ...]]:
        """How to pickle it."""


class Segment(SharedMemory):
    """One mapped segment of shared memory.

    Made by `shmarray.registry`, not by calling the class.

    Attributes
    ----------
    address : int
        Where the data begin, in this process.
    nbytes : int
        Bytes of data, 0 possible.
    descriptor : Descriptor
        Shape, dtype, chunks and the like, as checked once.
    mode : str
        ``"r+"``, ``"r"`` or ``"c"``.
    user_name : str or None
        The name the user gave.
    key : tuple of int
        Device and inode: equal for all segments, of any process, on the same pages.
    fresh : bool
        The pages were just reserved, so they read as zero.
    lock_address : int
        64 bytes for a robust mutex between processes; 0 where there is none (a private or read-only
        mapping, a foreign segment).

    Examples
    --------
    >>> from shmarray import registry
    >>> segment = registry.create(4, "u1")
    >>> segment.buf[:] = b"abcd"
    >>> np.asarray(segment)
    array([ 97,  98,  99, 100], dtype=uint8)
    """

    address: int
    nbytes: int
    descriptor: Descriptor
    mode: str
    user_name: str | None
    key: tuple[int, int]
    fresh: bool
    lock_address: int

    _owner: Owner
    _held: Mapping | None = None
    _closed = False

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        raise TypeError(
            "a Segment is not made by calling its class; use shmarray.empty, open or from_raw and take `.shm`"
        )

    @classmethod
    def _of(cls, mapping: Mapping, owner: Owner) -> Segment:
        """Stand for a mapping, whose count the caller has raised."""
        self = cls.__new__(cls)
        descriptor = mapping.descriptor
        self.address = mapping.address
        self.nbytes = descriptor.nbytes
        self.descriptor = descriptor
        self.mode = mapping.mode
        self.user_name = descriptor.name
        self.key = mapping.key
        self.fresh = mapping.fresh
        usable = mapping.mode == "r+" and not mapping.foreign
        self.lock_address = mapping.address + mapping.capacity + USER_LOCK if usable else 0
        self._owner = owner
        self._held = mapping
        return self

    @property
    def mapping(self) -> Mapping:
        """The registry's record of the mapped file."""
        if self._held is None:
            raise ValueError("this segment has been torn down by the garbage collector")
        return self._held

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": (self.nbytes,),
            "typestr": "|u1",
            "data": (self.mapping.address, self.mode == "r"),
        }

    @property
    def name(self) -> str:
        """The file's name, for any program's `shm_open`. Asking for it publishes a nameless segment."""
        return self._owner.publish(self.mapping)

    @property
    def size(self) -> int:
        """Bytes of data. (The file is longer: it is padded and ends in a descriptor page.)"""
        return self.nbytes

    @property
    def buf(self) -> memoryview:
        """The data as bytes; None after :meth:`close`, as in the standard class."""
        if self._closed or self._held is None:
            return None  # type: ignore[return-value]  # the stub overlooks that the standard class does so
        view: npt.NDArray[np.uint8] = np.asarray(self)
        return memoryview(view)  # type: ignore[arg-type]  # an ndarray is a buffer

    def close(self) -> None:
        """Give up `buf`. The pages go with the last reference, so views that exist stay valid."""
        self._closed = True

    def unlink(self) -> None:
        """Remove the name; whoever maps the segment keeps it."""
        self._owner.unlink(self.mapping)

    def open_unlocked(self) -> int:
        """A new descriptor on the file, for a process that maps it without keeping it alive.

        The caller closes it. `SegmentNotFoundError` when neither a descriptor nor a name is left.
        """
        return self.mapping.open_unlocked()

    def __del__(self) -> None:
        mapping = self._held
        if mapping is not None:
            self._held = None
            self._owner.release(mapping)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._owner.reduce(self)

    def __repr__(self) -> str:
        # Not `.name`: to look at a segment must not publish it.
        label = self.user_name or (self._held.file_name if self._held is not None else None)
        return f"{type(self).__name__}({label!r}, nbytes={self.nbytes}, mode={self.mode!r})"
