"""How does a crash-safe call end whose caller has died?

By whoever opens one of its arrays next, or by gc when it comes to the scratch: what was committed is copied to its
place (:mod:`shmarray.registry.scratch`), what was not has changed nothing. Then the arrays' pages say what is left to
be known, and the scratch goes.

Who lives: the caller has an OFD lock on the first byte of the scratch; it and its workers hold the shared `flock` that
every segment's holder has, so an exclusive one is granted when the last of them has gone. The first tells a call under
way from one that was cut short, the second keeps a straggler from copying old results over what came later.

Invariants: only committed chunks are copied, and only into arrays whose pages name this very scratch; a scratch that a
page names is removed after that page has been seen to. What is in the way (no descriptor free, no memory, an array
locked by somebody who stands still) leaves the scratch to the next: it is never taken for a file that is not there.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from contextlib import ExitStack
from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from shmarray.errors import OutOfSharedMemoryError, SegmentAccessError, ShmArrayError
from shmarray.registry.condition import UNDER_WAY, UNKNOWN, pack_reason
from shmarray.registry.names import is_private
from shmarray.registry.removal import OPEN_FLAGS, is_at, read_page, try_exclusive
from shmarray.registry.scratch import TEXT, Block, Layout, Window, bytes_at
from shmarray.registry.store import store
from shmarray.segment import libc
from shmarray.segment.descriptor import (
    DESCRIPTOR_NBYTES,
    JOURNAL,
    REASON,
    SCRATCH,
    SCRATCH_NBYTES,
    Descriptor,
    Words,
    is_known_layout,
)
from shmarray.segment.failpoints import ARMED, reach
from shmarray.segment.libc import fcntl
from shmarray.segment.mapping import DIRECTORY, Mapping

__all__ = ["Outcome", "finish_dead_call", "finish_for", "is_under_way", "look_after", "replay_held", "scratch_named_in"]

#: How long an opener waits for the workers of a dead caller, which leave within milliseconds unless they are stopped.
_PATIENCE_S = 5.0
#: How long a replay waits for whoever has locked one of its arrays: gc, for the microseconds of a question.
_LOCK_PATIENCE_S = 1.0
_OFD_GETLK = 36
#: What opening says of a file that is no segment of ours.
_NOT_OURS = (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM)
#: What stands for a limit of this process or of the machine.
_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Outcome(Enum):
    """What was found at a scratch's name."""

    DONE = auto()  #: the call had been cut short; all that it committed is in its place
    UNDER_WAY = auto()  #: its caller lives, or a worker that will not go
    GONE = auto()  #: nothing


def look_after(mapping: Mapping) -> None:
    """For an opener: if the array's page names a scratch whose caller is dead, finish that call.

    Raises
    ------
    OutOfSharedMemoryError, SegmentAccessError
        When that cannot be done here and now.
    """
    named = scratch_named_in(mapping.page)
    if named and finish_for(mapping, named) is Outcome.GONE:
        try:
            _say_that_it_is_gone(mapping, named)
        except OSError as error:
            raise _cannot_finish(mapping, error) from error


def is_under_way(file_name: str) -> bool:
    """Whether the caller of the call with this scratch lives. Nothing is changed."""
    fd = -1 if "/" in file_name else _open_ours(f"{DIRECTORY}/{file_name}", "replay.open")
    if fd < 0:
        return False
    try:
        return not _caller_is_dead(fd)
    finally:
        os.close(fd)


def finish_for(mapping: Mapping, file_name: str) -> Outcome:
    """:func:`finish_dead_call` on behalf of an array whose page names the scratch, with errors that say so."""
    try:
        return finish_dead_call(file_name)
    except ShmArrayError:
        raise
    except OSError as error:
        raise _cannot_finish(mapping, error) from error


def _cannot_finish(mapping: Mapping, error: OSError) -> ShmArrayError:
    shown = mapping.descriptor.name or mapping.file_name
    text = (
        f"array {shown!r} cannot be used yet: a crash-safe call on it was cut short, and could not be finished here: "
        f"{error.strerror or error}; nothing is lost, open it again when that is mended"
    )
    if error.errno in _USED_UP:
        limit = "memory or address space" if error.errno == errno.ENOMEM else "file descriptors"
        return OutOfSharedMemoryError(text, nbytes=mapping.length, free_nbytes=0, limit=limit)
    return SegmentAccessError(text, name=shown)


