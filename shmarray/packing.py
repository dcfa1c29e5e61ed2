"""Which segments does the message name that a thread is about to send?

Carriers of this package keep a segment until its receiver has it: their messages take descriptors along that hold the
segments' liveness locks (`shmarray.registry.references.open_leases`). The kernel keeps these open while the message
waits in a socket, and lets go of them with the last end of it. So a segment on its way lives as long as somebody can
still receive it, without a clock, and no longer.

While a thread *packs*, the segments that it exports are collected here instead of being given a deadline. Nothing is
imported, so that carriers cost no more than the standard library's where no array is sent.
"""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["ATOMS", "begin_packing", "collect", "end_packing", "is_plain"]

#: Types whose pickles nothing can change, so that the plain function will do: it is several times as fast.
ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None)})


class _Thread(threading.local):
    segments: list[Any] | None = None


_thread = _Thread()


def begin_packing() -> None:
    """From here on, what this thread exports is meant for one message."""
    _thread.segments = []


def end_packing() -> list[Any]:
    """The segments since :func:`begin_packing`; none where it was not called."""
    segments, _thread.segments = _thread.segments, None
    return segments or []


def is_plain(thing: Any) -> bool:
    """Whether it is an atom, or a tuple or list of these: it names no segment, and any pickler makes the same of it.

    Examples
    --------
    >>> is_plain((1, "two")), is_plain([[]])
    (True, False)
    """
    kind = type(thing)
    return kind in ATOMS or ((kind is tuple or kind is list) and ATOMS.issuperset(map(type, thing)))


def collect(segment: Any) -> bool:
    """Note that a segment was exported; whether this thread packs."""
    if _thread.segments is None:
        return False
    _thread.segments.append(segment)
    return True
