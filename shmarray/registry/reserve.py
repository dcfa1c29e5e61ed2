"""Is there memory for a segment, and how do its pages become ours?

A file made longer than memory has room for dies of SIGBUS at some later store. So pages are reserved
before the segment exists for anybody, in slices, with a look at the headroom before each: past a
memory control group's limit the kernel kills instead of refusing, and one long reservation holds up
signals for more than a second.

Invariant: either all pages are reserved, or :class:`OutOfSharedMemoryError` says which limit it was.
"""

from __future__ import annotations

import errno
import functools
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from shmarray.errors import OutOfSharedMemoryError
from shmarray.segment import libc
from shmarray.segment.failpoints import ARMED, reach
from shmarray.segment.mapping import DIRECTORY

__all__ = [
    "HUGE_NBYTES",
    "SLICE_NBYTES",
    "GroupLimit",
    "free_nbytes",
    "group_limits",
    "heeds_huge_advice",
    "in_words",
    "map_pages",
    "populate",
    "reserve",
]

SLICE_NBYTES = 8 * 1024 * 1024
#: From this size on huge pages are asked for.
HUGE_NBYTES = 2 * 1024 * 1024

#: Kept free of every limit: page tables, the interpreter's own growth.
_MARGIN_NBYTES = 16 * 1024 * 1024
#: An answer is believed for so long, or until a slice has been taken on the strength of it.
_BELIEVED_S = 0.25

_CGROUP_ROOT = "/sys/fs/cgroup"


class _Headroom:
    """The least of what the limits leave, remembered for a moment."""

    def __init__(self) -> None:
        self._until_s = 0.0
        self._left_nbytes = 0
        self._limit = ""
        self._groups: list[tuple[str, str, str]] | None = None

    def left(self, nbytes: int) -> tuple[int, str]:
        """Bytes left, with the name of the tightest limit, counting `nbytes` as taken if they fit."""
        now = time.monotonic()
        if now > self._until_s or nbytes > self._left_nbytes or nbytes >= SLICE_NBYTES:
            self._look()
            self._until_s = now + _BELIEVED_S
        left = self._left_nbytes
        if nbytes <= left:
            self._left_nbytes -= nbytes
        return left, self._limit

    def _look(self) -> None:
        filesystem = os.statvfs(DIRECTORY)
        # The file system refuses by itself, so it needs no margin.
        left, limit = filesystem.f_bavail * filesystem.f_frsize, DIRECTORY
        for found, name in ((_available_nbytes(), "memory of the machine"), self._group_nbytes()):
            if found - _MARGIN_NBYTES < left:
                left, limit = found - _MARGIN_NBYTES, name
        self._left_nbytes, self._limit = left, limit

    def _group_nbytes(self) -> tuple[int, str]:
        if self._groups is None:
            self._groups = _memory_groups()
        least, limit = 1 << 62, ""
        for directory, limit_file, usage_file in self._groups:
            maximum = _number(f"{directory}/{limit_file}")
            if maximum is None or maximum >= 1 << 60:
                continue
            left = maximum - (_number(f"{directory}/{usage_file}") or 0)
            if left < _MARGIN_NBYTES + SLICE_NBYTES:
                left += _reclaimable_nbytes(directory)
            if left < least:
                least, limit = left, f"memory limit of the control group {directory}"
        return least, limit


_headroom = _Headroom()


def _available_nbytes() -> int:
    try:
        with open("/proc/meminfo", "rb") as file:
            text = file.read(512)
        start = text.index(b"MemAvailable:") + 13
        available = int(text[start : text.index(b"kB", start)]) * 1024
    except (OSError, ValueError):
        return 1 << 62
    return available