def _say_that_it_is_gone(mapping: Mapping, named: str) -> None:
    # Removed by hand, or with its mount. (A live caller takes its name out of the page before it removes it.)
    if ARMED:
        reach("replay.gone")
    fd = mapping.open_unlocked()
    try:
        at = mapping.length - DESCRIPTOR_NBYTES
        if scratch_named_in(os.pread(fd, DESCRIPTOR_NBYTES, at)) == named:
            _write_page(fd, at, "the scratch of a crash-safe call that was cut short has been removed")
    finally:
        os.close(fd)


def scratch_named_in(page: bytes | memoryview) -> str:
    """The file name of the scratch that a descriptor page names; "" for none."""
    if len(page) < DESCRIPTOR_NBYTES or not page[SCRATCH]:
        return ""
    return bytes(page[SCRATCH : SCRATCH + SCRATCH_NBYTES]).partition(b"\0")[0].decode(errors="replace")


def finish_dead_call(file_name: str) -> Outcome:
    """Copy what a dead caller has committed to where it belongs, and remove its scratch.

    Waits for its workers to be gone, and for others who do the same. `OSError` for what is in the way: all is as it was
    then, or done in part, and can be done again.
    """
    namespace, mark, _ = file_name.partition("~.")
    if not mark or "/" in file_name or is_private(file_name):
        return Outcome.GONE  # nothing that a call can have written
    path = f"{DIRECTORY}/{file_name}"
    fd = _open_ours(path, "replay.open")
    if fd < 0:
        return Outcome.GONE
    try:
        until_s = time.monotonic() + _PATIENCE_S
        while not _caller_is_dead(fd) or not _try_exclusive(fd):
            if not _caller_is_dead(fd) or time.monotonic() > until_s:
                return Outcome.UNDER_WAY
            time.sleep(1e-3)
        if ARMED:
            reach("replay.linked")
        status = os.fstat(fd)
        if not status.st_nlink:
            return Outcome.DONE  # another opener was first
        try:
            replay_held(fd, file_name)
        except BlockingIOError:
            return Outcome.UNDER_WAY  # somebody stands still with one of the arrays
        with store, store.names.held(namespace):
            if ARMED:
                reach("replay.look")
            if is_at(path, (status.st_dev, status.st_ino)):
                if ARMED:
                    reach("replay.unlink")
                os.unlink(path)
        return Outcome.DONE
    finally:
        if ARMED:
            reach("replay.close")
        os.close(fd)


def _open_ours(path: str, point: str) -> int:
    """Open a file of ours that nobody else can have written; -1 when there is none."""
    try:
        if ARMED:
            reach(point)
        fd = os.open(path, OPEN_FLAGS)
    except OSError as error:
        if error.errno in _NOT_OURS:
            return -1
        raise
    try:
        if ARMED:
            reach("replay.stat")
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return -1


def _try_exclusive(fd: int) -> bool:
    if ARMED:
        reach("replay.lock")
    return try_exclusive(fd)


def _caller_is_dead(fd: int) -> bool:
    if ARMED:
        reach("replay.who")
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    kind: int = struct.unpack_from("h", fcntl.fcntl(fd, _OFD_GETLK, asked))[0]
    return kind == fcntl.F_UNLCK


class _Array(NamedTuple):
    """An array that a call was about, mapped for its replay."""

    block: Block
    fd: int
    address: int
    page_at: int


