"""One segment: how it is laid out, mapped and described.

A segment is a file in `/dev/shm`, mapped; see :mod:`shmarray.segment.descriptor` for its bytes and
:mod:`shmarray.segment.segment` for the object that keeps it mapped. Which segments exist, and when one
goes, is the business of :mod:`shmarray.registry`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from shmarray.segment.libc import map_descriptor, unmap

if TYPE_CHECKING:
    from shmarray.segment.descriptor import Descriptor
    from shmarray.segment.segment import Segment

__all__ = ["Descriptor", "Segment", "map_descriptor", "segment_of", "unmap"]

_SEGMENT = "shmarray.segment.segment"


def __getattr__(name: str) -> Any:
    # Segment derives from a class whose module is slow to import; see shmarray.segment.segment.
    if name == "Segment":
        from shmarray.segment.segment import Segment

        globals()["Segment"] = Segment
        return Segment
    if name == "Descriptor":
        from shmarray.segment.descriptor import Descriptor

        globals()["Descriptor"] = Descriptor
        return Descriptor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_kind: type | None = None


def segment_of(array: np.ndarray[Any, Any]) -> Segment | None:
    """The segment whose pages an array's elements lie in; None for private memory.

    Examples
    --------
    >>> from shmarray import registry
    >>> segment = registry.create((2, 3), "f8")
    >>> view = np.asarray(segment).view("f8")[::-2]
    >>> segment_of(view) is segment
    True
    >>> segment_of(np.zeros(3)) is None
    True
    """
    global _kind
    if _kind is None:
        if _SEGMENT not in sys.modules:
            return None  # no segment can exist yet
        _kind = sys.modules[_SEGMENT].Segment
    base: Any = array.base
    while base is not None:
        if type(base) is _kind:
            return cast("Segment", base)
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return None
