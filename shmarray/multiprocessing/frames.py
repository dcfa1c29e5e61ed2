"""How do the bytes of an array cross a connection?

In C order, as frames of two messages each::

    header, 20 bytes     "SHMF", payload's bytes (4), number of the frame (8), crc32 of these and the payload (4)
    payload              at most FRAME_NBYTES

Both sides cut the array by the same rule (:func:`pieces`), so that the receiver knows the length of each frame before
it comes. Strided views are sent and filled piece by piece: neither side needs the room of the whole for it.

Invariant: no more than one frame is ever held beside the array, whatever the other side claims, and no byte of a frame
reaches the array before its checksum was found right.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from shmarray.errors import DamagedFrameError

__all__ = ["FRAME_NBYTES", "pieces", "receive_array", "send_array"]

FRAME_NBYTES = 1024 * 1024

_MAGIC = b"SHMF"
_FACTS = struct.Struct("<4sIQ")
_CHECKSUM = struct.Struct("<I")
_HEADER_NBYTES = _FACTS.size + _CHECKSUM.size

Index = tuple[int | slice, ...]


def pieces(shape: tuple[int, ...], itemsize: int) -> Iterator[Index]:
    """Indices that cut an array into runs of its C order, each of at most a frame or else a single item.

    Examples
    --------
    >>> list(pieces((3, 2), 4))
    [(slice(0, 3, None),)]
    >>> list(pieces((2, FRAME_NBYTES // 4 + 1), 4))  # doctest: +ELLIPSIS
    [(0, slice(0, 262144, None)), (0, slice(262144, 262145, None)), (1, slice(0, 262144, None)), ...]
    """
    if itemsize == 0 or 0 in shape:
        return
    if not shape:
        yield ()
        return
    row_nbytes = itemsize * math.prod(shape[1:])
    if row_nbytes > FRAME_NBYTES:
        for row in range(shape[0]):
            for rest in pieces(shape[1:], itemsize):
                yield (row, *rest)
        return
    rows = FRAME_NBYTES // row_nbytes
    for start in range(0, shape[0], rows):
        yield (slice(start, min(start + rows, shape[0])),)


def send_array(connection: Connection[Any, Any], array: np.ndarray[Any, Any]) -> None:
    """Send the bytes of a plain ndarray, of any strides. `OSError` when the other side is gone or takes nothing."""
    numbers = itertools.count()
    for index in pieces(array.shape, array.itemsize):
        block = np.ascontiguousarray(array[(*index, ...)])
        data = memoryview(block.reshape(-1).view(np.uint8))  # type: ignore[arg-type]  # an ndarray is a buffer
        for start in range(0, len(data), FRAME_NBYTES):
            payload = data[start : start + FRAME_NBYTES]
            facts = _FACTS.pack(_MAGIC, len(payload), next(numbers))
            connection.send_bytes(facts + _CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(facts))))
            connection.send_bytes(payload)


def receive_array(connection: Connection[Any, Any], array: np.ndarray[Any, Any]) -> None:
    """Fill a plain ndarray, of any strides, with what :func:`send_array` sends from one of the same shape and dtype.

    Raises
    ------
    DamagedFrameError
        A frame is not what it must be. The array holds the frames before it.
    EOFError, OSError
        The connection ended, or stood still for too long.
    """
    numbers = itertools.count()
    for index in pieces(array.shape, array.itemsize):
        block = array[(*index, ...)]
        parts = [
            _receive_frame(connection, next(numbers), min(FRAME_NBYTES, block.nbytes - start))
            for start in range(0, block.nbytes, FRAME_NBYTES)
        ]
        payload = parts[0] if len(parts) == 1 else b"".join(parts)
        block[...] = np.frombuffer(payload, dtype=array.dtype).reshape(block.shape)


def _receive_frame(connection: Connection[Any, Any], number: int, nbytes: int) -> bytes:
    header = _receive_message(connection, _HEADER_NBYTES, f"the header of frame {number}")
    facts = header[: _FACTS.size]
    expected = _FACTS.pack(_MAGIC, nbytes, number)
    if facts != expected:
        raise DamagedFrameError(
            f"frame {number} of an array's bytes should begin with {expected.hex()} and begins with {facts.hex()}; "
            "the other side speaks another protocol, or the connection is damaged"
        )
    payload = _receive_message(connection, nbytes, f"frame {number}")
    (checksum,) = _CHECKSUM.unpack_from(header, _FACTS.size)
    if zlib.crc32(payload, zlib.crc32(facts)) != checksum:
        raise DamagedFrameError(f"the checksum of frame {number} of an array's bytes is wrong: it changed on its way")
    return payload


def _receive_message(connection: Connection[Any, Any], nbytes: int, what: str) -> bytes:
    try:
        message = connection.recv_bytes(nbytes)
    except OSError as error:
        if connection.readable:
            raise  # the connection's end
        # After "bad message length", more announced than we take, the standard library reads no more.
        raise DamagedFrameError(f"{what} is longer than the {nbytes} bytes that it must have") from error
    if len(message) != nbytes:
        raise DamagedFrameError(f"{what} must have {nbytes} bytes and has {len(message)}")
    return message
