"""What must a forked child let go of at once?

Sockets and locks of its parent: a copy in the child keeps a connection open that the parent has closed, and a lock
taken whose holder is dead. `multiprocessing.util.register_after_fork` does not serve: a bare `os.fork` passes it by.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["close_in_children"]


class _Closable(Protocol):
    def close_in_child(self) -> None: ...


_closables: WeakSet[_Closable] | None = None


def close_in_children(thing: _Closable) -> None:
    """Have `thing.close_in_child()` called in every child forked from now on, for as long as `thing` lives."""
    global _closables
    if _closables is None:
        _closables = WeakSet()
        os.register_at_fork(after_in_child=_close_all)
    _closables.add(thing)


def _close_all() -> None:
    for thing in list(_closables or ()):
        thing.close_in_child()
