"""What does this process hold, and what becomes of it at the end?

One :class:`Store` a process: the mappings that arrays use, by inode and by name, and those kept for
reuse. A mapping's end is one of three: kept warm (made here, never known to anybody else), unmapped
(others hold it, or it shall be kept), or destroyed with its file by the last holder.

Invariants
----------
* What is kept for reuse no other process can have: see :mod:`shmarray.registry.warm`.
* One lock guards everything here; under it no array is unmapped and no page reserved. `__del__` may
  run anywhere, also inside a locked section of its own thread: it only queues the mapping, and whoever
  leaves the lock last empties the queue.
"""

from __future__ import annotations

import errno
import os
import time
from _thread import RLock
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shmarray._forks import at_forks
from shmarray.errors import OutOfSharedMemoryError, SegmentNotFoundError, ShmArrayError
from shmarray.interrupts import Guards, handlers_held_back, held_back
from shmarray.registry.family import Family
from shmarray.registry.names import is_private, new_private_name, new_unnamed_name
from shmarray.registry.namespace import NamespaceLock
from shmarray.registry.removal import destroy, destroy_held, is_at
from shmarray.registry.warm import WarmMappings, withdraw
from shmarray.segment import libc
from shmarray.segment.descriptor import EXPORTED
from shmarray.segment.failpoints import ARMED, reach
from shmarray.segment.mapping import DIRECTORY, Mapping

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["Store", "hide", "store"]

#: How long to wait for another thread of this process to give a name up.
_PATIENCE_S = 1.0

_EXPORTED = EXPORTED >> 3


