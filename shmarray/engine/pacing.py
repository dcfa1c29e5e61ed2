"""How does compiled code come back to Python in time, without looking at the clock at every item?

Ctrl-C, deaths and progress are seen by Python alone, and a user's function may take a nanosecond an item or a second.
So a driver that works for the caller looks at the clock after a number of items, its *pace*, which it sets by what the
last ones took. Importing this module imports numba.
"""

from __future__ import annotations

import numba

from shmarray import jit

__all__ = ["MOST_ITEMS", "TRIAL_ITEMS", "next_pace"]

#: The first items of a bite, by which the pace is set: one, since it may take a second.
TRIAL_ITEMS = 1
#: What counts as never.
MOST_ITEMS = 1 << 40

_LOOK_NS = 1_000_000  # how far apart looks at the clock should be
_MOST_FASTER = 16  # times: what one item took says little of the next thousand
_compiled = numba.njit(**jit.options())


@_compiled
def next_pace(pace, took_ns):  # type: ignore[no-untyped-def]
    """How many items until the next look, after `pace` of them took so long."""
    return max(1, min(MOST_ITEMS, pace * _MOST_FASTER, pace * _LOOK_NS // max(1, took_ns)))
