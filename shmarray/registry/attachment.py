"""How does a process come to hold a segment that another one made?

::

    open -> regular file, own uid, nobody else's mode bits -> shared lock -> still linked?
    -> read the page -> say `exported` in it -> read the page again, unchanged -> map

Invariant: between the shared lock and its look at the link count the attacher either holds a live
segment or starts over, so it never returns one that has been destroyed. Between its two readings of the
page the generation is even and the same, so it never returns pages that their owner has taken back for
reuse: the owner makes the generation odd before it asks whether anybody has them open.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING

import numpy as np

from shmarray.configuration import config
from shmarray.errors import (
    CorruptSegmentError,
    OutOfSharedMemoryError,
    SegmentAccessError,
    SegmentNotFoundError,
    ShmArrayError,
)
from shmarray.registry.creation import segment_class
from shmarray.registry.names import check_name, public_name
from shmarray.registry.removal import OPEN_FLAGS, read_page, try_exclusive
from shmarray.registry.reserve import map_pages
from shmarray.registry.store import store
from shmarray.segment import libc
from shmarray.segment.descriptor import (
    DESCRIPTOR_NBYTES,
    EXPORTED,
    SCRATCH,
    USER_LOCK,
    Descriptor,
    Words,
    is_known_layout,
)
from shmarray.segment.failpoints import ARMED, reach
from shmarray.segment.libc import fcntl
from shmarray.segment.mapping import DIRECTORY, Mapping

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["adopt", "attach", "attach_file", "check_mode", "second_segment", "settled"]

_PATIENCE_S = 10.0


def check_mode(mode: str) -> str:
    """One of np.memmap's modes, without ``"w+"``."""
    if mode not in ("r+", "r", "c"):
        raise ValueError(f'mode must be "r+", "r" (read-only) or "c" (copy-on-write); got {mode!r}')
    return mode


def attach(name: str, *, mode: str = "r+", timeout_s: float | None = None) -> Segment:
    """Map the segment of that name.

    Parameters
    ----------
    name : str
        The user's name, in `config.namespace`.
    mode : {"r+", "r", "c"}
        Shared and writable, read-only, or copy-on-write.
    timeout_s : float, optional
        Wait so long for the name to appear. None: do not wait.

    Returns
    -------
    Segment
        In mode ``"r+"``, on the pages this process has already, if it has.

    Raises
    ------
    SegmentNotFoundError
        No array is called so.
    SegmentAccessError
        The file is another user's, open to others, or no regular file.
    CorruptSegmentError
        Its descriptor cannot be believed.

    Examples
    --------
    >>> from shmarray import registry
    >>> made = registry.create(3, "i4", name="attach-example")
    >>> attach("attach-example").descriptor.shape
    (3,)
    """
    check_name(name)
    check_mode(mode)
    if not libc.LINUX:
        raise ShmArrayError("shmarray shares arrays on Linux only; elsewhere it can be imported, no more")
    namespace = config.namespace
    file_name = public_name(namespace, name)
    pause_s, until_s = 2e-4, None
    while True:
        mapping = store.share(file_name)
        if mapping is not None:
            return settled(second_segment(mapping, mode))
        try:
            return settled(attach_file(file_name, namespace, name, mode))
        except SegmentNotFoundError:
            if timeout_s is None:
                raise
            now = time.monotonic()
            until_s = now + timeout_s if until_s is None else until_s
            if now >= until_s:
                raise
            time.sleep(min(pause_s, until_s - now))
            pause_s = min(2 * pause_s, 0.01)


def settled(segment: Segment) -> Segment:
    """The same segment; a crash-safe call on it whose caller has died is finished first."""
    page = segment.mapping.page
    if page and page[SCRATCH]:
        from shmarray.registry.replay import look_after

        look_after(segment.mapping.parent or segment.mapping)
    return segment


def second_segment(mapping: Mapping, mode: str) -> Segment:
    """One more segment on a file this process maps already, whose count the caller has raised."""
    if mode == "r+":
        return segment_class()._of(mapping, store)
    try:
        if mapping.fd >= 0:
            second = _map(mapping.fd, mapping.length, mapping.descriptor, mode, None, mapping.namespace)
        else:
            fd = mapping.open_unlocked()
            try:
                second = _map(fd, mapping.length, mapping.descriptor, mode, None, mapping.namespace)
            finally:
                os.close(fd)
    except BaseException:
        store.release(mapping)
        raise
    # The writable mapping carries the lock, and is neither reused nor destroyed before this one ends.
    second.fd = -1
    second.parent = mapping
    store.admit(second)
    return segment_class()._of(second, store)