class Store:
    """See the module's text. Every public method takes the lock itself unless it says otherwise."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.names = NamespaceLock()
        #: Who else may hold the mappings that were alive across a fork, and how many of these there are.
        self.family = Family()
        self._n_forked = 0
        #: Shared writable mappings in use, by inode.
        self.live: dict[tuple[int, int], Mapping] = {}
        #: The same by file name.
        self.named: dict[str, Mapping] = {}
        #: All mappings with a descriptor, oldest first (a dict for its order).
        self.with_fd: dict[Mapping, None] = {}
        #: Kept for reuse.
        self.warm = WarmMappings()
        self._guards = Guards()
        self._pending: deque[Mapping] = deque()
        #: Counted to zero, and still to be discarded.
        self._ended: deque[Mapping] = deque()
        #: File names of what threads are destroying right now.
        self._leaving: dict[Mapping, str | None] = {}
        self._watchers: list[Callable[[tuple[int, int]], None]] = []
        self._finalizer: Any = None
        self._fd_budget = -1
        self._closed = False

    # -- beginnings -----------------------------------------------------------------------------

    def hook_fork(self) -> None:
        """At the first segment, not at import."""
        from multiprocessing.util import register_after_fork

        register_after_fork(self, Store.watch_exit)  # multiprocessing's children drop what a fork's hook registers
        at_forks(
            2,
            before=self._before_fork,
            in_parent=self._after_fork_in_parent,
            in_child=self._after_fork_in_child,
        )

    def watch_exit(self) -> None:
        """See to it that :meth:`close` runs at the end of this process. Called before every mapping."""
        if self._finalizer is None or not self._finalizer.still_active():
            # multiprocessing's children skip atexit but run these (having dropped those of their
            # parent); the main process runs them from atexit.
            from multiprocessing.util import Finalize

            self._closed = False
            self._finalizer = Finalize(None, self.close, exitpriority=-100)

    def take(self, capacity: int, namespace: str, *, nameless: bool) -> Mapping | None:
        """A kept mapping for a segment of `capacity` bytes, or None. Its pages are as they were left."""
        if not self.warm:
            return None
        with self.lock:
            mapping = self.warm.pop(capacity, namespace, nameless=nameless)
            if mapping is not None:
                mapping.namespace = namespace
        if self._pending:
            self._drain()
        return mapping

    def admit(self, mapping: Mapping) -> None:
        """Count the first segment of a mapping."""
        self.watch_exit()
        with self.lock:
            mapping.count += 1
            if mapping.mode == "r+":
                self.live.setdefault(mapping.key, mapping)
                if mapping.file_name is not None:
                    self.named[mapping.file_name] = mapping
            if mapping.fd >= 0 and mapping not in self.with_fd:
                self.with_fd[mapping] = None
                if len(self.with_fd) > self._fd_budget:
                    self._keep_fd_budget()
        if self._pending:
            self._drain()

    def share(self, file_name: str) -> Mapping | None:
        """The mapping in use of the file now at that name, counted once more."""
        mapping = self.named.get(file_name)
        if mapping is None:
            return None
        try:
            if ARMED:
                reach("attach.look")
            status = os.lstat(f"{DIRECTORY}/{file_name}")
        except OSError:
            return None
        if (status.st_dev, status.st_ino) != mapping.key:
            return None
        return self._counted(mapping)

    def share_key(self, key: tuple[int, int], created_ns: int) -> Mapping | None:
        """The mapping in use of that inode, counted once more."""
        mapping = self.live.get(key)
        if mapping is None or (created_ns and mapping.descriptor.created_ns != created_ns):
            return None
        return self._counted(mapping)

    def _counted(self, mapping: Mapping) -> Mapping | None:
        with self.lock:
            # Another thread may have dropped it since we looked.
            found = self.live.get(mapping.key) is mapping
            if found:
                mapping.count += 1
        if self._pending:
            self._drain()
        return mapping if found else None

    # -- what segments ask (Owner) --------------------------------------------------------------

    def release(self, mapping: Mapping) -> None:
        """One segment fewer stands for this mapping. Safe from `__del__`, anywhere."""
        self._pending.append(mapping)
        try:
            self._drain()
        except Exception:
            # While the interpreter goes down modules lose their contents; the kernel unmaps, gc removes.
            if not self._closed:
                raise

    def publish(self, mapping: Mapping) -> str:
        """The file's name, given now if there is none; the pages count as exported."""
        mapping = mapping.parent or mapping
        with self:
            self.mark_exported(mapping)
            name = self._current_name(mapping)
            if name is not None and not is_private(name):
                return name
            wanted = mapping.agreed_name or new_unnamed_name(mapping.namespace)
            if name is None and not (mapping.linkable and mapping.fd >= 0):
                raise _unlinked(mapping)
            try:
                if ARMED:
                    reach("publish.link")
                if name is not None:
                    libc.rename_noreplace(f"{DIRECTORY}/{name}", f"{DIRECTORY}/{wanted}")
                    self.named.pop(name, None)
                else:
                    libc.link_descriptor(mapping.fd, f"{DIRECTORY}/{wanted}")
                    mapping.linkable = False
            except OSError as error:
                if mapping.forked and (found := self._current_name(mapping)) is not None and found != name:
                    if name is not None:  # a relative was faster, so this file has the private name besides
                        with suppress(OSError):
                            os.unlink(f"{DIRECTORY}/{name}")
                    return found
                if error.errno == errno.ENOENT:
                    raise _unlinked(mapping) from error
                if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                    raise
                raise OutOfSharedMemoryError(
                    f"{DIRECTORY} has no room for the name that a handle needs (inodes or memory used up); "
                    "drop arrays, see `shmarray ls`",
                    nbytes=0,
                    free_nbytes=0,
                    limit=f"{DIRECTORY} inodes",
                ) from error
            mapping.file_name = wanted
            if mapping.mode == "r+":
                self.named[wanted] = mapping
            return wanted

    def _current_name(self, mapping: Mapping) -> str | None:
        """The file's name, which a relative by a fork may have given it: then it is the one agreed on."""
        agreed = mapping.agreed_name
        if agreed is None or mapping.file_name == agreed or not is_at(f"{DIRECTORY}/{agreed}", mapping.key):
            return mapping.file_name
        mapping.file_name, mapping.linkable = agreed, False
        if mapping.mode == "r+":
            self.named[agreed] = mapping
        return agreed

    def check_name(self, mapping: Mapping) -> None:
        """`SegmentNotFoundError` when another program has removed the file's name."""
        there = os.fstat(mapping.fd).st_nlink > 0 if mapping.fd >= 0 else is_at(mapping.path or "", mapping.key)
        if not there:
            raise _unlinked(mapping)

    def unlink(self, mapping: Mapping) -> None:
        """Remove the file's name."""
        from shmarray.registry.reclaim import unlink_file

        mapping = mapping.parent or mapping
        name = self._current_name(mapping)
        if name is None:
            if mapping.linkable:
                return  # nameless: there is nothing to remove
            raise SegmentNotFoundError(
                f"array {mapping.descriptor.name!r} was unlinked before", name=mapping.descriptor.name
            )
        unlink_file(name, mapping.namespace, mapping.descriptor.name, key=mapping.key)

    def reduce(self, segment: Segment) -> tuple[Callable[..., Segment], tuple[Any, ...]]:
        """Pickle a segment as a reference to it."""
        from shmarray.registry.references import export, reattach

        return reattach, (export(segment), segment.mode)

    def mark_exported(self, mapping: Mapping) -> None:
        """From now on other processes may know these pages."""
        if not mapping.exported:
            mapping.exported = True
            if not mapping.foreign and mapping.mode == "r+":
                mapping.words[_EXPORTED] = 1

    def forget_name(self, file_name: str, key: tuple[int, int]) -> None:
        """The name was removed or replaced by this process. Called with the lock held."""
        mapping = self.named.get(file_name)
        if mapping is not None and mapping.key == key:
            del self.named[file_name]
            mapping.file_name = None

    # -- ends -----------------------------------------------------------------------------------

    def __enter__(self) -> None:
        # Ctrl-C between taking the lock and being inside the block would leave it taken for ever.
        self._guards.enter()
        self.lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self.lock.release()
        try:
            if self._pending:
                self._drain()
        finally:
            self._guards.leave()

    def _drain(self) -> None:
        # `_is_owned`: this may be the garbage collector inside a locked section of this very thread;
        # the section's end drains. A lock held by another thread: that thread's section end drains.
        with held_back():  # a mapping that is in none of the lists would never be seen to again
            while (self._pending or self._ended) and not self.lock._is_owned():  # type: ignore[attr-defined]
                if not self.lock.acquire(blocking=False):
                    return
                try:
                    self._take_ended()
                finally:
                    self.lock.release()
                # Unmapping may take long. An alarm in the middle of it, which Python ignores in a destructor, would
                # leave the rest of it to nobody; one that comes before leaves it to the next drop.
                while self._ended:
                    with handlers_held_back():
                        try:
                            mapping = self._ended.popleft()
                        except IndexError:  # another thread was faster
                            break
                        try:
                            self.discard(mapping)
                        finally:
                            del self._leaving[mapping]

    def await_drops(self, file_name: str) -> bool:
        """Wait while this process is giving up `file_name`; whether it was.

        A thread that drops an array while another is in a locked section leaves the work to that one, and may want the
        name again before it is done.
        """
        waited, until_s = False, time.monotonic() + _PATIENCE_S
        while time.monotonic() < until_s:
            self._drain()
            with self.lock:
                if not self._pending and file_name not in self._leaving.values():
                    return waited
            waited = True
            time.sleep(50e-6)
        return waited

    def _take_ended(self) -> None:
        """Count the pending releases; park what can be, and note what is to be discarded."""
        while self._pending:
            mapping = self._pending.popleft()
            mapping.count -= 1
            if mapping.count:
                continue
            if self.live.get(mapping.key) is mapping:
                del self.live[mapping.key]
            name = mapping.file_name
            if name is not None and self.named.get(name) is mapping:
                del self.named[name]
            if mapping.owned and not (mapping.exported or mapping.descriptor.keep or self._closed):
                limit = self.warm.limit_nbytes()
                try:
                    if mapping.length <= limit and withdraw(mapping, self.names):
                        self._end(self.warm.keep(mapping, limit))
                        continue
                except BaseException:  # an alarm's
                    self._end([mapping])
                    raise
            self._end([mapping])

    def _end(self, mappings: Iterable[Mapping]) -> None:
        for mapping in mappings:
            self._leaving[mapping] = mapping.file_name
            self._ended.append(mapping)

    def trim(self, nbytes: int = 0) -> int:
        """Give memory kept for reuse back until at most `nbytes` are kept; returns the bytes given back."""
        out: list[Mapping] = []
        with self:
            while self.warm and self.warm.nbytes > nbytes:
                out.append(self.warm.pop_oldest())
        for mapping in out:
            self.discard(mapping)
        return sum(mapping.length for mapping in out)

    def discard(self, mapping: Mapping) -> None:
        """Unmap, and destroy the file if nobody else holds it. Called without the lock."""
        key, name, address = mapping.key, mapping.file_name or mapping.agreed_name, mapping.address
        mapping.forget_pages()
        if mapping.forked:
            self._n_forked -= 1
            if not self._n_forked:
                self.family.leave()
        if ARMED:
            reach("detach.unmap")
        libc.unmap(address, mapping.length)
        self.with_fd.pop(mapping, None)
        if mapping.fd >= 0:
            if ARMED:
                reach("detach.close")
            fd, mapping.fd = mapping.fd, -1
            os.close(fd)
        for callback in self._watchers:
            callback(key)
        if mapping.parent is not None:
            self.release(mapping.parent)
            return
        if name is None or mapping.foreign or mapping.descriptor.keep:
            return
        with suppress(OSError, ShmArrayError), self:  # the next gc sees to it
            destroy(self.names, name, mapping.namespace, key)
            if self._closed:
                self.names.forget()

    def on_unmap(self, callback: Callable[[tuple[int, int]], None]) -> None:
        """Have `callback(key)` called whenever a mapping's pages leave this process for good."""
        self._watchers.append(callback)

    # -- descriptors ----------------------------------------------------------------------------

    def _keep_fd_budget(self) -> None:
        """At most a quarter of the descriptors are ours; the oldest segments give theirs up."""
        if self._fd_budget < 0:
            # Read once: a limit raised later only makes us modest.
            self._fd_budget = max(16, os.sysconf("SC_OPEN_MAX") // 4)
        while len(self.with_fd) > self._fd_budget:
            oldest = next(iter(self.with_fd))
            del self.with_fd[oldest]
            if oldest.linkable and oldest.file_name is None:
                # Without the descriptor it could never be named again, so give it a private name.
                try:
                    hide(oldest)
                except OSError:  # no room for one: it keeps its descriptor, and whoever asked is not to suffer
                    self.with_fd[oldest] = None
                    return
            if ARMED:
                reach("detach.close")
            os.close(oldest.fd)  # the mapping keeps the open file, and with it the lock
            oldest.fd = -1

    # -- fork and exit --------------------------------------------------------------------------

    def _before_fork(self) -> None:
        self.lock.acquire()
        for mapping in self.live.values():
            self.mark_exported(mapping)
            if not mapping.forked:
                mapping.forked = True
                self._n_forked += 1
                if mapping.file_name is None or is_private(mapping.file_name):
                    mapping.agreed_name = new_unnamed_name(mapping.namespace)
        if self._n_forked:
            self.family.before_fork()

    def _after_fork_in_parent(self) -> None:
        self.family.after_fork_in_parent()
        self.lock.release()

    def _after_fork_in_child(self) -> None:
        self.lock = RLock()
        self.family.after_fork_in_child()
        self.names.abandon_in_child()
        for mapping in self.live.values():
            mapping.owned = False
        # The parent goes on reusing what it keeps: drop the child's view of it, and touch no file.
        for mapping in self.warm:
            libc.unmap(mapping.address, mapping.length)
            self.with_fd.pop(mapping, None)
            if mapping.fd >= 0:
                os.close(mapping.fd)
        self.warm = WarmMappings()
        self._finalizer = None  # the parent's, which would not run here
        if self.live:
            self.watch_exit()

    def close(self) -> None:
        """At exit: leave nothing behind that nobody else holds. Views that still exist stay valid."""
        self._closed = True
        self._drain()
        self.trim()
        with self:
            # A lock on a file that came through a fork tells nothing; the family's does.
            alone = not self._n_forked or self.family.is_last()
            for mapping in list(self.live.values()):
                if (alone or not mapping.forked) and not mapping.foreign and not mapping.descriptor.keep:
                    with suppress(OSError, ShmArrayError):  # the next gc sees to it
                        self._current_name(mapping)
                        destroy_held(self.names, mapping)
            self.names.forget()


def _unlinked(mapping: Mapping) -> SegmentNotFoundError:
    label = mapping.descriptor.name
    return SegmentNotFoundError(
        f"array {label or mapping.file_name!r} was unlinked, so no other process can find it; keep its name until the "
        "others have attached (a SharedMemory reader of Python before 3.13 takes the name away when it ends)",
        name=label,
    )


def hide(mapping: Mapping) -> None:
    """Give a nameless file a private name."""
    name = new_private_name(mapping.namespace)
    if ARMED:
        reach("create.hide")
    libc.link_descriptor(mapping.fd, f"{DIRECTORY}/{name}")
    mapping.linkable = False
    mapping.file_name = mapping.hidden_name = name


#: The process's one store.
store = Store()
