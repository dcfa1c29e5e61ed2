"""Checking what users say about the edges of arrays: halos, boundary modes, and the value beyond."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["MODES", "boundary_modes", "constant_of", "halo_of"]

#: By their numbers in `shmarray.kernels.boundaries`, which is not imported for them: it would load numba. The names
#: with "grid-" are scipy.ndimage's for the same in its filters.
MODES = {"reflect": 0, "constant": 1, "nearest": 2, "mirror": 3, "wrap": 4}
MODES |= {"grid-mirror": 0, "grid-constant": 1, "grid-wrap": 4}


def halo_of(halo: Any, n_dims: int | None, *, name: str) -> tuple[int, ...]:
    """A halo as one integer a dimension; with `n_dims` None only what holds for any number of them is checked."""
    many = isinstance(halo, Sequence | np.ndarray)
    expected = "one integer, or one for each dimension"
    widths = tuple(halo) if many else (halo,) * (1 if n_dims is None else n_dims)
    try:
        widths = tuple(operator.index(width) for width in widths)
    except TypeError:
        raise TypeError(f"{name}: halo must be {expected}; got {halo!r}") from None
    if n_dims is not None and len(widths) != n_dims:
        raise ValueError(f"{name}: halo must be {expected}; got {halo!r} for an array of {n_dims} dimensions")
    if any(width < 0 for width in widths):
        raise ValueError(f"{name}: halo must not be negative; got {halo!r}")
    return widths


def boundary_modes(mode: Any, n_dims: int | None, *, name: str) -> tuple[int, ...]:
    """Boundary modes as numbers, one a dimension; `n_dims` as for `halo_of`."""
    given = (mode,) * (1 if n_dims is None else n_dims) if isinstance(mode, str) else mode
    if not isinstance(given, Sequence):
        raise TypeError(f"{name}: mode must be a string, or one for each dimension; got {mode!r}")
    if n_dims is not None and len(given) != n_dims:
        raise ValueError(f"{name}: got {len(given)} modes for an array of {n_dims} dimensions")
    for each in given:
        if each not in MODES:
            known = ", ".join(repr(known) for known in MODES if not known.startswith("grid-"))
            raise ValueError(f"{name}: mode must be one of {known}; got {each!r}")
    return tuple(MODES[each] for each in given)


def constant_of(cval: Any, dtype: np.dtype[Any], *, name: str) -> np.generic:
    """The value beyond the edges of an array of this dtype.

    Raises
    ------
    ValueError
        When it has no such value.
    """
    try:
        with np.errstate(all="ignore"):
            value: Any = np.asarray(cval).astype(dtype)[()]
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: cval must be a number; got {cval!r} ({error})") from None
    if not isinstance(value, np.generic):
        raise TypeError(f"{name}: cval must be one number; got {cval!r}")
    if dtype.kind in "biu" and value != cval:
        raise ValueError(f"{name}: cval {cval!r} is no value of dtype {dtype}; convert the array, or give another cval")
    return value
