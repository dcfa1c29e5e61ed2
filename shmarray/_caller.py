"""Whose line led here? Warnings are to name the user's, however deep in this package, or NumPy, they are found."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

_NOT_USERS = ("shmarray", "numpy")


def warn(message: str, category: type[Warning]) -> None:
    """`warnings.warn`, for the innermost line that is neither this package's nor NumPy's."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_USERS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
