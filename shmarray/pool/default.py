"""The default pool, and what happens to all pools at a fork and at exit.

Importing this module is what ties pools to the rest of the process: segments that are unmapped, jobs that are no
more, forked children, the end.
"""

from __future__ import annotations

import atexit
import os
import threading

from shmarray import registry
from shmarray.pool.lane import SegmentKey
from shmarray.pool.pool import Pool, living_pools
from shmarray.pool.ticket import on_end

__all__ = ["close_all", "get_pool", "held_descriptors", "worker_pids"]

_default: Pool | None = None
_lock = threading.Lock()  # guards the making of the default pool


def get_pool() -> Pool:
    """The default pool of this process: made at the first call, its workers when they are first needed.

    It has as many lanes as `config.workers` says then, or as cores that this process may use; the caller is one of
    them where a kernel cannot harm it.
    """
    global _default
    pool = _default
    if pool is None or pool.closed:
        with _lock:
            pool = _default
            if pool is None or pool.closed:
                pool = _default = Pool()
    return pool


def worker_pids() -> set[int]:
    """The processes of the default pool, which live as long as this one."""
    crew = None if _default is None else _default.crew
    return set() if crew is None else {worker.pid for worker in crew.workers}


def held_descriptors() -> set[int]:
    """Descriptors that the default pool keeps open in this process."""
    crew = None if _default is None else _default.crew
    return set() if crew is None else crew.descriptors()


def close_all() -> None:
    """End all pools of this process; at exit this happens by itself."""
    for pool in living_pools():
        pool.leave()


def _forget_everywhere(number: int) -> None:
    for pool in living_pools():
        pool.forget(number)


def _unmap_everywhere(key: SegmentKey) -> None:
    for pool in living_pools():
        pool.unmap(key)


def _after_fork_in_child() -> None:
    global _default, _lock
    _lock = threading.Lock()
    for pool in living_pools():
        pool.abandon()
    _default = None  # only now: what has not been abandoned complains of its open sockets


os.register_at_fork(after_in_child=_after_fork_in_child)
registry.on_unmap(_unmap_everywhere)
on_end(_forget_everywhere)
atexit.register(close_all)
