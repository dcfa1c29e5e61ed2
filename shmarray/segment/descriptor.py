"""What does a segment say about itself, and where is it written?

A segment is a file: the array's bytes from offset 0, padded to a page, then one descriptor page, the
last of the file. So a program that knows nothing of us reads the array at the start of the file.

::

    file    [ data .................. | padding ][ descriptor page, 4096 bytes ]

    page       0  magic           8   b"SHMARRAY"
               8  version         4   layout version, 1
              12  checksum        4   crc32 of bytes 16 .. body_end
              16  body_end        2   |
              18  name_length     2   |
              20  dtype_length    2   |
              22  ndim            1   |
              23  order           1   |  "C"
              24  nbytes          8   |  bytes of data; the file may have room for more
              32  created         8   |  CLOCK_REALTIME in ns, to be shown; no decision reads it
              40  creator_pid     4   |  to be shown; no decision reads it
              44  flags           4   |  1 keep, 2 has chunks
              48  shape           8 x ndim, chunks 8 x ndim, name, dtype     <- body_end
            3072  user lock      64   a robust pthread mutex between processes      } changeable words,
            3136  generation      8   even: live; odd: parked by its owner          } outside the
            3144  exported        8   not 0: others may know the pages, never reuse } checksum
            3152  deadline        8   a handle is in flight until then (CLOCK_BOOTTIME, ns; 0: none)
            3160  dirty           8   byte 0: content unknown; 1: a crash-safe call is under way or was cut short;
                                |  2: the same of another call that changes it in place
            3168  journal         8   not 0: the data are such a call's scratch, replayed before they go
            3328  scratch       256   file name of the scratch of the call under way, NUL-padded
            3584  reason        512   why it is dirty, for people; UTF-8, NUL-padded

All integers are little-endian. Everything not named is zero.

Invariant: :meth:`Descriptor.unpack` believes nothing. It works on a private copy of the page, checks
magic, version, checksum and every length against the size of the file, takes the dtype from a closed
list, multiplies in Python's integers, and raises :class:`CorruptSegmentError` for whatever does not fit.
"""

from __future__ import annotations

import struct
import time
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from shmarray.errors import CorruptSegmentError
from shmarray.segment.dtypes import decode_dtype, encode_dtype

__all__ = [
    "DEADLINE",
    "DESCRIPTOR_NBYTES",
    "DIRTY",
    "EXPORTED",
    "GENERATION",
    "JOURNAL",
    "MAGIC",
    "REASON",
    "REASON_NBYTES",
    "SCRATCH",
    "SCRATCH_NBYTES",
    "USER_LOCK",
    "VERSION",
    "WORDS",
    "Descriptor",
    "Words",
    "is_known_layout",
]

MAGIC = b"SHMARRAY"
VERSION = 1
DESCRIPTOR_NBYTES = 4096

USER_LOCK = 3072
WORDS = 3136
GENERATION, EXPORTED, DEADLINE, DIRTY, JOURNAL = 3136, 3144, 3152, 3160, 3168
SCRATCH, SCRATCH_NBYTES = 3328, 256
REASON, REASON_NBYTES = 3584, 512

_HEAD = struct.Struct("<8sIIHHHBBQQII")
_TAIL = struct.Struct("<HHHBBQQII")  # the checksummed part of the head
_START = struct.Struct("<8sII")
_WORDS = struct.Struct("<5Q")
_KEEP, _CHUNKS = 1, 2
_MAX_NDIM = 64
_GRIDS = [struct.Struct(f"<{2 * ndim}Q") for ndim in range(_MAX_NDIM + 1)]


class Words(NamedTuple):
    """The changeable words of a descriptor page, as read at one moment."""

    generation: int
    exported: int
    deadline_ns: int
    dirty: int
    journal: int

    @classmethod
    def of_page(cls, page: bytes) -> Words:
        """Cut the words out of a copy of the page."""
        return cls._make(_WORDS.unpack_from(page, WORDS))

    @property
    def is_in_flight(self) -> bool:
        """Whether a handle's time has not run out. Suspended time counts; clock changes do not."""
        return self.deadline_ns > time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    @property
    def is_needed(self) -> bool:
        """Whether the file stays although nobody holds it: for a handle, or to finish a call that was cut short."""
        return bool(self.journal) or self.is_in_flight


