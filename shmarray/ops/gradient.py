"""`gradient`: np.gradient over all cores, with its bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from shmarray.array import SharedArray
from shmarray.ops.results import new_result

__all__ = ["gradient"]

Array = np.ndarray[Any, Any]
_numpy_gradient: Any = np.gradient  # its overloads know no array of any number of dimensions


def gradient(f: Any, *varargs: Any, axis: int | tuple[int, ...] | None = None, edge_order: int = 1) -> Any:
    """Second-order differences inside, one-sided ones at the edges: :func:`numpy.gradient`, which has the formulas.

    The inside is computed by ufuncs on views, which run on all cores; the edges, and axes along which the spacing is
    not one number, are NumPy's own work.

    Parameters
    ----------
    f : array_like
    *varargs : scalar or array
        Spacing, for all axes or by axis; an array gives coordinates.
    axis : int or tuple of int, optional
    edge_order : 1 or 2

    Returns
    -------
    SharedArray, or a tuple of them for several axes

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ops.gradient(sa.array([1.0, 2.0, 4.0, 7.0, 11.0]))
    SharedArray([1. , 1.5, 2.5, 3.5, 4. ])
    """
    array = f if isinstance(f, SharedArray) else np.asarray(f)
    axes = np.lib.array_utils.normalize_axis_tuple(range(array.ndim) if axis is None else axis, array.ndim)
    spacings = [np.asarray(each) for each in (varargs * len(axes) if len(varargs) == 1 else varargs)]
    regular = all(each.ndim == 0 and each.dtype.kind in "biuf" for each in spacings)
    if not regular or len(spacings) not in (0, len(axes)) or array.dtype.kind not in "biuf" or edge_order not in (1, 2):
        return _shared(_numpy_gradient(np.asarray(array), *varargs, axis=axis, edge_order=edge_order))
    if any(array.shape[each] < edge_order + 1 for each in axes):
        raise ValueError(
            f"gradient needs at least {edge_order + 1} elements along each axis for edge_order={edge_order}; "
            f"got shape {array.shape}"
        )
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    steps = [each.item() for each in spacings] or [1.0] * len(axes)
    results = [_along(array, each, step, edge_order) for each, step in zip(axes, steps, strict=True)]
    return results[0] if len(results) == 1 else tuple(results)


def _along(array: Any, axis: int, step: float, edge_order: int) -> SharedArray:
    def at(start: int | None, stop: int | None) -> tuple[slice, ...]:
        return (*(slice(None),) * axis, slice(start, stop))

    result = new_result(array.shape, array.dtype)
    inside = result[at(1, -1)]
    if inside.size:
        np.subtract(array[at(2, None)], array[at(None, -2)], out=inside)
        np.divide(inside, array.dtype.type(2.0 * step), out=inside)
    # NumPy's edges, from as many elements as they depend on.
    plain, ends = np.asarray(array), result.view(np.ndarray)
    reach = edge_order + 1
    ends[at(None, 1)] = _numpy_gradient(plain[at(None, reach)], step, axis=axis, edge_order=edge_order)[at(None, 1)]
    ends[at(-1, None)] = _numpy_gradient(plain[at(-reach, None)], step, axis=axis, edge_order=edge_order)[at(-1, None)]
    return result


def _shared(result: Any) -> Any:
    parts = result if isinstance(result, tuple) else (result,)
    made = []
    for part in parts:
        shared = new_result(part.shape, part.dtype)
        shared[...] = part
        made.append(shared)
    return tuple(made) if isinstance(result, tuple) else made[0]
