"""Hypothesis strategies: the dtypes and shapes that a segment can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

__all__ = ["dtypes", "shapes"]


def _plain() -> st.SearchStrategy[np.dtype[Any]]:
    return st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(endianness="?"),
        hnp.unsigned_integer_dtypes(endianness="?"),
        hnp.floating_dtypes(endianness="?"),
        hnp.complex_number_dtypes(endianness="?"),
        hnp.datetime64_dtypes(endianness="?"),
        hnp.timedelta64_dtypes(endianness="?"),
        hnp.byte_string_dtypes(min_len=1, max_len=40),
        hnp.unicode_string_dtypes(endianness="?", min_len=1, max_len=40),
        st.sampled_from(["V1", "V7", "f2", "g", "G", "M8[25s]", "m8[3D]"]).map(np.dtype),
    )


def dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    """Plain, structured (nested, aligned, with sub-arrays) and datetime dtypes, any byte order."""
    return st.recursive(
        _plain(),
        lambda inner: hnp.array_dtypes(subtype_strategy=inner, min_size=1, max_size=4, allow_subarrays=True),
        max_leaves=6,
    )


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of up to 6 dimensions, zero lengths and none at all among them."""
    return hnp.array_shapes(min_dims=0, max_dims=6, min_side=0, max_side=7)
