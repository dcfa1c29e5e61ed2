"""The closed list of element types, and its form in bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmarray.segment.dtypes import check_dtype, decode_dtype, encode_dtype
from tests.strategies import dtypes


@given(dtypes())
def test_every_dtype_of_the_list_comes_back_equal(dtype: np.dtype[Any]) -> None:
    again = decode_dtype(encode_dtype(dtype))
    assert again == dtype
    assert again.isalignedstruct == dtype.isalignedstruct or dtype.fields is not None
    assert again.itemsize == dtype.itemsize


@pytest.mark.parametrize(
    "dtype",
    [
        object,
        "O",
        np.dtypes.StringDType(),
        [("a", "f4"), ("b", object)],
        (object, (2,)),
        [("a", [("b", "O")])],
    ],
    ids=["object", "O", "StringDType", "field", "sub-array", "nested"],
)
def test_objects_are_refused_at_any_depth(dtype: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot be shared.*use a numeric or fixed-width dtype"):
        check_dtype(dtype)


def test_strings_without_a_width_get_one_character_as_in_numpy() -> None:
    assert check_dtype("S") == np.empty(1, "S").dtype
    assert check_dtype("U") == np.empty(1, "U").dtype


def test_titles_and_alignment_survive() -> None:
    titled = np.dtype({"names": ["a", "b"], "formats": ["f4", "i2"], "titles": ["first", "second"]})
    assert decode_dtype(encode_dtype(titled)).fields == titled.fields
    aligned = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    assert decode_dtype(encode_dtype(aligned)).isalignedstruct


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_a_dtype_without_objects_or_a_value_error(text: bytes) -> None:
    try:
        dtype = decode_dtype(text)
    except ValueError:
        return
    assert not dtype.hasobject


@pytest.mark.parametrize("word", [b"|O", b"O", b"f8,O", b"float", b"(2,)f8", b"|V8x", b"<f9", b"<M8[O]", b"\xff"])
def test_words_that_numpy_would_look_up_are_refused(word: bytes) -> None:
    with pytest.raises(ValueError, match="none that a segment may hold"):
        decode_dtype(b"T" + bytes([len(word)]) + word)
