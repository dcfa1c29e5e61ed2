"""Between NumPy's dtypes and numba's types, with errors that name the kernel. Importing this module imports numba."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import NumbaNotImplementedError
from numba.np.numpy_support import as_dtype, from_dtype

__all__ = ["dtype_of", "item_type"]


def item_type(dtype: np.dtype[Any], *, name: str) -> types.Type:
    """What numba calls an item of this dtype."""
    suggested = dtype.newbyteorder("=")
    if suggested == np.float16:  # it has a name in numba, but no arithmetic on this processor
        suggested = np.dtype(np.float32)
    else:
        with contextlib.suppress(NumbaNotImplementedError):
            return from_dtype(dtype)
    how = "" if suggested == dtype else f", for example with .astype({suggested.name!r})"
    raise TypeError(f"{name}: numba cannot compute with dtype {dtype}; convert it{how}, or use jit=False")


def dtype_of(kind: types.Type, *, name: str) -> np.dtype[Any]:
    """The dtype of an array that holds values of this type, which a kernel's function returned."""
    try:
        dtype: np.dtype[Any] = as_dtype(types.unliteral(kind))
    except NumbaNotImplementedError:
        raise TypeError(f"{name} must return numbers; it returns {kind}") from None
    return dtype
