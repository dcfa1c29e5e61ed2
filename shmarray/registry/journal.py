"""How does a call that changes arrays in place happen once or not at all, whatever dies?

Its results go to a scratch (:mod:`shmarray.registry.scratch`), a window of chunks at a time. One word then says that
the window is whole (COMMIT), its chunks are copied to where they belong, and a byte a chunk says so (DONE). What is
committed can be copied by anyone, any number of times: by another worker, by the caller, and, where that is dead, by
whoever opens one of the arrays next, and by gc (:mod:`shmarray.registry.replay`).

Invariants: from before its first byte is changed until all that is committed is in place, an array that has a name
names the scratch in its descriptor page. The call is the business of the process that made it alone: a forked child
neither finishes it nor keeps it from being finished.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shmarray.chunks import ChunkGrid
from shmarray.errors import ShmArrayError
from shmarray.registry.condition import UNDER_WAY, UNKNOWN, pack_reason
from shmarray.registry.creation import create
from shmarray.registry.names import is_private
from shmarray.registry.replay import Outcome, finish_for, scratch_named_in
from shmarray.registry.scratch import COMMITTED, TEXT, Layout, Window, bytes_at
from shmarray.registry.store import store
from shmarray.segment import libc
from shmarray.segment.descriptor import JOURNAL, REASON, REASON_NBYTES, SCRATCH, SCRATCH_NBYTES
from shmarray.segment.failpoints import ARMED, reach
from shmarray.segment.libc import fcntl

if TYPE_CHECKING:
    import numpy.typing as npt

    from shmarray.segment import Segment
    from shmarray.segment.mapping import Mapping

__all__ = ["Changed", "Journal"]

_OFD_SETLK = 37
_JOURNAL = JOURNAL >> 3

#: Of the calls that are under way in this process, what a forked child must let go of.
_open: dict[int, Journal] = {}


class Changed(NamedTuple):
    """An array that a call changes: its segment, and how its elements lie in that."""

    segment: Segment
    offset: int
    strides: tuple[int, ...]
    itemsize: int


class Journal:
    """The scratch of one call, and what the arrays' pages say of it.

    Parameters
    ----------
    task : str
        The kernel's name.
    grid : ChunkGrid
        Over all of the arrays, which have its shape.
    axis, extent : int
        A window has at most `extent` elements along `axis`.
    arrays : sequence of Changed

    Attributes
    ----------
    segment : Segment
        The scratch.
    layout : Layout
    states : ndarray of uint8
        By chunk: 1 when it is in its place.
    named : bool
        Others can find one of the arrays, and so finish the call if this process dies.
    abandoned : bool
        This process is a child that was forked in the middle of the call, which its parent goes on with.
    """

    def __init__(self, task: str, grid: ChunkGrid, axis: int, extent: int, arrays: Sequence[Changed]) -> None:
        self._arrays = tuple(arrays)
        mappings = {array.segment.key: array.segment.mapping for array in arrays}
        #: Whose pages are written: each segment once.
        self._pages = [mapping for mapping in mappings.values() if _can_be_found(mapping)]
        self.named = bool(self._pages)
        self.abandoned = False
        described = [(_file_of(array.segment.mapping), array.offset, array.strides, array.itemsize) for array in arrays]
        self.layout = Layout.plan(task, grid, axis, extent, described)
        text = self.layout.text()
        self.segment = create((self.layout.nbytes,), "u1")
        memory = bytes_at(self.segment.address, self.layout.nbytes)
        self._memory: npt.NDArray[np.uint8] = memory
        self.states: npt.NDArray[np.uint8] = memory[self.layout.states_at : self.layout.states_at + len(grid)]
        self.states[:] = 0
        self._window = Window(0, 0, 0, 0, len(text))
        self._window.write(memory)
        memory[TEXT : TEXT + len(text)] = np.frombuffer(text, np.uint8)

    def __enter__(self) -> Journal:
        _open[id(self)] = self
        try:
            if self.named:
                self._say_in_pages()
        except BaseException:
            _open.pop(id(self), None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self.abandoned:
                self.put_rest_in_place()
                if self.named:
                    self._clear_pages()
        finally:
            _open.pop(id(self), None)

    def leave_to_parent(self) -> None:
        """In a forked child: have no part in the call, and keep nobody from finishing it if the parent dies.

        The lock that says that the caller lives belongs to the open file, which a descriptor or a mapping here would
        keep; so other memory takes the place of the scratch.
        """
        self.abandoned = True
        mapping = self.segment.mapping
        libc.cover(mapping.address, mapping.length)
        store.with_fd.pop(mapping, None)
        if mapping.fd >= 0:
            os.close(mapping.fd)
            mapping.fd = -1

    def open_window(self, first: int, stop: int) -> int:
        """Begin with chunks `first` to `stop`; the element along the axis that the scratch begins with."""
        grid, axis = self.layout.grid, self.layout.axis
        begins = grid.slices(first)[axis].start if grid.shape else 0
        if ARMED:
            reach("commit.window")
        self._window = Window(first, stop, 0, begins, self._window.text_nbytes)
        self._memory[COMMITTED : COMMITTED + 8] = 0  # before the rest: this is no time to replay
        self._window.write(self._memory)
        return begins

    def commit(self) -> None:
        """All results of the window are in the scratch: from here on they will be in their places, whatever dies."""
        if ARMED:
            reach("commit.commit")
        self._memory[COMMITTED : COMMITTED + 8].view(np.int64)[0] = 1
        self._window = self._window._replace(committed=1)
        if ARMED:
            reach("commit.committed")

    def put_rest_in_place(self) -> None:
        """Copy those committed chunks that are not in their places, in this process."""
        if not self._window.committed or self.abandoned:
            return
        scratch = self.segment.address
        first, stop, _, begins, _ = self._window
        for index in (first + np.flatnonzero(self.states[first:stop] == 0)).tolist():
            for block, array in zip(self.layout.blocks, self._arrays, strict=True):
                self.layout.copy(block, index, begins, scratch, array.segment.address)
            self.states[index] = 1
            if ARMED:
                reach("commit.copied")

    # ------------------------------------------------------------------ what the arrays' pages say

    def _say_in_pages(self) -> None:
        mapping = self.segment.mapping
        # Held through the open file, as long as this process has the scratch (see `leave_to_parent`).
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 1, 0)
        if ARMED:
            reach("commit.lock")
        fcntl.fcntl(mapping.fd, _OFD_SETLK, lock)
        mapping.words[_JOURNAL] = 1
        if ARMED:
            reach("commit.publish")
        name = store.publish(mapping)
        try:
            self._name_in_pages(name)
        except BaseException:
            self._clear_pages()
            raise

    def _name_in_pages(self, name: str) -> None:
        field = name.encode().ljust(SCRATCH_NBYTES, b"\0")
        reason = pack_reason(
            f"a crash-safe call of {self.layout.task} is under way, or was cut short and is finished by the next opener"
        )
        for mapping in self._pages:
            while True:
                with store, store.names.held(mapping.namespace):
                    other = scratch_named_in(mapping.page)
                    if not other:
                        if ARMED:
                            reach("commit.name")
                        # The first byte last: killed in between, no part of a name is taken for one.
                        mapping.page[SCRATCH + 1 : SCRATCH + SCRATCH_NBYTES] = field[1:]
                        mapping.page[SCRATCH] = field[0]
                        if not mapping.page[UNKNOWN]:
                            mapping.page[REASON : REASON + REASON_NBYTES] = reason
                        mapping.page[UNDER_WAY] = 1
                        break
                # The one before may have died. Its arrays were held all the time, so nobody has opened them since.
                if finish_for(mapping, other) is Outcome.UNDER_WAY:
                    raise ShmArrayError(
                        f"{self.layout.task}: another crash-safe call on array "
                        f"{mapping.descriptor.name or mapping.file_name!r} is under way; let such calls come one after "
                        "another, for example under array.lock()"
                    )
                if scratch_named_in(mapping.page) == other:
                    raise ShmArrayError(
                        f"{self.layout.task}: an earlier crash-safe call on array "
                        f"{mapping.descriptor.name or mapping.file_name!r} was cut short and its scratch is gone; look "
                        "at the content and accept it with array.clean()"
                    )

    def _clear_pages(self) -> None:
        name = self.segment.mapping.file_name
        for mapping in self._pages:
            if scratch_named_in(mapping.page) != name:
                continue
            if ARMED:
                reach("commit.clear")
            if not mapping.page[UNKNOWN]:
                mapping.page[REASON : REASON + REASON_NBYTES] = bytes(REASON_NBYTES)
            mapping.page[UNDER_WAY] = 0
            mapping.page[SCRATCH] = 0  # before the rest of the name, as it came after it
            mapping.page[SCRATCH : SCRATCH + SCRATCH_NBYTES] = bytes(SCRATCH_NBYTES)
        if ARMED:
            reach("commit.unlink")
        self.segment.mapping.words[_JOURNAL] = 0
        with suppress(ShmArrayError):  # somebody has removed it by hand, or the namespace is busy: gc sees to it
            store.unlink(self.segment.mapping)


def _after_fork_in_child() -> None:
    for journal in _open.values():
        journal.leave_to_parent()
    _open.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _can_be_found(mapping: Mapping) -> bool:
    return mapping.file_name is not None and not mapping.foreign and not is_private(mapping.file_name)


def _file_of(mapping: Mapping) -> tuple[str, int, int, int] | None:
    if not _can_be_found(mapping):
        return None
    assert mapping.file_name is not None
    return mapping.file_name, *mapping.key, mapping.descriptor.created_ns
