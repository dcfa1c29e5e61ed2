"""Floating-point errors of other processes, raised or warned of here as the caller's `np.errstate` says."""

from __future__ import annotations

import sys

import numpy as np

from shmarray._caller import warn

__all__ = ["report"]

# NumPy's bits (numpy/_core/include/numpy/ufuncobject.h), its name in errstate, and its words.
_FLAGS = (
    (1, "divide", "divide by zero"),
    (2, "over", "overflow"),
    (4, "under", "underflow"),
    (8, "invalid", "invalid value"),
)


def report(flags: int, name: str) -> None:
    """Act on flags that chunks of the ufunc `name` noted.

    Raises
    ------
    FloatingPointError
        Where the caller's errstate says "raise".
    """
    if not flags:
        return
    state = np.geterr()
    for bit, kind, words in _FLAGS:
        if not flags & bit:
            continue
        action = state[kind]  # type: ignore[literal-required]
        message = f"{words} encountered in {name}"
        if action == "warn":
            warn(message, RuntimeWarning)
        elif action == "raise":
            raise FloatingPointError(message)
        elif action == "print":
            print(f"Warning: {message}", file=sys.stderr)  # as NumPy does
        elif action == "call":
            handler = np.geterrcall()
            if callable(handler):
                handler(words, flags)
        elif action == "log":
            handler = np.geterrcall()
            if handler is not None:
                handler.write(f"Warning: {message}\n")  # type: ignore[union-attr]
