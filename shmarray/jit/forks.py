"""May a child be forked while another thread compiles?

The child has that thread's locks and not the thread: it would wait for ever when it first compiles, or loads, a kernel.
So a fork waits until nobody compiles (`shmarray._forks`).

Invariant: locks are taken in the order in which the code takes them, the outer ones first, and before those of the
registry, whose segments a compiling thread may drop.
"""

from __future__ import annotations

import threading
from typing import Any

from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from shmarray._forks import at_forks
from shmarray.interrupts import held_back

__all__ = ["compiling"]

#: How long a fork waits for compilers. Past that it is done all the same: a child that only ends is not harmed.
_PATIENCE_S = 20.0

#: Held while compiling (numba lets no more than one thread anyway): the others wait and find the result.
compiling = threading.RLock()
#: The second is numba's, which a user's `@njit` takes without ours; its own `acquire` cannot be told to give up. The
#: third is llvmlite's, taken for every call into LLVM: for a question about the processor, or to drop a module.
_locks: tuple[Any, ...] = (compiling, global_compiler_lock._lock, ffi.lib._lock._lock)
_here = threading.local()
# numba makes this under locks of its own, at its first use. Here, while a fork waits for the import of this module.
assert cpu_target.target_context is not None


def _before_fork() -> None:
    with held_back():  # an exception in here would leave locks taken
        _here.held = [lock for lock in _locks if lock.acquire(timeout=_PATIENCE_S)]


def _after_fork() -> None:
    for lock in reversed(_here.__dict__.pop("held", [])):
        lock.release()


at_forks(1, before=_before_fork, in_parent=_after_fork, in_child=_after_fork)
