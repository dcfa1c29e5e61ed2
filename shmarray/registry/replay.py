"""How does a crash-safe call end whose caller has died?

By whoever opens one of its arrays next, or by gc when it comes to the scratch: what was committed is copied to its
place (:mod:`shmarray.registry.scratch`), what was not has changed nothing. Then the arrays' pages say what is left to
be known, and the scratch goes.

Who lives: the caller has an OFD lock on the first byte of the scratch; it and its workers hold the shared `flock` that
every segment's holder has, so an exclusive one is granted when the last of them has gone. The first tells a call under
way from one that was cut short, the second keeps a straggler from copying old results over what came later.

Invariants: only committed chunks are copied, and only into arrays whose pages name this very scratch; a scratch that a
page names is removed after that page has been seen to.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import ExitStack, suppress
from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from shmarray.registry.condition import UNDER_WAY, UNKNOWN, pack_reason
from shmarray.registry.names import is_private
from shmarray.registry.removal import OPEN_FLAGS, is_at, read_page, try_exclusive
from shmarray.registry.scratch import TEXT, Block, Layout, Window, bytes_at
from shmarray.registry.store import store
from shmarray.segment import libc
from shmarray.segment.descriptor import (
    DESCRIPTOR_NBYTES,
    DIRTY,
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

__all__ = ["Outcome", "finish_dead_call", "look_after", "replay_held", "scratch_named_in"]

#: How long an opener waits for the workers of a dead caller, which leave within milliseconds unless they are stopped.
_PATIENCE_S = 5.0
_OFD_GETLK = 36


class Outcome(Enum):
    """What was found at a scratch's name."""

    DONE = auto()  #: the call had been cut short; all that it committed is in its place
    UNDER_WAY = auto()  #: its caller lives, or a worker that will not go
    GONE = auto()  #: nothing


def look_after(mapping: Mapping) -> None:
    """For an opener: if the array's page names a scratch whose caller is dead, finish that call."""
    named = scratch_named_in(mapping.page)
    if named and finish_dead_call(named, mapping.namespace) is Outcome.GONE:
        # Removed by hand, or with its mount. (A live caller takes its name out of the page before it removes it.)
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


def finish_dead_call(file_name: str, namespace: str, *, patience_s: float = _PATIENCE_S) -> Outcome:
    """Copy what a dead caller has committed to where it belongs, and remove its scratch.

    Waits for its workers to be gone, and for others who do the same.
    """
    if not file_name.startswith(f"{namespace}~.") or "/" in file_name:
        return Outcome.GONE
    path = f"{DIRECTORY}/{file_name}"
    try:
        fd = os.open(path, OPEN_FLAGS)
    except OSError:
        return Outcome.GONE
    try:
        until_s = time.monotonic() + patience_s
        while not _caller_is_dead(fd) or not try_exclusive(fd):
            if not _caller_is_dead(fd) or time.monotonic() > until_s:
                return Outcome.UNDER_WAY
            time.sleep(1e-3)
        status = os.fstat(fd)
        if not status.st_nlink:
            return Outcome.DONE  # another opener was first
        replay_held(fd, file_name, namespace)
        with store, store.names.held(namespace):
            if is_at(path, (status.st_dev, status.st_ino)):
                os.unlink(path)
        return Outcome.DONE
    finally:
        os.close(fd)


def _caller_is_dead(fd: int) -> bool:
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    kind: int = struct.unpack_from("h", fcntl.fcntl(fd, _OFD_GETLK, asked))[0]
    return kind == fcntl.F_UNLCK


class _Array(NamedTuple):
    """An array that a call was about, mapped for its replay."""

    block: Block
    fd: int
    address: int
    page_at: int


def replay_held(fd: int, file_name: str, namespace: str) -> None:
    """The same for a scratch that the caller of this function has locked exclusively; the file stays."""
    size = os.fstat(fd).st_size
    page = read_page(fd, size)
    if not is_known_layout(page) or not Words.of_page(page).journal:
        return
    with ExitStack() as stack:
        scratch = libc.map_descriptor(fd, size, writable=True)
        stack.callback(libc.unmap, scratch, size)
        memory = bytes_at(scratch, size - DESCRIPTOR_NBYTES)
        window = Window.of(memory)
        try:
            layout = Layout.parse(memory[TEXT : TEXT + window.text_nbytes].tobytes(), memory.size)
        except ValueError:
            return  # nobody we could find names it
        arrays = [
            found
            for block in layout.blocks
            if (found := _open_array(stack, block, layout, window, file_name, namespace)) is not None
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
            if ARMED:
                reach("replay.page")
            _write_page(array.fd, array.page_at, reason)
        if ARMED:
            reach("replay.end")
        os.pwrite(fd, bytes(8), size - DESCRIPTOR_NBYTES + JOURNAL)


def _open_array(
    stack: ExitStack, block: Block, layout: Layout, window: Window, file_name: str, namespace: str
) -> _Array | None:
    """An array of the call, if it is still there and still waits for this scratch."""
    if block.file is None:
        return None
    name, device, inode, created_ns = block.file
    if not name.startswith(f"{namespace}~") or "/" in name or is_private(name):
        return None
    try:
        fd = os.open(f"{DIRECTORY}/{name}", OPEN_FLAGS)
    except OSError:
        return None
    stack.callback(os.close, fd)
    try:
        status = os.fstat(fd)
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # nobody removes it meanwhile
        page = read_page(fd, status.st_size)
        descriptor = Descriptor.unpack(page, capacity=status.st_size - DESCRIPTOR_NBYTES, label=name)
        same = (status.st_dev, status.st_ino, descriptor.created_ns) == (device, inode, created_ns)
        if not same or scratch_named_in(page) != file_name:
            return None
        layout.check(block, window, descriptor.nbytes)
        address = libc.map_descriptor(fd, status.st_size, writable=True)
    except (OSError, ValueError):  # being removed, or not what the scratch says
        return None
    stack.callback(libc.unmap, address, status.st_size)
    return _Array(block, fd, address, status.st_size - DESCRIPTOR_NBYTES)


def _write_page(fd: int, at: int, reason: str) -> None:
    """Say in an array's page that no call is under way any more, and what is unknown; its last word first."""
    with suppress(OSError):
        words = Words.of_page(os.pread(fd, DESCRIPTOR_NBYTES, at))
        dirty = words.dirty & ~UNDER_WAY | (UNKNOWN if reason else 0)
        if reason or not dirty & UNKNOWN:
            os.pwrite(fd, pack_reason(reason), at + REASON)
        os.pwrite(fd, dirty.to_bytes(8, "little"), at + DIRTY)
        os.pwrite(fd, bytes(SCRATCH_NBYTES), at + SCRATCH)