def attach_file(
    file_name: str, namespace: str, label: str | None, mode: str, *, key: tuple[int, int] | None = None
) -> Segment:
    """Map a file of ours by its file name. With `key`, only that inode will do."""
    kind = segment_class()
    path = f"{DIRECTORY}/{file_name}"
    shown = label or file_name
    until_s = 0.0
    while True:
        fd = _open(path, shown, namespace)
        try:
            size = _check_file(fd, path, shown)
            if key is not None and (_key(fd) != key):
                raise _not_found(shown, namespace)
            if _lock(fd, shown) and (found := _read(fd, size, shown, label)) is not None:
                mapping = _map(fd, size, found, mode, file_name, namespace)
                store.admit(mapping)
                return kind._of(mapping, store)
        except BaseException:
            os.close(fd)
            raise
        # Destroyed, or its owner is taking it back: look again, the name may be another's by now. If nobody has it
        # any more (not asked at once: the owner is mostly through in microseconds), the owner died over that.
        now = time.monotonic()
        dead = until_s > 0 and _is_dead(fd)
        if ARMED:
            reach("attach.close")
        os.close(fd)
        until_s = until_s or now + _PATIENCE_S
        if dead or now > until_s:
            raise _not_found(shown, namespace)
        time.sleep(0)


def _is_dead(fd: int) -> bool:
    """Whether nobody but us holds the file. Our shared lock is gone then, and also if not."""
    try:
        if ARMED:
            reach("attach.lock")
        return try_exclusive(fd)
    except OSError:
        return False


