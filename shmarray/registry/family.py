"""Does any process live that shares our open files through a fork?

A forked child maps its parent's segments by the parent's own open files, so no lock on a segment tells the two apart.
This lock does: the processes of one family, a parent and its forked descendants, each hold a shared lock on one
nameless file, each through an open file of its own. The one that gets it exclusively is the last of them.

Invariant: a child holds its lock before it exists. Its open file is made and locked by the parent just before the fork,
and closed in the parent just after it.
"""

from __future__ import annotations

import os

from shmarray.segment.libc import fcntl

__all__ = ["Family"]

_SHARED = fcntl.LOCK_SH | fcntl.LOCK_NB if fcntl is not None else 0
_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB if fcntl is not None else 0


class Family:
    """A process's membership. It costs a descriptor from the first fork on, until :meth:`leave`."""

    def __init__(self) -> None:
        self._fd = -1
        self._of_child = -1
        #: A child may be without its lock (no descriptor was left for it): then nobody ever is the last.
        self._uncertain = False

    def before_fork(self) -> None:
        """Make the child a member."""
        try:
            if self._fd < 0:
                self._fd = os.memfd_create("shmarray-family", os.MFD_CLOEXEC)
                fcntl.flock(self._fd, _SHARED)
            # Not a duplicate: that would be the same open file, with the one lock.
            self._of_child = os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._of_child, _SHARED)
        except OSError:
            self._uncertain = True

    def after_fork_in_parent(self) -> None:
        """Leave the child's lock to the child."""
        if self._of_child >= 0:
            os.close(self._of_child)
            self._of_child = -1

    def after_fork_in_child(self) -> None:
        """Be the child: keep its lock, and not the parent's."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._of_child = self._of_child, -1

    def is_last(self) -> bool:
        """Whether no other member lives. Asked once, at the end: where the answer is no, the lock is gone."""
        if self._fd < 0 or self._uncertain:
            return False
        try:
            fcntl.flock(self._fd, _EXCLUSIVE)
        except BlockingIOError:
            return False
        return True

    def leave(self) -> None:
        """Nothing that is shared through a fork is left here."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
