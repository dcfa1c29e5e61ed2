"""Checking what users pass to functions of arrays, where Python or NumPy would complain about something else."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

__all__ = ["check_fill", "check_flag", "check_progress", "check_timeout"]


def check_timeout(timeout: Any) -> None:
    """`TypeError` or `ValueError` for what is no timeout.

    Examples
    --------
    >>> check_timeout(1.5), check_timeout(None)
    (None, None)
    >>> check_timeout("x")
    Traceback (most recent call last):
    TypeError: timeout must be a number of seconds, at least 0, or None; got 'x'
    """
    if timeout is None:
        return
    if not isinstance(timeout, Real):
        raise TypeError(f"timeout must be a number of seconds, at least 0, or None; got {timeout!r}")
    if not float(timeout) >= 0:
        raise ValueError(f"timeout must be a number of seconds, at least 0, or None; got {timeout!r}")


def check_flag(keyword: str, value: Any) -> None:
    """`TypeError` for a switch that is neither on nor off: `keep="no"` would be on."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{keyword} must be True or False; got {value!r}")


def check_progress(progress: Any) -> None:
    """`TypeError` for what progress cannot be told to."""
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(f"progress must be True, False or a function of (bytes done, bytes in all); got {progress!r}")


def check_fill(value: np.ndarray[Any, Any], shape: tuple[int, ...]) -> None:
    """`ValueError` if the value does not broadcast to the shape."""
    try:
        fits = np.broadcast_shapes(value.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"a fill_value of shape {value.shape} does not broadcast to the array's shape {shape}")
