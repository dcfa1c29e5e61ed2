"""What segments are there, who holds them, how much memory is that?

Everything here is read from the files of `config.namespace` and from /proc, so it is the same from every
process, and as old as the reading. Nameless segments that were never published are in no directory: the
numbers of :func:`usage` count this process's own.
"""

from __future__ import annotations

import os
import stat
import time
from typing import Any, NamedTuple

import numpy as np

from shmarray.chunks import normalize_chunks
from shmarray.configuration import config
from shmarray.registry.attachment import _check_file, _not_found, _open
from shmarray.registry.condition import reason_in
from shmarray.registry.names import check_name, is_private, is_public, label_of, public_name
from shmarray.registry.reclaim import file_names
from shmarray.registry.removal import OPEN_FLAGS, read_page
from shmarray.registry.reserve import free_nbytes
from shmarray.registry.store import store
from shmarray.segment.descriptor import (
    DESCRIPTOR_NBYTES,
    Descriptor,
    Words,
    is_known_layout,
)
from shmarray.segment.mapping import DIRECTORY

__all__ = ["SegmentInfo", "Usage", "info", "list_segments", "usage", "used_nbytes"]


class SegmentInfo(NamedTuple):
    """One segment of the namespace.

    Attributes
    ----------
    name : str or None
        The user's name; None for one that was published for a handle or `.shm.name`.
    shape : tuple of int
    dtype : numpy.dtype
    nbytes : int
        Bytes of data.
    chunks : tuple of int
        Shape of one piece of work, as `SharedArray.chunks` has it: what it was made with, or else what
        `config.chunk_nbytes` makes of its shape.
    keep : bool
    created : float
        Seconds since the epoch.
    creator_pid : int
        As its creator saw it; it may have ended, and another process have its number.
    holders : tuple of int
        Pids that map it, as far as visible from here.
    dirty : bool
        Some of its content is unknown, or a crash-safe call on it is under way or was cut short.
    dirty_reason : str
        What is known of that, for people; "" where it is not dirty.
    in_flight : bool
        A handle is on its way: it stays for a while, also without holders.
    """

    name: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    chunks: tuple[int, ...]
    keep: bool
    created: float
    creator_pid: int
    holders: tuple[int, ...]
    dirty: bool
    dirty_reason: str = ""
    in_flight: bool = False


class Usage(NamedTuple):
    """Bytes of shared memory.

    Attributes
    ----------
    used : int
        By the files of the namespace and this process's nameless segments, those kept for reuse
        included.
    in_flight : int
        Of these, by segments with a handle on its way.
    recycled : int
        Of these, kept by this process for reuse.
    free : int
        What an array made now by this process may take at most: the least of what memory, control groups and
        the quota leave, those kept for reuse counted as free, since they go first.
    limit : int or None
        `config.max_nbytes`.
    """

    used: int
    in_flight: int
    recycled: int
    free: int
    limit: int | None


def list_segments() -> list[SegmentInfo]:
    """All segments of `config.namespace` that are published, by name; nameless ones last.

    Files that are no readable segments are left out.

    Returns
    -------
    list of SegmentInfo

    Examples
    --------
    >>> import shmarray as sa
    >>> a = sa.zeros((2, 2), "f4", name="list-example")
    >>> [(one.name, one.shape) for one in sa.registry.list()]
    [('list-example', (2, 2))]
    """
    namespace = config.namespace
    found = []
    for file_name in file_names(namespace):
        if is_private(file_name):
            continue
        try:
            found.append(_read(file_name, namespace))
        except (OSError, ValueError):
            continue
    holders = _holders({key for key, _, _ in found})
    infos = [_info(descriptor, page, holders.get(key, ())) for key, descriptor, page in found]
    infos.sort(key=lambda one: (one.name is None, one.name or "", one.created))
    return infos


def info(name: str) -> SegmentInfo:
    """What is known of the segment of that name.

    Parameters
    ----------
    name : str
        The user's name, in `config.namespace`.

    Returns
    -------
    SegmentInfo

    Raises
    ------
    SegmentNotFoundError
        No array is called so.
    CorruptSegmentError
        Its descriptor cannot be believed.

    Examples
    --------
    >>> import shmarray as sa
    >>> a = sa.zeros((2, 3), "f4", name="info-example")
    >>> info = sa.registry.info("info-example")
    >>> info.shape, info.nbytes, info.keep
    ((2, 3), 24, False)
    """
    namespace = config.namespace
    key, descriptor, page = _read(public_name(namespace, check_name(name)), namespace)
    return _info(descriptor, page, _holders({key}).get(key, ()))


