"""How does the last holder take a segment's file with it?

The kernel judges who is alive: every holder's open file carries a shared lock that lives as long as its
mapping, so an exclusive lock, taken without waiting, proves that nobody is left.

Invariant: a file is removed only under the namespace's lock, under an exclusive lock on itself, and
while its name still means this inode. The registry's own lock is held whenever a function here runs.
"""

from __future__ import annotations

import os

from shmarray.registry.names import is_private
from shmarray.registry.namespace import NamespaceLock
from shmarray.segment.descriptor import DESCRIPTOR_NBYTES, Words
from shmarray.segment.failpoints import ARMED, reach
from shmarray.segment.libc import fcntl
from shmarray.segment.mapping import DIRECTORY, Mapping

__all__ = ["DROP_PATIENCE_S", "OPEN_FLAGS", "destroy", "destroy_held", "is_at", "read_page", "try_exclusive"]

#: How long a drop waits for the namespace's lock; past that the next gc sees to the file.
DROP_PATIENCE_S = 0.5

#: O_NONBLOCK, because somebody may have planted a FIFO; O_NOFOLLOW, or a symbolic link.
OPEN_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def read_page(fd: int, size: int) -> bytes:
    """A private copy of a file's last 4096 bytes; shorter when the file is."""
    return os.pread(fd, DESCRIPTOR_NBYTES, max(0, size - DESCRIPTOR_NBYTES))


def try_exclusive(fd: int) -> bool:
    """Whether nobody else holds the file, by the kernel's word. It is locked for us then."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(path: str, key: tuple[int, int]) -> bool:
    """Whether the path means this inode."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == key


def destroy(names: NamespaceLock, file_name: str, namespace: str, key: tuple[int, int]) -> bool:
    """Remove the file of a mapping that has just gone, if nobody else holds it."""
    path = f"{DIRECTORY}/{file_name}"
    with names.held(namespace, timeout_s=DROP_PATIENCE_S, when_stuck=False):
        if ARMED:
            reach("destroy.open")
        try:
            fd = os.open(path, OPEN_FLAGS)
        except FileNotFoundError:
            return False
        try:
            if ARMED:
                reach("destroy.stat")
            status = os.fstat(fd)
            if ARMED:
                reach("destroy.lock")
            if (status.st_dev, status.st_ino) != key or not try_exclusive(fd):
                return False
            if ARMED:
                reach("destroy.read")
            if not is_private(file_name) and Words.of_page(read_page(fd, status.st_size)).is_needed:
                return False
            if ARMED:
                reach("destroy.unlink")
            os.unlink(path)
            return True
        finally:
            if ARMED:
                reach("destroy.close")
            os.close(fd)


def destroy_held(names: NamespaceLock, mapping: Mapping) -> bool:
    """The same at exit for one that is still mapped here, and stays so.

    The lock of our own open file becomes exclusive: granted, nobody else is left. Refused, our shared
    one is gone, which is harmless: the others hold theirs, and we are about to end.
    """
    path = mapping.path
    if path is None or mapping.fd < 0:
        return False
    with names.held(mapping.namespace, timeout_s=DROP_PATIENCE_S, when_stuck=False):
        if ARMED:
            reach("destroy.lock")
        if not try_exclusive(mapping.fd):
            return False
        if ARMED:
            reach("destroy.look")
        if not is_at(path, mapping.key):
            return False
        if ARMED:
            reach("destroy.read")
        if Words.of_page(read_page(mapping.fd, mapping.length)).is_needed:
            fcntl.flock(mapping.fd, fcntl.LOCK_SH)
            return False
        if ARMED:
            reach("destroy.unlink")
        os.unlink(path)
    return True
