"""The descriptor page: what is written comes back; what cannot have been written is an error."""

from __future__ import annotations

import struct
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmarray.errors import CorruptSegmentError
from shmarray.segment.descriptor import DESCRIPTOR_NBYTES, USER_LOCK, Descriptor, is_known_layout
from tests.strategies import dtypes, shapes

CAPACITY = 1 << 30


def page_of(descriptor: Descriptor) -> bytes:
    return descriptor.pack().ljust(DESCRIPTOR_NBYTES, b"\0")


def unpack(page: bytes, capacity: int = CAPACITY) -> Descriptor:
    return Descriptor.unpack(page, capacity=capacity, label="x")


def example() -> Descriptor:
    return Descriptor((3, 4), np.dtype("<f8"), 96, (1, 4), "temperature", True, 123, 456)


@given(dtypes(), shapes(), st.booleans(), st.booleans())
def test_any_dtype_and_shape_comes_back(
    dtype: np.dtype[Any], shape: tuple[int, ...], keep: bool, chunked: bool
) -> None:
    nbytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    chunks = tuple(max(1, length // 2) for length in shape) if chunked else None
    made = Descriptor(shape, dtype, nbytes, chunks, "a.b-c_9", keep, 2**63, 2**31)
    assert unpack(page_of(made)) == made


@given(st.integers(0, DESCRIPTOR_NBYTES - 1))
def test_cut_short_anywhere_it_is_corrupt(length: int) -> None:
    with pytest.raises(CorruptSegmentError, match="'x' cannot be used"):
        unpack(page_of(example())[:length])


@given(st.integers(0, len(example().pack()) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, flip: int) -> None:
    page = bytearray(page_of(example()))
    page[at] ^= flip
    with pytest.raises(CorruptSegmentError):
        unpack(bytes(page))


@given(st.integers(16, len(example().pack()) - 1), st.integers(1, 255))
def test_with_the_checksum_mended_it_is_an_error_or_fits_its_file(at: int, flip: int) -> None:
    page = bytearray(page_of(example()))
    page[at] ^= flip
    (end,) = struct.unpack_from("<H", page, 16)
    page[12:16] = crc32(page[16:end]).to_bytes(4, "little")
    try:
        found = unpack(bytes(page), 4096)
    except CorruptSegmentError:
        return
    assert int(np.prod(found.shape, dtype=object)) * found.dtype.itemsize == found.nbytes <= 4096
    assert not found.dtype.hasobject


@given(st.binary(max_size=DESCRIPTOR_NBYTES))
def test_arbitrary_bytes_are_corrupt(page: bytes) -> None:
    with pytest.raises(CorruptSegmentError):
        unpack(page)


def test_the_words_that_change_lie_outside_the_checksum() -> None:
    page = bytearray(page_of(example()))
    page[USER_LOCK:] = b"\xff" * (DESCRIPTOR_NBYTES - USER_LOCK)
    assert unpack(bytes(page)) == example()


def test_a_newer_layout_is_refused_and_not_known_for_reclaiming() -> None:
    page = bytearray(page_of(example()))
    page[8:12] = (2).to_bytes(4, "little")
    with pytest.raises(CorruptSegmentError, match="layout version 2, this shmarray reads 1; update shmarray"):
        unpack(bytes(page))
    assert not is_known_layout(bytes(page))


def test_data_larger_than_the_file_is_corrupt() -> None:
    with pytest.raises(CorruptSegmentError, match="does not fit its 64 bytes"):
        unpack(page_of(example()), 64)


def test_a_product_past_64_bits_is_not_taken_modulo() -> None:
    with pytest.raises(CorruptSegmentError, match="does not fit"):
        unpack(page_of(example()._replace(shape=(2**32, 2**32 + 0), nbytes=0, chunks=None)))


def test_a_dtype_too_long_for_the_page_says_so() -> None:
    dtype = np.dtype([(f"a_rather_long_field_name_{i}", "f8") for i in range(100)])
    with pytest.raises(ValueError, match="more than a segment has room for; use fewer or shorter field names"):
        Descriptor((1,), dtype, dtype.itemsize).pack()
