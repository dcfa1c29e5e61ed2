"""Descriptor pages and files as others may have left them."""

from __future__ import annotations

import struct
from pathlib import Path
from zlib import crc32

import numpy as np

from shmarray.registry import names
from shmarray.segment.descriptor import DESCRIPTOR_NBYTES, Descriptor
from shmarray.segment.mapping import DIRECTORY

SEEDS = [
    Descriptor((3, 4), np.dtype("<f8"), 96, (1, 4), "x", True, 123, 456),
    Descriptor((), np.dtype([("a", "<i4"), ("b", ">M8[s]", (2,))]), 20, None, "x", False, 1, 2),
    Descriptor((5, 0, 2), np.dtype("S3"), 0, None, None, False, 0, 0),
]


def path_of(namespace: str, name: str) -> Path:
    return Path(DIRECTORY) / names.public_name(namespace, name)


def plant(namespace: str, name: str, page: bytes, data: bytes = b"") -> Path:
    """A file as a creator that has died might have left it."""
    path = path_of(namespace, name)
    path.touch(mode=0o600)
    path.write_bytes(data + page)
    return path


def page_of(descriptor: Descriptor) -> bytes:
    return descriptor.pack().ljust(DESCRIPTOR_NBYTES, b"\0")


def mend(page: bytearray) -> None:
    """Make the checksum right for what the page says now."""
    (end,) = struct.unpack_from("<H", page, 16)
    page[12:16] = crc32(page[16:end]).to_bytes(4, "little")
