"""NumPy's ufuncs over chunks: its own loops, so its own bits, whatever the size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from shmarray import registry
from shmarray.chunks import ChunkGrid, normalize_chunks
from shmarray.engine.execution import run
from shmarray.engine.floating import report
from shmarray.engine.operands import Array, overlap, same_elements
from shmarray.engine.plan import Plan
from shmarray.engine.planning import plan_ufunc, plan_ufunc_reduction
from shmarray.errors import KernelError, OutOfSharedMemoryError

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
    flags = _run(plan_ufunc(ufunc, inputs, outputs, where=where, in_place=in_place or masked))
    report(flags, ufunc.__name__)


def _run(plan: Plan) -> int:
    """Run a plan; what NumPy's loop raises is raised as NumPy would."""
    try:
        return run(plan)
    except KernelError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


#: Elements that one call of a ufunc's `reduce` takes. Part of what a result's bits depend on.
_REDUCED_ITEMS = 1 << 17

#: Ufuncs whose `reduce` may be taken apart: associative, and of the same dtype at every step.
_ASSOCIATIVE = frozenset(
    {
        np.add,
        np.multiply,
        np.maximum,
        np.minimum,
        np.fmax,
        np.fmin,
        np.logical_and,
        np.logical_or,
        np.logical_xor,
        np.bitwise_and,
        np.bitwise_or,
        np.bitwise_xor,
    }
)


def reduce_ufunc(
    ufunc: np.ufunc,
    array: Array,
    *,
    axis: int | tuple[int, ...] | None = 0,
    dtype: Any = None,
    out: Array | None = None,
    keepdims: bool = False,
    initial: Any = np._NoValue,
    where: Any = True,
) -> Any:
    """`ufunc.reduce` across the workers of the default pool.

    The array is cut into a grid that depends on its shape alone. NumPy reduces each chunk (pairwise, for sums), then
    the partial results in the order of the grid: the same bits for any number of workers.

    Parameters
    ----------
    ufunc : numpy.ufunc
    array : ndarray
        A plain view of a shared array.
    axis, dtype, out, keepdims, initial, where
        As in NumPy.

    Returns
    -------
    ndarray, scalar, `out`, or NotImplemented
        The last where taking apart is not the same as NumPy's whole, or not worth it.
    """
    plainly = initial is np._NoValue and where is True and array.dtype.kind in "biufc" and array.dtype != np.float16
    if ufunc not in _ASSOCIATIVE or not plainly or array.size <= _REDUCED_ITEMS:
        return NotImplemented
    axes = normalize_axis_tuple(range(array.ndim) if axis is None else axis, array.ndim)
    chunks = normalize_chunks(None, array.shape, 1, _REDUCED_ITEMS)
    grid = ChunkGrid(array.shape, chunks)
    # One element is enough to see the dtype that NumPy accumulates in.
    kind = ufunc.reduce(array[(slice(0, 1),) * array.ndim], axis=None, dtype=dtype).dtype
    if kind == np.float16 or kind.hasobject:
        return NotImplemented
    if dtype is None and out is not None and out.dtype != kind:
        return NotImplemented  # NumPy then computes in the dtype of `out`, where the loop has it
    counts = tuple(grid.counts[i] if i in axes else extent for i, extent in enumerate(array.shape))
    try:
        partials = np.asarray(registry.create(counts, kind)).view(kind).reshape(counts)
    except OutOfSharedMemoryError:
        # The grid decides the bits, so it is kept: the caller alone works through it in private memory.
        partials = np.empty(counts, kind)
    flags = _run(plan_ufunc_reduction(ufunc, array, partials, grid, axes))
    given: dict[str, Any] = {} if out is None else {"out": out}
    result = ufunc.reduce(partials, axis=axes, dtype=kind, keepdims=keepdims, **given)
    report(flags, "reduce")
    return result
