"""Who may take a name away?

Whoever holds the namespace's lock. Making a name needs no lock (a link that fails when the name is
taken is the claim), but every removal looks first whether the name still means the same file, and
between the look and the unlink another removal and a new creation could pass. So destroying, reclaiming,
replacing and unlinking all hold this lock: a `flock` on the file `NAMESPACE~.lock`.

The file goes when a process ends cleanly (or turns to another namespace) and leaves no segment in it.
Invariant: the lock in force is that of the file now at the path; only its holder removes it, and whoever
gets the lock of a file without a link looks again.

Between the threads of this process the registry's own lock (:mod:`shmarray.registry.store`) excludes,
and it is held whenever a function here is called.
"""

from __future__ import annotations

import atexit
import os
import stat
import time

from shmarray.errors import SegmentAccessError, ShmArrayError
from shmarray.interrupts import Guards
from shmarray.registry.names import lock_name
from shmarray.segment.failpoints import ARMED, reach
from shmarray.segment.libc import fcntl
from shmarray.segment.mapping import DIRECTORY

__all__ = ["NamespaceBusyError", "NamespaceLock"]

#: After a wait that was in vain, those who can do without the lock do not wait again for so long.
_BACK_OFF_S = 10.0

_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB if fcntl is not None else 0

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class NamespaceBusyError(ShmArrayError, TimeoutError):
    """Another process has held the namespace's lock for long; it is probably stopped."""


class NamespaceLock:
    """The lock of one namespace at a time; `with lock.held(namespace):`.

    The file of the namespace used last stays open, which saves five system calls at every drop.
    """

    def __init__(self) -> None:
        #: Whose file is open.
        self.namespace: str | None = None
        self._fd = -1
        self._watched = False
        self._depth = 0
        self._held: str | None = None
        #: Namespace -> when somebody may be worth waiting for again, who was not when we last waited.
        self._stuck_until_s: dict[str, float] = {}
        self._guards = Guards()

    def held(self, namespace: str, *, timeout_s: float = 10.0, when_stuck: bool = True) -> NamespaceLock:
        """Wait for the lock of `namespace`; release it by leaving the `with` block.

        With `when_stuck=False`, for what gc can do as well: if the last wait was in vain, not long ago, do not
        wait again. A stopped process costs its neighbours half a second then, not half a second a drop.
        """
        self._guards.enter()  # until the block is left: Ctrl-C must not leave the lock taken
        try:
            self._take(namespace, timeout_s, when_stuck)
        except BaseException:
            self._guards.leave()
            raise
        return self

    def _take(self, namespace: str, timeout_s: float, when_stuck: bool) -> None:
        if self._depth:
            # A signal handler on top of a section of ours. The same namespace is ours already.
            if self._held != namespace:
                raise NamespaceBusyError(f"the lock of namespace {self._held!r} is held below this call")
        elif not self._try(namespace):
            if not when_stuck and time.monotonic() < self._stuck_until_s.get(namespace, 0.0):
                raise _busy(namespace, timeout_s)
            self._wait(namespace, timeout_s)
        self._depth += 1

    def prepare(self, namespace: str) -> None:
        """See to it that the lock's file exists."""
        if namespace != self.namespace and not self._depth:
            self._open(namespace)

    def _open(self, namespace: str) -> None:
        self.forget()
        if not self._watched:
            self._watched = True
            atexit.register(self.forget)  # also where nothing but gc or unlink ever took the lock
        self._fd = _open(namespace)
        self.namespace = namespace

    def _try(self, namespace: str) -> bool:
        while True:
            if namespace != self.namespace:
                self._open(namespace)
            if ARMED:
                reach("names.lock")
            try:
                fcntl.flock(self._fd, _EXCLUSIVE)
            except BlockingIOError:
                return False
            try:
                if ARMED:
                    reach("names.stat")
                linked = os.fstat(self._fd).st_nlink
            except BaseException:
                fcntl.flock(self._fd, fcntl.LOCK_UN)  # or nobody ever had it again
                raise
            if linked:
                self._held = namespace
                return True
            if ARMED:
                reach("names.close")
            os.close(self._fd)
            self.namespace = None

    def _wait(self, namespace: str, timeout_s: float) -> None:
        # Never a wait without end: this also runs when an array is dropped.
        until_s = time.monotonic() + timeout_s
        pause_s = 20e-6
        while not self._try(namespace):
            now = time.monotonic()
            if now > until_s:
                if len(self._stuck_until_s) > 16:
                    self._stuck_until_s.clear()
                self._stuck_until_s[namespace] = now + _BACK_OFF_S
                raise _busy(namespace, timeout_s)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 2e-3)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        self._depth -= 1
        if not self._depth:
            if ARMED:
                reach("names.unlock")
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._guards.leave()

    def forget(self) -> None:
        """Close the file, and remove it when the namespace has no other and nobody holds the lock."""
        if self.namespace is None:
            return
        fd, namespace = self._fd, self.namespace
        self.namespace = None
        try:
            if ARMED:
                reach("names.forget")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            prefix, lock = f"{namespace}~", lock_name(namespace)
            if ARMED:
                reach("names.list")
            alone = not any(name.startswith(prefix) and name != lock for name in os.listdir(DIRECTORY))
            if alone and os.fstat(fd).st_nlink:
                if ARMED:
                    reach("names.unlink")
                os.unlink(f"{DIRECTORY}/{lock}")
        except OSError:
            pass  # in use: its user, or the next gc, sees to it
        if ARMED:
            reach("names.close")
        os.close(fd)

    def abandon_in_child(self) -> None:
        """After a fork: the open file is the parent's; close it and unlock nothing."""
        if self.namespace is not None:
            os.close(self._fd)
        self.namespace = None
        self._depth = 0


def _busy(namespace: str, timeout_s: float) -> NamespaceBusyError:
    return NamespaceBusyError(
        f"another process has held the lock of namespace {namespace!r} for {timeout_s:g} s; "
        f"it is probably stopped: see who has {DIRECTORY}/{lock_name(namespace)} open"
    )


def _open(namespace: str) -> int:
    path = f"{DIRECTORY}/{lock_name(namespace)}"
    try:
        if ARMED:
            reach("names.open")
        fd = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        if error.errno is None:
            raise  # a signal handler's, not the kernel's
        raise _unusable(path, error.strerror or "it cannot be opened") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(fd)
        raise _unusable(path, f"it is not a regular file of user {os.geteuid()}")
    return fd


def _unusable(path: str, reason: str) -> SegmentAccessError:
    return SegmentAccessError(
        f"the namespace's lock {path!r} cannot be used: {reason}; remove it, or choose another "
        "namespace (config.namespace, SHMARRAY_NAMESPACE)",
        name=path,
    )
