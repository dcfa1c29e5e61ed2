"""Between NumPy's dtypes and numba's types, with errors that name the kernel. Importing this module imports numba."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import NumbaNotImplementedError
from numba.np.numpy_support import as_dtype, from_dtype

__all__ = ["dtype_of", "item_type", "wrong_result"]


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


def dtype_of(kind: types.Type, *, name: str, expected: str = "numbers") -> np.dtype[Any]:
    """The dtype of an array that holds values of this type, which a kernel's function returned.

    Raises
    ------
    TypeError
        When no array holds such values; it says what is `expected`.
    """
    if not isinstance(kind, types.NoneType | types.Optional | types.StringLiteral):
        with contextlib.suppress(NumbaNotImplementedError):
            dtype: np.dtype[Any] = as_dtype(types.unliteral(kind))
            return dtype
    raise wrong_result(kind, name=name, expected=expected)


def wrong_result(kind: types.Type, *, name: str, expected: str) -> TypeError:
    """The error for a function that returns what it must not."""
    text = f"{name} must return {expected}; it returns {_in_words(kind)}"
    if isinstance(kind, types.Optional):
        text = f"{name}: on some paths it returns nothing (None): return a value on every path"
    return TypeError(text)


def _in_words(kind: types.Type) -> str:
    """What a numba type is to the author of a function."""
    if isinstance(kind, types.NoneType):
        return "nothing (None)"
    if isinstance(kind, types.Array):
        return f"an array of {kind.ndim} dimensions"
    if isinstance(kind, types.StringLiteral | types.UnicodeType):
        return "text"
    if isinstance(kind, types.BaseTuple):
        return f"a tuple of {len(kind)} values"
    for container, word in ((types.List, "list"), (types.DictType, "dict"), (types.Set, "set")):
        if isinstance(kind, container):
            return f"a {word}"
    if isinstance(kind, types.Dispatcher):
        return "a function"
    return str(types.unliteral(kind))