def _number(path: str) -> int | None:
    try:
        with open(path, "rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):  # "max", or not there
        return None


def _reclaimable_nbytes(directory: str) -> int:
    """Page cache of files: counted as used, given back when asked for. Shared memory is not in it."""
    try:
        with open(f"{directory}/memory.stat", "rb") as file:
            fields = dict(line.split() for line in file.read().splitlines())
        keys = (b"total_inactive_file", b"total_active_file")
        if keys[0] not in fields:
            keys = (b"inactive_file", b"active_file")
        return sum(int(fields[key]) for key in keys)
    except (OSError, ValueError, KeyError):
        return 0


def _memory_groups() -> list[tuple[str, str, str]]:
    """The memory control groups of this process, innermost first, with the names of their files."""
    found: list[tuple[str, str, str]] = []
    try:
        with open("/proc/self/cgroup", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return found
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            root, limit, usage = _CGROUP_ROOT, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = f"{_CGROUP_ROOT}/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        path = path.rstrip("/")
        while True:
            # Inside a container the path may be that of the host, with only the root of it visible.
            if os.path.exists(f"{root}{path}/{limit}"):
                found.append((f"{root}{path}", limit, usage))
            if not path:
                break
            path = path.rpartition("/")[0]
    return found


class GroupLimit(NamedTuple):
    """The memory limit of one control group: its folder, the limit, and what is left of it in bytes."""

    folder: str
    limit_nbytes: int
    left_nbytes: int


def group_limits() -> list[GroupLimit]:
    """The memory limits that control groups set for this process, innermost first; empty where there is none."""
    found = []
    for folder, limit_file, usage_file in _memory_groups():
        limit = _number(f"{folder}/{limit_file}")
        if limit is not None and limit < 1 << 60:
            used = (_number(f"{folder}/{usage_file}") or 0) - _reclaimable_nbytes(folder)
            found.append(GroupLimit(folder, limit, max(0, limit - used)))
    return found


def free_nbytes() -> int:
    """Bytes that a new segment could take now, as far as known (up to 0.25 s old)."""
    return max(0, _headroom.left(0)[0])


def map_pages(fd: int, nbytes: int, *, step: str, writable: bool = True, private: bool = False) -> int:
    """Map the first `nbytes` of a segment's file, on huge pages where there are; the address.

    `step` ("create" or "attach") is how the failpoints here begin.

    Raises
    ------
    OutOfSharedMemoryError
        The address space is used up.
    """
    try:
        if ARMED:
            reach(f"{step}.map")
        address = libc.map_descriptor(fd, nbytes, writable=writable, private=private)
    except OSError as error:
        if error.errno is None:
            raise  # a signal handler's, not the kernel's
        raise OutOfSharedMemoryError(
            f"{nbytes} bytes could not be mapped ({error.strerror}): the address space is used up "
            "(ulimit -v, or sysctl vm.max_map_count for very many arrays)",
            nbytes=nbytes,
            free_nbytes=0,
            limit="address space",
        ) from error
    if nbytes >= HUGE_NBYTES:
        if ARMED:
            reach(f"{step}.advise")
        libc.advise_huge(address, nbytes)
    return address


def reserve(fd: int, nbytes: int) -> None:
    """Reserve the first `nbytes` of the file, which it has afterwards.

    Raises
    ------
    OutOfSharedMemoryError
        With what was reserved so far still reserved: the caller drops the file.
    """
    _in_slices(nbytes, lambda offset, count: os.posix_fallocate(fd, offset, count))


def populate(address: int, nbytes: int) -> bool:
    """Reserve by having the pages of a mapping allocated; False when this kernel cannot (before 5.14).

    On a file system mounted ``huge=advise`` only this gives huge pages: `fallocate` knows no mapping, so
    it heeds no advice.
    """
    try:
        _in_slices(nbytes, lambda offset, count: libc.populate(address + offset, count))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def _in_slices(nbytes: int, take: Callable[[int, int], None]) -> None:
    offset = 0
    while offset < nbytes:
        count = min(SLICE_NBYTES, nbytes - offset)
        # The whole of what is missing must fit, or a large request would fill memory before it fails.
        left, limit = _headroom.left(count)
        if nbytes - offset > left:
            raise _out(nbytes, left + offset, limit)
        try:
            if ARMED:
                reach("create.reserve")
            take(offset, count)
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise _out(nbytes, 0, "RLIMIT_FSIZE (ulimit -f)") from error
            if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT, errno.EFAULT):
                raise _out(nbytes, free_nbytes(), DIRECTORY) from error
            raise
        offset += count


@functools.cache
def heeds_huge_advice() -> bool:
    """Whether the file system of segments is mounted ``huge=advise``."""
    found = False
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            for line in file:
                _, directory, _, options, *_ = line.split(" ")
                if directory == DIRECTORY:
                    found = "huge=advise" in options.split(",")  # the last one counts
    except (OSError, ValueError):
        return False
    return found


def in_words(nbytes: int) -> str:
    """A number of bytes for people.

    Examples
    --------
    >>> in_words(512), in_words(999_999), in_words(32_000_004_096)
    ('512 bytes', '1.0 MB', '32.0 GB')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= 0.99995 * size:  # what would be written as 1000.0 belongs to the next unit already
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} bytes"


def _out(nbytes: int, left: int, limit: str) -> OutOfSharedMemoryError:
    left = max(0, left)
    if limit == DIRECTORY:
        remedy = f", or enlarge it (docker run --shm-size, mount -o remount,size=... {DIRECTORY})"
    else:
        remedy = ", or raise that limit" if "machine" not in limit else ", or end other programs"
    return OutOfSharedMemoryError(
        f"{in_words(nbytes)} of shared memory ({nbytes:,} bytes) were asked for, {in_words(left)} are free ({limit}); "
        f"drop arrays, see `shmarray ls`{remedy}",
        nbytes=nbytes,
        free_nbytes=left,
        limit=limit,
    )
