"""Which element types can a segment hold, and how are they written down?

A closed list: booleans, integers, floats, complex numbers, datetimes and timedeltas, fixed bytes and
strings, raw void, structures and sub-arrays of these. Never object: a pointer means nothing elsewhere.

::

    text       'T' length:1 text                        np.dtype(text), e.g. "<f8", "<M8[ns]", "|S12"
    sub-array  'A' ndim:1 dimension:8 ...  base
    structure  'S' flags:1 itemsize:8 count:2  (name_length:2 name title_length:2 title offset:8 type) ...

Invariant: :func:`decode_dtype` never evaluates what it reads, never yields a type with objects, and is
the inverse of :func:`encode_dtype`: what does not come back equal is refused at encoding.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

__all__ = ["check_dtype", "decode_dtype", "encode_dtype"]

_KINDS = "biufcmMSUV"
_MAX_DEPTH = 8
_ALIGNED = 1

_encoded: dict[np.dtype[Any], bytes] = {}
_decoded: dict[bytes, np.dtype[Any]] = {}
_REMEMBERED = 256


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """The NumPy dtype of `dtype`, when a segment can hold it; `TypeError` otherwise.

    Zero-width strings become one character wide, as :func:`numpy.empty` has it.

    Examples
    --------
    >>> check_dtype(float)
    dtype('float64')
    >>> check_dtype(object)
    Traceback (most recent call last):
    TypeError: dtype object cannot be shared: a Python object is an address in one process; use a \
numeric or fixed-width dtype, or a structured dtype of these
    """
    found: np.dtype[Any] = np.dtype(dtype)
    if found.itemsize == 0 and found.kind in "SU":
        found = np.dtype(f"{found.kind}1")
    if found not in _encoded:
        encode_dtype(found)
    return found


def encode_dtype(dtype: np.dtype[Any]) -> bytes:
    """Write a dtype as bytes; `TypeError` for one that a segment cannot hold."""
    known = _encoded.get(dtype)
    # Equal dtypes may differ in what equality overlooks (alignment flag), which is harmless here.
    if known is not None:
        return known
    if dtype.hasobject or dtype.kind not in _KINDS:
        raise TypeError(
            f"dtype {dtype} cannot be shared: a Python object is an address in one process; "
            "use a numeric or fixed-width dtype, or a structured dtype of these"
        )
    text = _encode(dtype)
    try:
        same = decode_dtype(text) == dtype
    except ValueError:
        same = False
    if not same:
        raise TypeError(f"dtype {dtype!r} cannot be written down in a segment; use one of NumPy's own")
    if len(_encoded) >= _REMEMBERED:
        _encoded.clear()
    _encoded[dtype] = text
    return text


def _encode(dtype: np.dtype[Any]) -> bytes:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return b"A" + struct.pack(f"<B{len(shape)}q", len(shape), *shape) + _encode(base)
    if dtype.names is None or dtype.fields is None:
        text = dtype.str.encode()
        return b"T" + bytes([len(text)]) + text
    head = struct.pack("<BqH", _ALIGNED if dtype.isalignedstruct else 0, dtype.itemsize, len(dtype.names))
    parts = [b"S", head]
    for field in dtype.names:
        kind, offset, *titles = dtype.fields[field]
        title = titles[0] if titles else ""
        if not isinstance(title, str):
            raise TypeError(f"the title of field {field!r} is not a string; a segment cannot hold it")
        for word in (field, title):
            raw = word.encode("utf-8", "surrogatepass")
            parts += [struct.pack("<H", len(raw)), raw]
        parts += [struct.pack("<q", offset), _encode(kind)]
    return b"".join(parts)


def decode_dtype(text: bytes) -> np.dtype[Any]:
    """Read what :func:`encode_dtype` wrote; `ValueError` for anything else."""
    known = _decoded.get(text)
    if known is not None:
        return known
    try:
        dtype, end = _decode(text, 0, 0)
        if end != len(text) or dtype.hasobject or dtype.kind not in _KINDS:
            raise ValueError
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, struct.error, SyntaxError) as error:
        raise ValueError("the dtype written in this segment is none that a segment may hold") from error
    if len(_decoded) >= _REMEMBERED:
        _decoded.clear()
    _decoded[text] = dtype
    return dtype


def _decode(text: bytes, at: int, depth: int) -> tuple[np.dtype[Any], int]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    form = text[at : at + 1]
    at += 1
    if form == b"T":
        end = at + 1 + text[at]
        word = text[at + 1 : end].decode("ascii")
        # The second character is a kind: nothing like "f8,O" or a name that np.dtype looks up.
        if len(word) < 2 or word[0] not in "<>|=" or word[1] not in _KINDS or "," in word or "(" in word:
            raise ValueError("not a plain type")
        dtype: np.dtype[Any] = np.dtype(word)
        if dtype.str != word:
            raise ValueError("not a type as NumPy writes it")
        return dtype, end
    if form == b"A":
        ndim = text[at]
        shape = struct.unpack_from(f"<{ndim}q", text, at + 1)
        if not 1 <= ndim <= 64 or min(shape) < 0:
            raise ValueError("not a shape")
        base, at = _decode(text, at + 1 + 8 * ndim, depth + 1)
        return np.dtype((base, shape)), at
    if form != b"S":
        raise ValueError("unknown form")
    flags, itemsize, count = struct.unpack_from("<BqH", text, at)
    at += 11
    names, titles, offsets, formats = [], [], [], []
    for _ in range(count):
        words = []
        for _ in range(2):
            (length,) = struct.unpack_from("<H", text, at)
            words.append(text[at + 2 : at + 2 + length].decode("utf-8", "surrogatepass"))
            at += 2 + length
        (offset,) = struct.unpack_from("<q", text, at)
        kind, at = _decode(text, at + 8, depth + 1)
        names.append(words[0])
        titles.append(words[1] or None)
        offsets.append(offset)
        formats.append(kind)
    layout: dict[str, Any] = {"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize}
    if any(titles):
        layout["titles"] = titles
    return np.dtype(layout, align=bool(flags & _ALIGNED)), at  # type: ignore[call-overload]
