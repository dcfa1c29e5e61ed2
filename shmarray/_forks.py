"""When may a child be forked beside other threads?

The child has their locks and not the threads: it would wait for ever for one that another thread held. So a fork
waits until this library's locks are free and takes them, and parent and child both go on with locks that are free.

The lock of a module that another thread imports is such a lock, too. Ours, and numba under them, are loaded when they
are first needed, by whatever thread needs them, and numba takes a second; so a fork waits for imports that come to an
end.

Invariant: locks are taken in the order of their ranks, in which the code takes them, whenever they came to be
registered; also those that came while this waited. All come before the lock of `logging`, which whoever has one of ours
may need.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from importlib import _bootstrap  # the locks of modules have no public face
from typing import NamedTuple

__all__ = ["at_forks", "watch"]

#: How long a fork waits for imports. Past that it is done all the same: a child that only ends is not harmed.
_PATIENCE_S = 20.0
#: Packages whose import ends by itself. A program's own may be a thread that imports its main part, and stays there.
_KNOWN = frozenset({"shmarray", "numba", "llvmlite", "numpy", "cloudpickle"}) | sys.stdlib_module_names


class _Part(NamedTuple):
    """What some module does around a fork."""

    rank: int
    before: Callable[[], object]
    in_parent: Callable[[], object]
    in_child: Callable[[], object]


_parts: list[_Part] = []
_here = threading.local()
_registered: set[bool] = set()  #: whether after `logging` was, of each registration


def watch() -> None:
    """From now on forks wait. Called before modules are loaded late."""
    if not hasattr(os, "register_at_fork"):  # Windows, where only the import works
        return
    if threading.active_count() > 1:
        import logging  # noqa: F401  # not in the middle of what is loaded: a fork that waits for it would have its lock
    # What is registered last runs first, so once more when `logging` has come. The first that runs does it all.
    if (after_logging := "logging" in sys.modules) not in _registered:
        _registered.add(after_logging)
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
        )


def at_forks(
    rank: int, *, before: Callable[[], object], in_parent: Callable[[], object], in_child: Callable[[], object]
) -> None:
    """Have functions called around forks, the `before` of the lowest rank first, the others the other way round.

    Unlike with `os.register_at_fork`, `in_parent` is called only where `before` was.
    """
    watch()
    _parts.append(_Part(rank, before, in_parent, in_child))


def _before_fork() -> None:
    if "ready" in _here.__dict__:
        return
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        while threading.active_count() > 1 and _is_another_importing() and time.monotonic() < until_s:
            time.sleep(1e-3)
        _here.ready = ready = []
        for part in sorted(_parts, key=lambda part: part.rank):
            part.before()
            ready.append(part)
        # Whoever had one of the locks may have begun an import meanwhile, and may need another of them to end it.
        if threading.active_count() == 1 or not _is_another_importing() or time.monotonic() > until_s:
            break
        _after_fork_in_parent()


def _is_another_importing() -> bool:
    me = threading.get_ident()
    for name, reference in list(getattr(_bootstrap, "_module_locks", {}).items()):
        if name.partition(".")[0] in _KNOWN:
            owner = getattr(reference(), "owner", None)  # the thread that imports it
            if owner is not None and owner != me:
                return True
    return False


def _after_fork_in_parent() -> None:
    ready: list[_Part] = _here.__dict__.pop("ready", [])
    while ready:
        ready.pop().in_parent()


def _after_fork_in_child() -> None:
    if _here.__dict__.pop("ready", None) is not None:
        for part in sorted(_parts, key=lambda part: -part.rank):
            part.in_child()
