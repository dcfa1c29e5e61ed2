"""How is code compiled? The one place that owns every numba option.

Invariant: whatever this package compiles, user functions included, goes through :func:`options`, so that two
processes given the same function produce the same code and a cache key can name the options by value.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["naming_indices", "options"]


def options(*, debug: bool = False, inlined: bool = False) -> dict[str, Any]:
    """Return the keyword arguments for numba's compiler.

    Parameters
    ----------
    debug
        Check array bounds: an index out of range raises `IndexError` instead of reading what lies there.
    inlined
        For what a loop calls per element: LLVM vectorises a loop only when it sees all of its body, and on
        its own stops inlining at a few elementary functions.

    Returns
    -------
    dict
        `nogil` (other threads of the process run meanwhile), `error_model="numpy"` (division by zero gives
        inf or nan, as in NumPy), no `fastmath` (results must not depend on vector width) and no `parallel`
        (the processes are the parallelism).

    Examples
    --------
    >>> options()["nogil"], options(debug=True)["boundscheck"]
    (True, True)
    """
    # boundscheck is spelled out: left away, numba takes it from the environment (NUMBA_BOUNDSCHECK).
    chosen = {"nogil": True, "error_model": "numpy", "boundscheck": bool(debug)}
    return {**chosen, "forceinline": True} if inlined else chosen


@contextmanager
def naming_indices(wanted: bool) -> Iterator[None]:
    """While code with bounds checks is compiled: have it print an index that is out of bounds.

    numba's exception does not name the index; it prints it, under this setting alone. (Another thread that compiles
    code of its own meanwhile gets the same, which does no harm.)
    """
    if not wanted:
        yield
        return
    from numba.core import config

    before = config.FULL_TRACEBACKS
    config.FULL_TRACEBACKS = 1
    try:
        yield
    finally:
        config.FULL_TRACEBACKS = before
