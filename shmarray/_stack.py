"""Where in the user's program are we?"""

from __future__ import annotations

import sys

__all__ = ["users_level"]

#: Packages whose frames stand between a user's line and a warning about it.
_BETWEEN = ("shmarray", "numpy")


def users_level() -> int:
    """The `stacklevel` with which a warning of the calling function names the user's line, however deep it lies.

    Python shows a warning once for each line that it names: one that named a line of ours would be shown once in all.

    Examples
    --------
    >>> users_level() >= 1
    True
    """
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    return level
