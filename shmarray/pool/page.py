"""The dispatch page: the shared memory through which a caller and its workers agree on who does what.

One page serves one pool (or one process alone). Its caller opens an *epoch* for each job; lanes that see it enter,
claim chunks by atomic add, mark each chunk's state, and leave. Nobody holds a lock that could die with its holder.

Layout (bytes; each line of 64 is written by one side, so that no cache line is fought over)::

    0      EPOCH     u32  odd: a job is open; even: closed. Workers sleep on it (futex).
    8      CONTROL   i64  counts messages that workers must read from their channel before anything else
    64     NEXT      i64  the next chunk to claim; atomic add. From STOP on there is none
    128    JOB, START, STOP, LIMIT   i64  job number, its chunks [START, STOP), the highest lane that takes part
    192    LEFT      u32  bumped by a lane that leaves while the caller sleeps on it (futex)
    200    CALLER_SLEEPS   i64
    208    PROGRESS  i64  items done of the chunk that the caller left half-way, to see to signals; 0: none
    256    a slot of 64 bytes for each lane; lane 0 is the caller:
             ACTIVE   the epoch it works for, or 0      SLEEPING  1 while it sleeps on EPOCH
             CURRENT  the chunk it is at                COUNT     chunks done in this epoch
             FPE      floating-point flags it saw       FAILED    1 when a chunk raised
             READY    its pid, once it is up            SAID      1 when it wrote or logged something in this epoch
    12288  STATES    one byte a chunk: 0 free, lane + 1 running, FAILED, DONE

Invariant: a lane writes only its own slot, NEXT, LEFT and the states of chunks that it claimed. The caller closes an
epoch only when every chunk is claimed, and opens the next only when no lane is ACTIVE: so a late sleeper can
never claim a chunk of one job with the arguments of another. A lane enters by storing ACTIVE, then (after a
full fence) finding EPOCH unchanged; the caller closes by changing EPOCH, then (after a full fence) reading
ACTIVE: one of them sees the other (tests/pool/test_page.py).
"""

from __future__ import annotations

import contextlib
import os
from enum import IntEnum

import numpy as np

from shmarray.segment import map_descriptor, unmap
from shmarray.segment.failpoints import ARMED, reach

__all__ = ["MAX_CHUNKS", "MAX_LANES", "ChunkState", "DispatchPage"]

EPOCH, CONTROL, NEXT = 0, 8, 64
JOB, START, STOP, LIMIT = 128, 136, 144, 152
LEFT, CALLER_SLEEPS, PROGRESS = 192, 200, 208
SLOTS, SLOT_NBYTES = 256, 64
ACTIVE, SLEEPING, CURRENT, COUNT, FPE, FAILED, READY, SAID = 0, 8, 16, 24, 32, 40, 48, 56
STATES = 12288

#: Lanes a page has room for, the caller included.
MAX_LANES = 128
#: Chunks of one epoch; a job with more is dispatched in several.
MAX_CHUNKS = 1 << 16

_NBYTES = STATES + MAX_CHUNKS


class ChunkState(IntEnum):
    """What a state byte says; values between FREE and FAILED are the running lane's number plus one."""

    FREE = 0
    FAILED = 254
    DONE = 255


class DispatchPage:
    """The mapping of a dispatch page, owned by the caller (`create`) or attached by a worker (`attach`)."""

    __slots__ = ("_closed", "address", "fd", "states", "words")

    def __init__(self, fd: int, *, private: bool = False) -> None:
        self._closed = False
        self.fd = fd
        self.address = map_descriptor(fd, _NBYTES, writable=True, private=private)
        memory = np.asarray(_Memory(self.address, _NBYTES))
        self.words = memory[:STATES].view(np.int64)  #: everything before STATES, as 64-bit words
        self.states = memory[STATES:]  #: one byte a chunk of the open epoch

    @classmethod
    def create(cls, *, private: bool = False) -> DispatchPage:
        """A new page in anonymous memory, which no name leads to and nothing can leak.

        A `private` one is for this process alone: a forked child gets a copy, and does not claim its parent's chunks.
        """
        if ARMED:
            reach("dispatch.page")
        fd = os.memfd_create("shmarray-dispatch", os.MFD_CLOEXEC)
        try:
            if ARMED:
                reach("dispatch.reserve")
            os.posix_fallocate(fd, 0, _NBYTES)
            return cls(fd, private=private)
        except BaseException:
            os.close(fd)
            raise

    def slot(self, lane: int, word: int) -> int:
        """The index into `words` of a word of a lane's slot."""
        return (SLOTS + lane * SLOT_NBYTES + word) // 8

    def clear_lane(self, lane: int) -> None:
        """Forget a lane whose process is dead."""
        start = self.slot(lane, 0)
        self.words[start : start + SLOT_NBYTES // 8] = 0
        self.words[self.slot(lane, CURRENT)] = -1  # its successor has begun no chunk, if it dies before it does

    def close_descriptor(self) -> None:
        """Give up the descriptor: nobody else will map this page."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Give the memory back. The views `words` and `states` must not be used any more."""
        if not self._closed:
            self._closed = True
            self.close_descriptor()
            unmap(self.address, _NBYTES)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at interpreter exit, or after a failed constructor
            self.close()


class _Memory:
    """Shows a mapping to NumPy. Keeps nothing alive: the page that made it does."""

    __slots__ = ("__array_interface__",)

    def __init__(self, address: int, nbytes: int) -> None:
        self.__array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": (address, False), "version": 3}
