"""Stencils in plain Python (`jit=False`): windows as Python objects, element by element, in the workers alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shmarray.array import SharedArray
from shmarray.chunks import ChunkGrid
from shmarray.engine import ChunkInfo, Plan, plan_function
from shmarray.ops.arguments import by_value
from shmarray.ops.results import new_shared

__all__ = ["SameEverywhere", "plan_python_stencil"]

Array = np.ndarray[Any, Any]


class SameEverywhere:
    """A window that shows one value whatever it is asked: to see what a function returns."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getitem__(self, index: Any) -> Any:
        return self._value


class Window:
    """What the function gets of an array: its neighbourhood of one element, checked against the halo."""

    def __init__(self, array: Array, halo: tuple[int, ...]) -> None:
        self._array, self._halo = array, halo
        self.centre: tuple[int, ...] = halo

    def __getitem__(self, index: Any) -> Any:
        offsets = index if isinstance(index, tuple) else (index,)
        if len(offsets) != len(self._halo):
            raise IndexError(f"a window of {len(self._halo)} dimensions is indexed by as many integers; got {index!r}")
        if any(abs(offset) > reach for offset, reach in zip(offsets, self._halo, strict=True)):
            raise IndexError(f"index {offsets} reaches beyond the halo of {self._halo}")
        return self._array[tuple(c + offset for c, offset in zip(self.centre, offsets, strict=True))]


class _ChunkFunction:
    """The whole-chunk function that applies a stencil's function to each element; pickled with its arrays' handles."""

    def __init__(self, function: Callable[..., Any], values: list[Any], halo: tuple[int, ...], dtype: Any) -> None:
        self._function, self._values, self._halo, self._dtype = function, values, halo, dtype

    def __call__(self, *, chunk_info: ChunkInfo) -> Array:
        values = [
            Window(np.asarray(value), self._halo) if isinstance(value, SharedArray) else value for value in self._values
        ]
        windows = [value for value in values if isinstance(value, Window)]
        shape = tuple(z - a for a, z in zip(chunk_info.start, chunk_info.stop, strict=True))
        result = np.empty(shape, self._dtype)
        for here in np.ndindex(shape):
            centre = tuple(i + a + h for i, a, h in zip(here, chunk_info.start, self._halo, strict=True))
            for window in windows:
                window.centre = centre
            result[here] = self._function(*values)
        return result


def plan_python_stencil(
    name: str,
    function: Callable[..., Any],
    inputs: Sequence[Array | np.generic],
    output: Array,
    grid: ChunkGrid,
    halo: tuple[int, ...],
    modes: Sequence[int],
    cvals: Sequence[np.generic],
) -> tuple[Plan, list[Any]]:
    """A plan that applies a Python function at each element; arrays are copied with what continues them.

    Returns
    -------
    plan
    values : list
        What the workers find by handles: to be kept until the plan has run.
    """
    constants = iter(cvals)
    values = [
        _continued(value, grid.shape, halo, modes, next(constants)) if isinstance(value, np.ndarray) else value
        for value in inputs
    ]
    chunk_function = by_value(_ChunkFunction(function, values, halo, output.dtype))
    no_halo = [0] * len(halo)
    plan = plan_function(name, chunk_function, [], output, grid, no_halo, with_info=True, in_place=False)
    return plan, values


def _continued(
    array: Array, shape: tuple[int, ...], halo: tuple[int, ...], modes: Sequence[int], cval: np.generic
) -> SharedArray:
    """A shared copy of an array, continued beyond its edges."""
    from shmarray.kernels.boundaries import source_index

    array = np.broadcast_to(array, shape)
    beyond = np.zeros((1,) * len(shape), bool)
    for axis, (extent, reach, mode) in enumerate(zip(shape, halo, modes, strict=True)):
        indices = np.array([source_index(i, extent, mode) for i in range(-reach, extent + reach)], np.intp)
        array = array.take(indices.clip(0), axis=axis)
        beyond = beyond | (indices < 0).reshape(*(-1 if d == axis else 1 for d in range(len(shape))))
    result = new_shared(array.shape, array.dtype)
    np.copyto(result.view(np.ndarray), np.where(beyond, cval, array))
    return result