def replay_held(fd: int, file_name: str) -> None:
    """The same for a scratch that the caller of this function has locked exclusively; the file stays.

    `OSError` for what is in the way; `BlockingIOError` when it is somebody who has locked an array.
    """
    if ARMED:
        reach("replay.read")
    size = os.fstat(fd).st_size
    page = read_page(fd, size)
    if not is_known_layout(page) or not Words.of_page(page).journal:
        return
    with ExitStack() as stack:
        if ARMED:
            reach("replay.map")
        scratch = libc.map_descriptor(fd, size, writable=True)
        stack.callback(_unmap, scratch, size)
        memory = bytes_at(scratch, size - DESCRIPTOR_NBYTES)
        window = Window.of(memory)
        try:
            layout = Layout.parse(memory[TEXT : TEXT + window.text_nbytes].tobytes(), memory.size)
            if window.committed:  # else it may have been at writing the window down
                layout.check_window(window)
        except ValueError:
            return  # somebody has written over it; arrays that name it will find it gone, and say so
        arrays = [
            found
            for block in layout.blocks
            if (found := _open_array(stack, block, layout, window, file_name)) is not None
        ]
        if ARMED:
            reach("replay.begin")
        states = memory[layout.states_at : layout.states_at + len(layout.grid)]
        if window.committed:
            for index in range(window.first, window.stop):
                if not states[index]:
                    for array in arrays:
                        layout.copy(array.block, index, window.begins, scratch, array.address)
                    if ARMED:
                        reach("replay.copied")
                    states[index] = 1
        done, n_chunks = int(np.count_nonzero(states)), len(layout.grid)  # windows come in order: these are the first
        reason = ""
        if 0 < done < n_chunks:
            reason = (
                f"{layout.task} was cut short: chunks 0 to {done - 1} of {n_chunks} are done, the others are as they "
                "were before"
            )
        for array in arrays:
            _write_page(array.fd, array.page_at, reason)
        if ARMED:
            reach("replay.end")
        os.pwrite(fd, bytes(8), size - DESCRIPTOR_NBYTES + JOURNAL)


def _unmap(address: int, nbytes: int) -> None:
    if ARMED:
        reach("replay.unmap")
    libc.unmap(address, nbytes)


def _close(fd: int) -> None:
    if ARMED:
        reach("replay.close")
    os.close(fd)


def _open_array(stack: ExitStack, block: Block, layout: Layout, window: Window, file_name: str) -> _Array | None:
    """An array of the call, if it is still there and still waits for this scratch."""
    if block.file is None:
        return None
    name, device, inode, created_ns = block.file
    if "~" not in name or "/" in name or "\0" in name or is_private(name):
        return None
    fd = _open_ours(f"{DIRECTORY}/{name}", "replay.array")
    if fd < 0:
        return None
    stack.callback(_close, fd)
    _lock_shared(fd)
    if ARMED:
        reach("replay.array-read")
    status = os.fstat(fd)
    if not status.st_nlink or (status.st_dev, status.st_ino) != (device, inode):
        return None
    page = read_page(fd, status.st_size)
    try:
        descriptor = Descriptor.unpack(page, capacity=status.st_size - DESCRIPTOR_NBYTES, label=name)
        if descriptor.created_ns != created_ns or scratch_named_in(page) != file_name:
            return None
        if window.committed:
            layout.check(block, window, descriptor.nbytes)
    except ValueError:  # not what the scratch says
        return None
    if ARMED:
        reach("replay.array-map")
    address = libc.map_descriptor(fd, status.st_size, writable=True)
    stack.callback(_unmap, address, status.st_size)
    return _Array(block, fd, address, status.st_size - DESCRIPTOR_NBYTES)


def _lock_shared(fd: int) -> None:
    """Have nobody remove the file meanwhile; whoever asks just now whether somebody holds it is waited for."""
    until_s = 0.0
    while True:
        if ARMED:
            reach("replay.array-lock")
        try:
            return fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            until_s = until_s or now + _LOCK_PATIENCE_S
            if now > until_s:
                raise
            time.sleep(20e-6)


def _write_page(fd: int, at: int, reason: str) -> None:
    """Say in an array's page what is unknown, and then that no call is under way any more."""
    if ARMED:
        reach("replay.page")
    unknown = bool(reason) or os.pread(fd, 1, at + UNKNOWN) != b"\0"
    changes = [(UNDER_WAY, b"\0"), (SCRATCH, bytes(SCRATCH_NBYTES))]
    if reason:
        changes[:0] = [(REASON, pack_reason(reason)), (UNKNOWN, b"\1")]
    elif not unknown:
        changes[:0] = [(REASON, pack_reason(""))]
    for place, content in changes:
        if ARMED:
            reach("replay.write")
        os.pwrite(fd, content, at + place)
