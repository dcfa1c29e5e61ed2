"""How is code compiled? The one place that owns every numba option.

Invariant: whatever this package compiles, user functions included, goes through :func:`options`, so that two
processes given the same function produce the same code and a cache key can name the options by value.
"""

from __future__ import annotations

from typing import Any

__all__ = ["options"]


def options(*, debug: bool = False) -> dict[str, Any]:
    """Return the keyword arguments for numba's compiler.

    Parameters
    ----------
    debug
        Check array bounds: an index out of range raises `IndexError` instead of reading what lies there.

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
    return {"nogil": True, "error_model": "numpy", "boundscheck": bool(debug)}
