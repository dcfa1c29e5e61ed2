"""Is there shared memory, enough of it, and how are its pages given out?"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

from shmarray.cli.doctor.finding import Finding, good, note, wrong
from shmarray.cli.rendering import format_nbytes
from shmarray.registry.reserve import group_limits, heeds_huge_advice
from shmarray.segment.mapping import DIRECTORY

__all__ = ["check_memory"]

_MIB = 1 << 20
#: Docker gives 64 MiB unless told otherwise; less than this is of little use.
_SMALL_NBYTES = 64 * _MIB
_FEW_DESCRIPTORS = 256


def check_memory() -> Iterator[Finding]:
    """Everything about memory, one finding a subject."""
    yield from _directory()
    yield from _groups()
    yield _huge_pages()
    yield from _limits()


def _directory(directory: str = DIRECTORY) -> Iterator[Finding]:
    topic = directory
    if not os.path.isdir(directory):
        yield wrong(topic, "there is no such directory", f"mount a tmpfs at {directory} (docker run --shm-size=2g)")
        return
    kind = _mount(directory)[0]
    if kind and kind != "tmpfs":
        yield wrong(
            topic,
            f"it is a {kind}, not a tmpfs: arrays would be written to a disk",
            f"mount -t tmpfs -o size=50% tmpfs {directory}",
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        yield wrong(topic, f"user {os.geteuid()} may not write there", f"chmod 1777 {directory}, as root")
        return
    found = os.statvfs(directory)
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    text = f"{format_nbytes(size)}, of which {format_nbytes(free)} are free"
    enlarge = f"docker run --shm-size=2g, or mount -o remount,size=50% {directory}"
    if size <= _SMALL_NBYTES:
        yield wrong(topic, f"{text}: as small as Docker makes it by default", enlarge)
    elif free < min(_SMALL_NBYTES, size // 10):
        yield wrong(topic, f"{text}: nearly full", f"see `shmarray ls` and `ls -lS {directory}`; {enlarge}")
    elif size < _machine_nbytes() // 4:
        yield note(topic, f"{text}; less than a quarter of the machine's memory", enlarge)
    else:
        yield good(topic, text)
    if found.f_files and found.f_favail < 1000:
        yield wrong(topic, f"{found.f_favail} more files fit", f"mount -o remount,nr_inodes=1M {directory}")
    yield _nameless_files(directory)


def _nameless_files(directory: str) -> Finding:
    try:
        os.close(os.open(directory, os.O_RDWR | os.O_CLOEXEC | os.O_TMPFILE, 0o600))
    except OSError as error:
        return note(
            "nameless files",
            f"O_TMPFILE is not to be had ({error.strerror}): files under private names stand for it",
            "a newer kernel, or another container runtime; nothing fails without",
        )
    return good("nameless files", "offered (O_TMPFILE): what is never shared needs no cleaning up")


def _mount(directory: str) -> tuple[str, str]:
    """File system and options of the mount at a directory; empty where unknown."""
    found = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            for line in file:
                _, place, kind, options, *_ = line.split(" ")
                if place == directory:
                    found = kind, options  # the last one is on top
    except (OSError, ValueError):
        pass
    return found


def _machine_nbytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups() -> Iterator[Finding]:
    limits = group_limits()
    if not limits:
        yield good("control group", "no memory limit")
    for one in limits:
        text = f"{one.folder} allows {format_nbytes(one.limit_nbytes)}, {format_nbytes(one.left_nbytes)} are left"
        if one.left_nbytes < _SMALL_NBYTES:
            remedy = "a larger limit (docker run --memory, resources.limits.memory): shared arrays count as its memory"
            yield wrong("control group", f"{text}: past it processes are killed", remedy)
        else:
            yield good("control group", text)


def _huge_pages() -> Finding:
    topic = "huge pages"
    if not os.path.isdir("/sys/kernel/mm/transparent_hugepage"):
        return note(topic, "this kernel has none; the first touch of a new array is slower")
    if heeds_huge_advice():
        return good(topic, f"{DIRECTORY} is mounted huge=advise")
    options = _mount(DIRECTORY)[1].split(",")
    if "huge=always" in options or "huge=within_size" in options:
        return good(topic, f"{DIRECTORY} is mounted {next(option for option in options if option.startswith('huge='))}")
    return note(
        topic,
        f"{DIRECTORY} gives small pages only; the first touch of a large array is some ten times as slow",
        f"mount -o remount,huge=advise {DIRECTORY}, as root",
    )


def _limits() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FEW_DESCRIPTORS:
        yield wrong("descriptors", f"{soft} a process (hard limit {hard})", "ulimit -n 4096")
    else:
        yield good("descriptors", f"{soft} a process")
    for name, what, option in (
        ("RLIMIT_FSIZE", "the size of files, and so of arrays", "ulimit -f unlimited"),
        ("RLIMIT_AS", "the address space", "ulimit -v unlimited"),
    ):
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            yield note("limits", f"{name} bounds {what} to {format_nbytes(limit)}", option)