def _key(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _open(path: str, shown: str, namespace: str, flags: int = OPEN_FLAGS) -> int:
    try:
        return _open_past_leases(path, flags)
    except FileNotFoundError:
        raise _not_found(shown, namespace) from None
    except OSError as error:
        if error.errno is None:
            raise  # a signal handler's, not the kernel's
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise OutOfSharedMemoryError(
                f"no file descriptor is free to open array {shown!r}; raise the limit (ulimit -n)",
                nbytes=0,
                free_nbytes=0,
                limit="file descriptors",
            ) from error
        reason = {
            errno.ELOOP: "it is a symbolic link",
            errno.EISDIR: "it is a directory",
            errno.ENXIO: "it is no regular file",
            errno.EACCES: "it belongs to another user",
            errno.EPERM: "it belongs to another user",
        }.get(error.errno or 0, error.strerror or "")
        raise _refused(path, shown, reason) from error


def _open_past_leases(path: str, flags: int) -> int:
    """Open; a dropper asks by a lease of some microseconds who else has the file open, so try again."""
    until_s = 0.0
    while True:
        if ARMED:
            reach("attach.open")
        try:
            return os.open(path, flags)
        except BlockingIOError:
            now = time.monotonic()
            until_s = until_s or now + _PATIENCE_S
            if now > until_s:
                raise
            time.sleep(0)


def _not_found(shown: str, namespace: str) -> SegmentNotFoundError:
    if namespace == DIRECTORY:  # another program's
        return SegmentNotFoundError(
            f"there is no segment {shown!r} in {DIRECTORY}: its name is `SharedMemory.name` of the program that made "
            "it, which may have removed it; arrays with a name of ours are opened with shmarray.open",
            name=shown,
        )
    return SegmentNotFoundError(
        f"no array is called {shown!r} in namespace {namespace!r}: it was never created, was unlinked, "
        "or its last holder has gone (keep=True lets an array outlive its holders); see `shmarray ls`",
        name=shown,
    )


def _refused(path: str, shown: str, reason: str) -> SegmentAccessError:
    return SegmentAccessError(
        f"array {shown!r} cannot be opened: {path!r} is not a private file of user {os.geteuid()}: {reason}. "
        "If it should not be there remove it, or choose another name or namespace",
        name=shown,
    )


def _check_file(fd: int, path: str, shown: str, *, forbidden: int = 0o077) -> int:
    """The size of a regular file that is ours alone."""
    if ARMED:
        reach("attach.stat")
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        kind = "it is a directory" if stat.S_ISDIR(status.st_mode) else "it is no regular file"
        raise _refused(path, shown, kind)
    if status.st_uid != os.geteuid():
        raise _refused(path, shown, f"it belongs to user {status.st_uid}")
    if status.st_mode & forbidden:
        raise _refused(path, shown, f"its mode is {stat.S_IMODE(status.st_mode):04o}, which lets others in")
    return status.st_size


def _lock(fd: int, shown: str) -> bool:
    """Say that we are here. False when the file has been destroyed meanwhile."""
    until_s = 0.0
    while True:
        if ARMED:
            reach("attach.lock")
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            # Somebody is about to remove it, for some microseconds; or is stopped there.
            now = time.monotonic()
            until_s = until_s or now + _PATIENCE_S
            if now > until_s:
                raise SegmentAccessError(
                    f"array {shown!r} has been locked exclusively for {_PATIENCE_S:g} s by another process, "
                    "probably a stopped one",
                    name=shown,
                ) from None
            time.sleep(20e-6)
            continue
        if ARMED:
            reach("attach.linked")
        return os.fstat(fd).st_nlink > 0


def _read(fd: int, size: int, shown: str, name: str | None) -> Descriptor | None:
    """The descriptor of a live segment; None when its owner is taking it back."""
    if size < DESCRIPTOR_NBYTES or size % DESCRIPTOR_NBYTES:
        raise CorruptSegmentError(
            f"segment {shown!r} cannot be used: {size} bytes is no size of a segment; it was truncated, or "
            "is another program's (shmarray.from_raw adopts such)",
            name=shown,
        )
    if ARMED:
        reach("attach.read")
    page = read_page(fd, size)
    if is_known_layout(page):
        generation = Words.of_page(page).generation
        if generation & 1:
            return None
        if ARMED:
            reach("attach.say")
        os.pwrite(fd, b"\1", size - DESCRIPTOR_NBYTES + EXPORTED)
        libc.fence()  # our word before our second reading
        if not _is_still(page, fd, size):
            return None
    descriptor = Descriptor.unpack(page, capacity=size - DESCRIPTOR_NBYTES, label=shown)
    if name is not None and descriptor.name != name:
        # Read once more after the look at the name: taken back twice meanwhile, it may be `name` again.
        if _is_at(fd, f"{DIRECTORY}/{public_name(config.namespace, name)}") and _is_still(page, fd, size):
            raise CorruptSegmentError(
                f"the file of array {name!r} says that it is {descriptor.name!r}: it was renamed or copied by hand; "
                "rename it back, or remove it",
                name=shown,
            )
        # Opened before its owner took it back and gave it another name: look again.
        return None
    return descriptor


def _is_still(page: bytes, fd: int, size: int) -> bool:
    """Whether a file's descriptor is what it was when `page` was read, with no owner in between."""
    if ARMED:
        reach("attach.read-again")
    now = read_page(fd, size)
    return now[:USER_LOCK] == page[:USER_LOCK] and Words.of_page(now).generation == Words.of_page(page).generation


def _is_at(fd: int, path: str) -> bool:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == _key(fd)


def _map(fd: int, length: int, descriptor: Descriptor, mode: str, file_name: str | None, namespace: str) -> Mapping:
    address = map_pages(fd, length, step="attach", writable=mode != "r", private=mode == "c")
    mapping = Mapping(
        address=address,
        length=length,
        capacity=length - DESCRIPTOR_NBYTES,
        fd=fd,
        key=_key(fd),
        file_name=file_name,
        namespace=namespace,
        descriptor=descriptor,
        mode=mode,
    )
    mapping.exported = True
    return mapping


def adopt(file_name: str, nbytes: int, *, mode: str = "r+") -> Segment:
    """Map a segment that another program made; we never remove or reuse it.

    Parameters
    ----------
    file_name : str
        As `multiprocessing.shared_memory.SharedMemory(name=...)` takes it.
    nbytes : int
        Bytes to use from its start.
    mode : {"r+", "r", "c"}

    Raises
    ------
    ValueError
        When the segment has fewer bytes.
    """
    check_mode(mode)
    if not isinstance(file_name, str):
        raise TypeError(f"a segment's name must be a str; got {type(file_name).__name__}: {file_name!r}")
    bare = file_name.removeprefix("/")
    if not bare or "/" in bare or "\0" in bare or bare in (".", "..") or len(os.fsencode(bare)) > 255:
        raise ValueError(f"{file_name!r} is no name of a segment: 1 to 255 bytes without a slash")
    if not libc.LINUX:
        raise ShmArrayError("shmarray shares arrays on Linux only; elsewhere it can be imported, no more")
    kind = segment_class()
    path = f"{DIRECTORY}/{bare}"
    flags = OPEN_FLAGS if mode == "r+" else OPEN_FLAGS & ~os.O_RDWR
    fd = _open(path, bare, DIRECTORY, flags)
    try:
        size = _check_file(fd, path, bare, forbidden=0o022)
        if size < nbytes:
            raise ValueError(f"segment {bare!r} has {size} bytes; this shape and dtype need {nbytes}")
        if not size:
            raise ValueError(f"segment {bare!r} has no bytes yet; its maker has not given it a size")
        if ARMED:
            reach("attach.lock")
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        descriptor = Descriptor((nbytes,), np.dtype("u1"), nbytes)
        mapping = _map(fd, size, descriptor, mode, bare, "")
    except BlockingIOError:
        os.close(fd)
        raise SegmentAccessError(
            f"segment {bare!r} is locked exclusively by another process; wait until it has done", name=bare
        ) from None
    except BaseException:
        os.close(fd)
        raise
    mapping.capacity = size
    mapping.page = mapping.words = memoryview(b"")
    mapping.foreign = True
    store.admit(mapping)
    return kind._of(mapping, store)
