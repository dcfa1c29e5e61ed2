"""How much was compiled in this process, and how much came ready-made?"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace

__all__ = ["Statistics", "count", "debug", "statistics"]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers of drivers since the process started."""

    compiled: int = 0
    loaded_from_disk: int = 0
    loaded_from_memory: int = 0
    received: int = 0  # loaded from another process's payload


_lock = threading.Lock()  # guards `_now`
_now = Statistics()


def statistics() -> Statistics:
    """Return what this process compiled and loaded so far.

    Examples
    --------
    >>> statistics().compiled >= 0
    True
    """
    return _now


def count(what: str) -> None:
    """Add one to a number of :class:`Statistics`."""
    global _now
    with _lock:
        _now = replace(_now, **{what: getattr(_now, what) + 1})


def _after_fork_in_child() -> None:
    # Another thread of the parent's may have held it. The numbers are whole: they are replaced in one step.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


def debug(message: str, *values: object) -> None:
    """Tell the logger `shmarray.jit`."""
    import logging

    logging.getLogger("shmarray.jit").debug(message, *values)