class Descriptor(NamedTuple):
    """What one segment holds.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    nbytes : int
        Bytes of data.
    chunks : tuple of int or None
        Shape of one piece of work.
    name : str or None
        The user's name.
    keep : bool
        Whether the segment outlives its holders.
    created_ns : int
        CLOCK_REALTIME, nanoseconds.
    creator_pid : int
    version : int
        Layout version of the page.

    Examples
    --------
    >>> import numpy as np
    >>> page = Descriptor((2, 3), np.dtype("f4"), 24, name="x").pack().ljust(4096, b"\\0")
    >>> Descriptor.unpack(page, capacity=4096, label="x").shape
    (2, 3)
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    chunks: tuple[int, ...] | None = None
    name: str | None = None
    keep: bool = False
    created_ns: int = 0
    creator_pid: int = 0
    version: int = VERSION

    def pack(self) -> bytes:
        """The start of the page, up to `body_end`; `ValueError` when it would not fit."""
        ndim = len(self.shape)
        name = (self.name or "").encode()
        dtype = encode_dtype(self.dtype)
        flags = _KEEP * self.keep | _CHUNKS * (self.chunks is not None)
        grid = self.chunks if self.chunks is not None else (0,) * ndim
        end = _HEAD.size + 16 * ndim + len(name) + len(dtype)
        if end > USER_LOCK:
            raise ValueError(
                f"the description of dtype {self.dtype} takes {len(dtype)} bytes, "
                f"{end - USER_LOCK} more than a segment has room for; use fewer or shorter field names"
            )
        body = (
            _TAIL.pack(end, len(name), len(dtype), ndim, 67, self.nbytes, self.created_ns, self.creator_pid, flags)
            + _GRIDS[ndim].pack(*self.shape, *grid)
            + name
            + dtype
        )
        return _START.pack(MAGIC, VERSION, crc32(body)) + body

    @classmethod
    def unpack(cls, page: bytes, *, capacity: int, label: str) -> Descriptor:
        """Read a private copy of a page.

        Parameters
        ----------
        page : bytes
            The 4096 bytes.
        capacity : int
            Bytes of the file before the page.
        label : str
            What to call the segment in an error.

        Raises
        ------
        CorruptSegmentError
            For anything that this version cannot have written.
        """
        if len(page) < DESCRIPTOR_NBYTES or page[:8] != MAGIC:
            raise _corrupt(label, "it has no descriptor page: another program's, or cut short")
        (_, version, checksum, end, name_length, dtype_length, ndim, order, nbytes, created, pid, flags) = (
            _HEAD.unpack_from(page)
        )
        if version != VERSION:
            raise _corrupt(label, f"it has layout version {version}, this shmarray reads {VERSION}; update shmarray")
        if not _HEAD.size <= end <= USER_LOCK or crc32(page[16:end]) != checksum:
            raise _corrupt(label, "the checksum of its descriptor does not match")
        if ndim > _MAX_NDIM or order != 67 or end != _HEAD.size + 16 * ndim + name_length + dtype_length:
            raise _corrupt(label, "the lengths in its descriptor do not add up")
        at = _HEAD.size + 16 * ndim
        try:
            dimensions = _GRIDS[ndim].unpack_from(page, _HEAD.size)
            name = page[at : at + name_length].decode("ascii") or None
            dtype = decode_dtype(page[at + name_length : end])
        except (ValueError, struct.error) as error:
            raise _corrupt(label, f"its descriptor is not readable: {error}") from error
        shape, grid = dimensions[:ndim], dimensions[ndim:]
        expected = spread = dtype.itemsize
        for length in shape:
            expected *= length
            spread *= length or 1  # NumPy refuses what would overflow but for a zero
        if expected != nbytes or nbytes > capacity or spread >= 2**63 or max(shape, default=0) >= 2**63:
            raise _corrupt(label, f"shape {shape} of {dtype} does not fit its {capacity} bytes")
        if flags & _CHUNKS and not all(0 < piece < 2**63 for piece in grid):
            raise _corrupt(label, f"chunks {grid} are not lengths")
        chunks = grid if flags & _CHUNKS else None
        return cls(shape, dtype, nbytes, chunks, name, bool(flags & _KEEP), created, pid, version)


def _corrupt(label: str, what: str) -> CorruptSegmentError:
    return CorruptSegmentError(
        f"segment {label!r} cannot be used: {what}; it is left alone; if it is yours, remove it with shmarray.unlink",
        name=label,
    )


def is_known_layout(page: bytes) -> bool:
    """Whether a page is of the one layout that this version may reclaim."""
    return page[:12] == MAGIC + VERSION.to_bytes(4, "little")
