"""Which freed mappings are kept, so that the next array finds pages that were touched already?

The first touch of fresh pages is the dearest part of making an array. So a mapping that this process made and nobody
else can have the pages of is kept for the next segment of about its size, up to a bound in bytes.

Invariant: a mapping is kept only when no other process can have its pages: never exported, never alive across a fork,
and no other open file on its inode. The last is the kernel's word: a write lease is granted beside no other opener.
Before that question the generation word turns odd, and whoever attaches looks at it after opening, so one of the two
sees the other (tests/registry/test_recycling.py races them).

The store's lock guards everything here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from shmarray.configuration import config
from shmarray.errors import ShmArrayError
from shmarray.registry import reserve
from shmarray.registry.names import is_private, new_private_name
from shmarray.registry.namespace import NamespaceLock
from shmarray.registry.removal import DROP_PATIENCE_S
from shmarray.segment.descriptor import EXPORTED, GENERATION
from shmarray.segment.failpoints import ARMED, reach
from shmarray.segment.libc import fcntl
from shmarray.segment.mapping import DIRECTORY, Mapping

__all__ = ["WarmMappings", "withdraw"]

_GIB = 1 << 30
#: More than this many kept mappings would only be descriptors spent.
_MAX_KEPT = 256
#: How much larger than asked for a reused mapping may be: a quarter.
_SLACK_SHIFT = 2

_GENERATION, _EXPORTED = GENERATION >> 3, EXPORTED >> 3
_SETLEASE, _SETSIG, _SIGURG = 1024, 10, 23


class WarmMappings:
    """The kept mappings, oldest first."""

    def __init__(self) -> None:
        self._kept: dict[Mapping, None] = {}  # for its order
        self._by_capacity: dict[int, list[Mapping]] = {}
        self.nbytes = 0  #: of all of them

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Mapping]:
        return iter(self._kept)

    def limit_nbytes(self) -> int:
        """How much may be kept: `config.recycle_nbytes`, or a share of what is free."""
        limit = config.recycle_nbytes
        if limit is None:
            return min(_GIB, (reserve.free_nbytes() + self.nbytes) >> 3)
        return int(limit)

    def keep(self, mapping: Mapping, limit_nbytes: int) -> list[Mapping]:
        """Keep one more; what has to go for it."""
        self._kept[mapping] = None
        self.nbytes += mapping.length
        self._by_capacity.setdefault(mapping.capacity, []).append(mapping)
        gone = []
        while self.nbytes > limit_nbytes or len(self._kept) > _MAX_KEPT:
            gone.append(self.pop_oldest())
        return gone

    def pop_oldest(self) -> Mapping:
        """Keep the oldest no longer."""
        oldest = next(iter(self._kept))
        self._remove(oldest)
        return oldest

    def pop(self, capacity: int, namespace: str, *, nameless: bool) -> Mapping | None:
        """One for a segment of `capacity` bytes, or None. Its pages are as they were left."""
        best = _best_of(self._by_capacity.get(capacity, ()), namespace, nameless)
        if best is None:
            most = capacity + (capacity >> _SLACK_SHIFT)
            for size in sorted(self._by_capacity):
                if capacity < size <= most:
                    best = _best_of(self._by_capacity[size], namespace, nameless)
                    if best is not None:
                        break
        if best is not None:
            self._remove(best)
        return best

    def _remove(self, mapping: Mapping) -> None:
        del self._kept[mapping]
        self.nbytes -= mapping.length
        same = self._by_capacity[mapping.capacity]
        same.remove(mapping)
        if not same:
            del self._by_capacity[mapping.capacity]


def _best_of(kept: Sequence[Mapping], namespace: str, nameless: bool) -> Mapping | None:
    """The one kept last, for a nameless segment rather without a private file name."""
    best: Mapping | None = None
    for mapping in reversed(kept):
        if mapping.file_name is None:
            return mapping
        if mapping.namespace == namespace:
            if not nameless:
                return mapping
            best = best or mapping
    return best


def withdraw(mapping: Mapping, names: NamespaceLock) -> bool:
    """Take a file out of everybody's sight for reuse. False when somebody else may have its pages."""
    name = mapping.file_name
    if name is None:
        return mapping.linkable  # nobody else ever could; without a link for ever it is of no use
    if is_private(name):
        return True
    fd, words = mapping.fd, mapping.words
    if fd < 0:
        return False
    generation = words[_GENERATION]
    try:
        with names.held(mapping.namespace, timeout_s=DROP_PATIENCE_S, when_stuck=False):
            if ARMED:
                reach("detach.withdraw")
            if not os.fstat(fd).st_nlink:
                mapping.file_name = None
                return False
            words[_GENERATION] = generation + 1
            # Our odd generation must be out before we read their word (see `_read` of attachment);
            # a lease has that barrier in it.
            # What workers have mapped cannot be told from what others have by a lease: that goes.
            if not words[_EXPORTED] and not mapping.lent and _is_sole_opener(fd):
                hidden = mapping.hidden_name
                if hidden is None or not hidden.startswith(mapping.namespace + "~"):
                    hidden = mapping.hidden_name = new_private_name(mapping.namespace)
                if ARMED:
                    reach("detach.hide")
                os.rename(f"{DIRECTORY}/{name}", f"{DIRECTORY}/{hidden}")
                mapping.file_name = hidden
                if ARMED:
                    reach("detach.hidden")
                return True
    except (OSError, ShmArrayError):
        pass  # not for us, then; to be destroyed as if it had never been reusable
    if words[_GENERATION] & 1:
        words[_GENERATION] = generation + 2
    return False


def _is_sole_opener(fd: int) -> bool:
    """Whether no other open file on this inode exists, in any process, by the kernel's count."""
    try:
        # Whoever opens the file in between has a signal sent to us: by default SIGIO, which kills, so
        # SIGURG, which is ignored by default. Asked for each time: giving a lease back forgets it.
        if ARMED:
            reach("detach.lease")
        fcntl.fcntl(fd, _SETSIG, _SIGURG)
        if ARMED:
            reach("detach.lease-taken")
        fcntl.fcntl(fd, _SETLEASE, fcntl.F_WRLCK)
        if ARMED:
            reach("detach.lease-back.unlock")
        fcntl.fcntl(fd, _SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True