def _read(file_name: str, namespace: str) -> tuple[tuple[int, int], Descriptor, bytes]:
    shown = label_of(file_name) if is_public(file_name) else file_name
    path = f"{DIRECTORY}/{file_name}"
    # No lock is taken: to be looked at must not look like being held.
    fd = _open(path, shown, namespace, OPEN_FLAGS & ~os.O_RDWR)
    try:
        size = _check_file(fd, path, shown)
        page = read_page(fd, size)
        if is_known_layout(page) and Words.of_page(page).generation & 1:
            raise _not_found(shown, namespace)  # being taken back
        descriptor = Descriptor.unpack(page, capacity=size - DESCRIPTOR_NBYTES, label=shown)
        status = os.fstat(fd)
        return (status.st_dev, status.st_ino), descriptor, page
    finally:
        os.close(fd)


def _info(descriptor: Descriptor, page: bytes, holders: tuple[int, ...]) -> SegmentInfo:
    words = Words.of_page(page)
    dirty = bool(words.dirty)
    return SegmentInfo(
        name=descriptor.name,
        shape=descriptor.shape,
        dtype=descriptor.dtype,
        nbytes=descriptor.nbytes,
        chunks=descriptor.chunks
        or normalize_chunks(None, descriptor.shape, descriptor.dtype.itemsize, config.chunk_nbytes),
        keep=descriptor.keep,
        created=descriptor.created_ns / 1e9,
        creator_pid=descriptor.creator_pid,
        holders=holders,
        dirty=dirty,
        dirty_reason=reason_in(page) if dirty else "",
        in_flight=words.is_in_flight,
    )


def _holders(keys: set[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, ...]]:
    """Who maps these inodes, from /proc/PID/maps: best effort, for people to read, never for decisions."""
    found: dict[tuple[int, int], set[int]] = {}
    if not keys:
        return {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/maps", "rb") as file:
                for line in file:
                    if DIRECTORY.encode() not in line:
                        continue
                    fields = line.split(maxsplit=5)
                    major, minor = fields[3].split(b":")
                    key = (os.makedev(int(major, 16), int(minor, 16)), int(fields[4]))
                    if key in keys:
                        found.setdefault(key, set()).add(int(entry))
        except (OSError, ValueError, IndexError):
            continue  # ended meanwhile, or not ours to see
    return {key: tuple(sorted(pids)) for key, pids in found.items()}


def _survey(namespace: str) -> tuple[int, int]:
    """Bytes of the namespace's files and our nameless segments, and of those in flight."""
    used = in_flight = 0
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for file_name in file_names(namespace):
        try:
            fd = os.open(f"{DIRECTORY}/{file_name}", OPEN_FLAGS & ~os.O_RDWR)
        except OSError:
            continue
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                continue
            used += status.st_size
            page = read_page(fd, status.st_size)
            if is_known_layout(page) and Words.of_page(page).deadline_ns > now_ns:
                in_flight += status.st_size
        finally:
            os.close(fd)
    with store:
        for mapping in (*store.live.values(), *store.warm):
            if mapping.file_name is None and mapping.namespace == namespace:
                used += mapping.length
    return used, in_flight


def used_nbytes(namespace: str) -> int:
    """Bytes that count against `config.max_nbytes`."""
    return _survey(namespace)[0]


def usage() -> Usage:
    """Bytes of shared memory used, in flight, kept for reuse, free, and the quota.

    Returns
    -------
    Usage

    Examples
    --------
    >>> import shmarray as sa
    >>> a = sa.zeros(1000, "u1")
    >>> sa.registry.usage().used >= 1000
    True
    >>> with sa.config.override(max_nbytes=100_000_000):
    ...     sa.registry.usage().free < 100_000_000
    True
    """
    namespace, limit = config.namespace, config.max_nbytes
    used, in_flight = _survey(namespace)
    with store:
        recycled = store.warm.nbytes
        ours = sum(mapping.length for mapping in store.warm if mapping.namespace == namespace)
    free = free_nbytes() + recycled
    if limit is not None:
        free = min(free, limit - (used - ours))
    # A file is whole pages, one of them the descriptor.
    free = free // DESCRIPTOR_NBYTES * DESCRIPTOR_NBYTES - DESCRIPTOR_NBYTES
    return Usage(used, in_flight, recycled, max(0, free), limit)
