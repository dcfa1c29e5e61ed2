"""NumPy's ufuncs over chunks: its own loops, so its own bits, whatever the size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shmarray.engine.execution import run
from shmarray.engine.floating import report
from shmarray.engine.operands import Array, overlap, same_elements
from shmarray.engine.planning import plan_ufunc

__all__ = ["apply_ufunc", "reduce_ufunc"]


def apply_ufunc(ufunc: np.ufunc, inputs: Sequence[Any], outputs: Sequence[Array], *, where: Any = True) -> None:
    """Compute a ufunc into `outputs`, across the workers of the default pool.

    Parameters
    ----------
    ufunc : numpy.ufunc
    inputs : sequence of ndarray or scalar
        Plain views of shared arrays, which broadcast to the outputs' shape; scalars as NumPy takes them.
    outputs : sequence of ndarray
        Plain views, all of one shape, of dtypes that the ufunc's result casts to.
    where : bool or ndarray of bool
        As in NumPy.

    Raises
    ------
    FloatingPointError
        As the caller's errstate says; warnings likewise.
    """
    arrays = [value for value in (*inputs, where) if isinstance(value, np.ndarray)]
    in_place = any(same_elements(out, array) for out in outputs for array in arrays)
    if any(overlap(out, array) and not same_elements(out, array) for out in outputs for array in arrays):
        # NumPy buffers such operands as a whole; chunks could read what another has already written.
        ufunc(*inputs, out=tuple(outputs), where=where)
        return
    # With a mask, what lies under it is kept: it is an input.
    masked = where is not True
    flags = run(plan_ufunc(ufunc, inputs, outputs, where=where, in_place=in_place or masked))
    report(flags, ufunc.__name__)


def reduce_ufunc(ufunc: np.ufunc, array: Array, **options: Any) -> Any:
    """No ufunc's `reduce` is done in parallel yet: `NotImplemented`, so that NumPy does it on the same memory."""
    return NotImplemented
