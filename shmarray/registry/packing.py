"""How does a message keep the segments that it names, whatever becomes of its sender?

It takes descriptors along that hold the segments' liveness locks: the kernel keeps them open while the message waits
in a socket, and lets go of them with the last end of it. So a segment on its way lives as long as somebody can still
receive it, without a clock, and no longer.

While a thread *packs*, the segments that it exports are collected instead of being given a deadline.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shmarray.segment import Segment

__all__ = ["begin_packing", "collect", "end_packing", "open_leases"]


class _Thread(threading.local):
    segments: list[Segment] | None = None


_thread = _Thread()


def begin_packing() -> None:
    """From here on, what this thread exports is meant for one message."""
    _thread.segments = []


def end_packing() -> list[Segment]:
    """The segments since :func:`begin_packing`; none where it was not called."""
    segments, _thread.segments = _thread.segments, None
    return segments or []


def collect(segment: Segment) -> bool:
    """Note that a segment was exported; whether this thread packs."""
    if _thread.segments is None:
        return False
    _thread.segments.append(segment)
    return True


def open_leases(segments: Iterable[Segment]) -> list[int]:
    """Descriptors that keep these segments alive as mappings of theirs would; the caller's to close.

    Raises
    ------
    OSError
        There are no more descriptors, or a segment was unlinked meanwhile.
    """
    leases: list[int] = []
    try:
        for mapping in {id(mapping): mapping for mapping in (s.mapping.parent or s.mapping for s in segments)}.values():
            lease = mapping.open_unlocked()
            leases.append(lease)
            # Nobody has the file exclusively: this process holds it.
            fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BaseException:
        for lease in leases:
            with contextlib.suppress(OSError):
                os.close(lease)
        raise
    return leases
