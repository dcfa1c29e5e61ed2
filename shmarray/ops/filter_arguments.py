"""What filters are given, checked: the array, its edges, where the result goes, and the box or the weights.

A box is told by its size along each axis, or by a footprint: which of its elements count. `origin` moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shmarray.array import SharedArray
from shmarray.ops.borders import boundary_modes
from shmarray.ops.results import new_result
from shmarray.ops.units import options_of, packed

__all__ = ["FilterCall", "by_axis", "centre_of", "mask_of", "weights_of", "windows_of"]

Array = np.ndarray[Any, Any]


class FilterCall:
    """One call: arguments checked, and where the result goes."""

    def __init__(self, name: str, input: Any, mode: Any, cval: Any, out: Any, options: dict[str, Any]) -> None:
        self.name, self.out = name, out
        self.options = options_of(name, options)
        array = np.asarray(input)
        if array.dtype.kind not in "biuf" or array.dtype.itemsize not in (1, 2, 4, 8) or array.dtype == np.float16:
            raise TypeError(
                f"{name} takes arrays of integers, booleans, float32 or float64; got dtype {array.dtype}. Convert it, "
                "or filter real and imaginary parts"
            )
        if array.ndim == 0:
            raise ValueError(f"{name} needs an array with at least one dimension")
        self.modes = boundary_modes(mode, array.ndim, name=name)
        try:
            self.cval = float(cval)
        except (TypeError, ValueError):
            raise TypeError(f"{name}: cval must be a real number; got {cval!r}") from None
        self.dtype = array.dtype.newbyteorder("=")
        if out is not None:
            if not isinstance(out, SharedArray):
                raise TypeError(f"{name}: out must be a SharedArray; got {type(out).__name__}")
            if out.shape != array.shape:
                raise ValueError(f"{name}: out has shape {out.shape}; the result has shape {array.shape}")
            if out.dtype.kind not in "biuf" or not out.flags.writeable:
                raise ValueError(f"{name}: out must be writeable and of real numbers; got dtype {out.dtype}")
            self.dtype = out.dtype.newbyteorder("=")
        self.source = packed(array)
        #: What sums are taken in.
        single = self.dtype == np.float32 and array.dtype == np.float32
        self.work = np.dtype(np.float32 if single else np.float64)
        #: Integer results are cut to whole numbers after each axis.
        self.whole = self.dtype.kind in "biu"

    def finish(self, compute: Callable[[Array], None]) -> Any:
        """The result, which `compute` puts into a contiguous array of the result's dtype that is not the input."""
        shape, out = self.source.shape, self.out
        if out is not None:
            plain = out.view(np.ndarray)
            fits = plain.flags.c_contiguous and plain.dtype.isnative and not np.may_share_memory(plain, self.source)
            result = out if fits else new_result(shape, self.dtype)
        else:
            result = new_result(shape, self.dtype)
        if result.size:
            compute(result.view(np.ndarray))
        if out is not None and result is not out:
            out[...] = result
        return result if out is None else out


def by_axis(value: Any, n_dims: int, what: str) -> list[Any]:
    values = list(value) if isinstance(value, Sequence | np.ndarray) else [value] * n_dims
    if len(values) != n_dims:
        raise ValueError(f"{what} must be one value, or one for each of {n_dims} dimensions; got {value!r}")
    return values


def centre_of(call: FilterCall, shape: Sequence[int], origin: Any) -> Array:
    """Which element of a box meets the one at hand."""
    centre: Array = np.array(shape) // 2 + np.array(by_axis(origin, len(shape), "origin"), int)
    if np.any(centre < 0) or np.any(centre >= shape):
        raise ValueError(f"{call.name}: origin {origin!r} lies outside the filter of shape {tuple(shape)}")
    return centre


def windows_of(call: FilterCall, size: Any, origin: Any) -> list[tuple[int, int]]:
    """Of each axis the window's length, and how many of it lie before the element at hand."""
    sizes = [int(each) for each in by_axis(size, call.source.ndim, "size")]
    if min(sizes) < 1:
        raise ValueError(f"{call.name}: size must be at least 1; got {size!r}")
    return list(zip(sizes, map(int, centre_of(call, sizes, origin)), strict=True))


def mask_of(call: FilterCall, size: Any, footprint: Any) -> Array:
    n_dims = call.source.ndim
    if (size is None) == (footprint is None):
        raise ValueError(f"{call.name}: give size or footprint, one of the two")
    if footprint is None:
        sizes = [int(each) for each in by_axis(size, n_dims, "size")]
        if min(sizes) < 1:
            raise ValueError(f"{call.name}: size must be at least 1; got {size!r}")
        return np.ones(sizes, bool)
    mask = np.asarray(footprint, bool)
    if mask.ndim != n_dims or not mask.any():
        raise ValueError(
            f"{call.name}: footprint must have the array's {n_dims} dimensions and something true in it; "
            f"got shape {mask.shape}"
        )
    return mask


def weights_of(call: FilterCall, weights: Any) -> Array:
    kernel = np.asarray(weights)
    if kernel.ndim != call.source.ndim or kernel.size == 0:
        raise ValueError(
            f"{call.name}: weights must have the array's {call.source.ndim} dimensions, none of them 0; "
            f"got shape {kernel.shape}"
        )
    if kernel.dtype.kind not in "biuf":
        raise TypeError(f"{call.name}: weights must be real numbers; got dtype {kernel.dtype}")
    return kernel.astype(np.float64)
