"""Are numba's tables of what it can compile filled?

It fills them when it first compiles, and never looks at a part again that it has begun. An alarm in the middle would
leave it without additions for the rest of the program.
"""

from __future__ import annotations

from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from shmarray.interrupts import handlers_held_back

__all__ = ["fill"]

_filled = False


def fill() -> None:
    """Have them filled, whatever signals come meanwhile; called before anything is compiled."""
    global _filled
    if not _filled:
        with global_compiler_lock, handlers_held_back():
            cpu_target.typing_context.refresh()
            cpu_target.target_context.refresh()
        _filled = True
