"""When may a segment's file be removed, and by whom?

By its last holder (:mod:`shmarray.registry.removal`), by gc after a crash, or because the user says so
(`unlink`, `if_exists="replace"`). The last two are here.

Invariants
----------
* Except on the user's word, a file is removed only under the namespace's lock, under an exclusive lock
  on itself, and while its name still means this inode.
* Never removed by gc: a segment to be kept, one with a handle in flight, one of an unknown magic or a
  newer layout version, another user's, one that lets others in, anything that is not a regular file.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
import time
from collections import deque
from contextlib import suppress

from shmarray.configuration import config
from shmarray.errors import OutOfSharedMemoryError, SegmentAccessError, SegmentNotFoundError, ShmArrayError
from shmarray.registry.names import check_name, is_private, is_public, label_of, lock_name, public_name
from shmarray.registry.removal import DROP_PATIENCE_S, OPEN_FLAGS, is_at, read_page, try_exclusive
from shmarray.registry.store import store
from shmarray.segment.descriptor import DESCRIPTOR_NBYTES, Descriptor, Words, is_known_layout
from shmarray.segment.failpoints import ARMED, reach
from shmarray.segment.libc import fcntl
from shmarray.segment.mapping import DIRECTORY

__all__ = ["file_names", "gc", "reclaim_name", "step", "unlink", "unlink_file"]

#: gc within creation: how often a round begins, and how many files one creation looks at.
_ROUND_S = 5.0
#: How long a gc that was asked for waits for the namespace's lock; whoever opens the file at hand waits with it.
_GC_PATIENCE_S = 2.0
_STEP = 4
#: How long a creation waits for somebody who is removing the old file of its name.
_PATIENCE_S = 1.0


def file_names(namespace: str) -> list[str]:
    """All files of a namespace but its lock."""
    prefix, lock = f"{namespace}~", lock_name(namespace)
    try:
        if ARMED:
            reach("gc.list")
        found = os.listdir(DIRECTORY)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise OutOfSharedMemoryError(
            f"no file descriptor is free to list {DIRECTORY}; raise the limit (ulimit -n) or close files",
            nbytes=0,
            free_nbytes=0,
            limit="file descriptors",
        ) from error
    return [name for name in found if name.startswith(prefix) and name != lock]


def _reclaim(file_name: str, namespace: str, *, timeout_s: float = DROP_PATIENCE_S) -> str | None:
    """Remove one file if it may be; returns what to call it, None when it stays.

    A lock of the namespace that somebody is stuck with is waited for `timeout_s` once, not for every file.
    """
    path = f"{DIRECTORY}/{file_name}"
    try:
        if ARMED:
            reach("gc.open")
        fd = os.open(path, OPEN_FLAGS)
    except OSError:
        return None  # gone, not ours, or no regular file
    try:
        if ARMED:
            reach("gc.stat")
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            return None
        if ARMED:
            reach("gc.lock")
        if not try_exclusive(fd):
            return None  # alive
        if ARMED:
            reach("gc.read")
        page = read_page(fd, status.st_size)
        label = label_of(file_name)
        if is_known_layout(page):
            if not is_private(file_name):
                descriptor = Descriptor.unpack(page, capacity=status.st_size - DESCRIPTOR_NBYTES, label=label)
                words = Words.of_page(page)
                if descriptor.keep or words.is_in_flight:
                    return None
                if words.journal:  # a call was cut short: what it committed is put in place before this goes
                    from shmarray.registry.replay import replay_held

                    replay_held(fd, file_name)
        elif not is_private(file_name) or any(page[:12]):
            return None  # a private file of zeros is one whose maker died before it wrote anything
        with store, store.names.held(namespace, timeout_s=timeout_s, when_stuck=False):
            if ARMED:
                reach("gc.look")
            if not is_at(path, (status.st_dev, status.st_ino)):
                return None
            if ARMED:
                reach("gc.unlink")
            os.unlink(path)
        return label
    except (ShmArrayError, OSError):
        return None  # corrupt, or the namespace is busy
    finally:
        if ARMED:
            reach("gc.close")
        os.close(fd)


def gc() -> list[str]:
    """Remove the segments of this namespace that nobody holds any more.

    Left alone are segments made with ``keep=True``, those with a handle still in flight, and whatever
    this version cannot read.

    Returns
    -------
    list of str
        What was removed, by the user's name, or by file name for nameless ones.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.registry.gc()
    []
    """
    namespace = config.namespace
    if not os.path.isdir(DIRECTORY):
        return []
    _rounds.pop(namespace, None)
    reclaimed = []
    for name in sorted(file_names(namespace)):
        label = _reclaim(name, namespace, timeout_s=_GC_PATIENCE_S)
        if label is not None and not is_private(name):
            reclaimed.append(label if is_public(name) else name)
    if ARMED:
        reach("gc.end")
    if os.path.exists(f"{DIRECTORY}/{lock_name(namespace)}"):
        with store, suppress(ShmArrayError):
            store.names.prepare(namespace)
            store.names.forget()  # with the lock's file, when nothing else is left
    return reclaimed


class _Round:
    """What a round of gc within creations has still to look at."""

    __slots__ = ("next_s", "todo")

    def __init__(self) -> None:
        self.next_s = 0.0
        self.todo: deque[str] = deque()


_rounds: dict[str, _Round] = {}


def step(namespace: str) -> None:
    """A few probes on behalf of a creation: every creation pays for a little of the gc."""
    current = _rounds.get(namespace)
    if current is None:
        if len(_rounds) > 16:
            _rounds.clear()
        current = _rounds[namespace] = _Round()
    todo = current.todo
    if not todo:
        now = time.monotonic()
        if now < current.next_s:
            return
        current.next_s = now + _ROUND_S
        try:
            todo.extend(file_names(namespace))
        except (OSError, ShmArrayError):  # no descriptor for the listing: creation will say so better
            return
    for _ in range(_STEP):
        try:
            name = todo.popleft()
        except IndexError:
            return
        if name not in store.named:
            _reclaim(name, namespace)


def reclaim_name(file_name: str, namespace: str) -> bool:
    """Remove the file in the way of a creation, if nobody holds it; whether the name is free now, or was lately."""
    until_s = time.monotonic() + _PATIENCE_S
    while _reclaim(file_name, namespace) is None:
        holders = _holders(f"{DIRECTORY}/{file_name}")
        if holders is not _Holders.REMOVER or time.monotonic() > until_s:
            return holders is _Holders.NO_FILE
        time.sleep(50e-6)
    return True


class _Holders(enum.Enum):
    """Who has locked a file."""

    NO_FILE = enum.auto()
    REMOVER = enum.auto()  # somebody who found that nobody holds it, and is about to remove it
    OTHERS = enum.auto()


def _holders(path: str) -> _Holders:
    try:
        if ARMED:
            reach("create.who")
        fd = os.open(path, OPEN_FLAGS)
    except FileNotFoundError:
        return _Holders.NO_FILE
    except OSError:
        return _Holders.OTHERS
    try:
        if ARMED:
            reach("create.who-lock")
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return _Holders.OTHERS if os.fstat(fd).st_nlink else _Holders.NO_FILE
    except BlockingIOError:
        return _Holders.REMOVER
    finally:
        os.close(fd)


def unlink_file(file_name: str, namespace: str, label: str | None, *, key: tuple[int, int] | None = None) -> None:
    """Remove a name because the user says so; whoever maps the segment keeps it.

    With `key`, only while the name still means that inode.
    """
    path = f"{DIRECTORY}/{file_name}"
    with store, store.names.held(namespace):
        if ARMED:
            reach("unlink.look")
        try:
            status = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            status = None
        if status is None or (key is not None and (status.st_dev, status.st_ino) != key):
            raise SegmentNotFoundError(
                f"no array is called {label!r} in namespace {namespace!r}: it was never created, was unlinked, "
                "or its last holder has gone; see `shmarray ls`",
                name=label,
            )
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise SegmentAccessError(
                f"{path!r} is not a regular file of user {os.geteuid()}; it is left alone, remove it by hand "
                "if it should not be there",
                name=label,
            )
        if ARMED:
            reach("unlink.unlink")
        os.unlink(path)
        store.forget_name(file_name, (status.st_dev, status.st_ino))


def unlink(name: str) -> None:
    """Remove an array's name. Whoever holds the array keeps it; the memory goes with the last of them.

    Parameters
    ----------
    name : str
        The user's name.

    Raises
    ------
    SegmentNotFoundError
        When no array is called so in `config.namespace`.

    Examples
    --------
    >>> import shmarray as sa
    >>> kept = sa.zeros(4, name="unlink-example", keep=True)
    >>> sa.registry.unlink("unlink-example")
    """
    namespace = config.namespace
    unlink_file(public_name(namespace, check_name(name)), namespace, name)
