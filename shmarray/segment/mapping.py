"""What does this process know of one mapped file?

A :class:`Mapping` is that record: where the pages are, which file they belong to, and what its end may
look like (kept for reuse, unmapped, destroyed). Several :class:`~shmarray.segment.Segment` objects may
stand for one mapping; `count` says how many.

Invariant: the address is valid from construction until the registry, at count zero, unmaps it. Fields
change under the registry's lock alone, except the words in the descriptor page, which other processes
write too.
"""

from __future__ import annotations

import ctypes
import os

from shmarray.errors import SegmentNotFoundError
from shmarray.segment.descriptor import DESCRIPTOR_NBYTES, Descriptor

__all__ = ["DIRECTORY", "Mapping"]

#: Where the C library's shm_open, and so the standard library, keeps segments.
DIRECTORY = "/dev/shm"

_NO_PAGE = memoryview(b"")
_PAGE_TYPE = ctypes.c_char * DESCRIPTOR_NBYTES


class Mapping:
    """One mapped file; see the module's text.

    Attributes
    ----------
    address, length : int
        Where the pages are, and how many bytes with the descriptor page.
    capacity : int
        Bytes before the descriptor page; all of them for a foreign segment.
    fd : int
        A descriptor of the open file that carries the liveness lock, or -1.
    key : tuple of int
        Device and inode.
    file_name : str or None
        Under :data:`DIRECTORY`; None for a file without a name.
    """

    __slots__ = (
        "address",
        "agreed_name",
        "capacity",
        "count",
        "descriptor",
        "exported",
        "fd",
        "file_name",
        "foreign",
        "forked",
        "fresh",
        "hidden_name",
        "key",
        "length",
        "lent",
        "linkable",
        "mode",
        "namespace",
        "owned",
        "page",
        "parent",
        "words",
    )

    def __init__(
        self,
        *,
        address: int,
        length: int,
        capacity: int,
        fd: int,
        key: tuple[int, int],
        file_name: str | None,
        namespace: str,
        descriptor: Descriptor,
        mode: str,
    ) -> None:
        self.address = address
        self.length = length
        self.capacity = capacity
        self.fd = fd
        self.key = key
        self.file_name = file_name
        self.namespace = namespace
        self.descriptor = descriptor
        self.mode = mode
        #: The descriptor page as bytes and as 8-byte words (a word's offset divided by 8); empty where
        #: there is none. These views do not keep the pages mapped.
        self.page = self.words = _NO_PAGE
        if capacity < length:
            self.page = memoryview(_PAGE_TYPE.from_address(address + capacity)).cast("B")
            self.words = self.page.cast("Q")
        self.count = 0
        #: Made by this process, which alone decides about reuse.
        self.owned = False
        #: O_TMPFILE, never linked yet: a name can still be given through the descriptor.
        self.linkable = False
        #: Others may know these pages, so they are never reused.
        self.exported = False
        #: Alive across a fork: a child shares the open file, so no lock on it tells us apart.
        self.forked = False
        #: The name that a nameless file gets after a fork, by parent or child: they do not hear of each other.
        self.agreed_name: str | None = None
        #: The private file name of its times out of use; made once.
        self.hidden_name: str | None = None
        #: The writable mapping of the same process that this one (read-only, private) stands on.
        self.parent: Mapping | None = None
        #: Worker processes map these pages without a lock, and are told to drop them.
        self.lent = False
        #: Another program's file: no descriptor page, never removed by us.
        self.foreign = False
        #: Pages were just reserved and read as zero.
        self.fresh = False

    @property
    def page_address(self) -> int:
        """Where the descriptor page is mapped."""
        return self.address + self.capacity

    @property
    def path(self) -> str | None:
        """The file's path, None without a name."""
        return None if self.file_name is None else f"{DIRECTORY}/{self.file_name}"

    def forget_pages(self) -> None:
        """The pages are about to be unmapped: let no word be read any more."""
        self.address = 0
        self.page = self.words = _NO_PAGE

    def open_unlocked(self) -> int:
        """A descriptor on a new open file, which does not carry the liveness lock."""
        if self.parent is not None:
            return self.parent.open_unlocked()
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            if self.fd >= 0:
                return os.open(f"/proc/self/fd/{self.fd}", flags)
            if self.file_name is not None:
                fd = os.open(f"{DIRECTORY}/{self.file_name}", flags | os.O_NOFOLLOW)
                status = os.fstat(fd)
                if (status.st_dev, status.st_ino) == self.key:
                    return fd
                os.close(fd)
        except FileNotFoundError:
            pass
        raise SegmentNotFoundError(
            f"segment {self.descriptor.name or self.file_name!r} was unlinked and its descriptor given up, "
            "so no other process can map it; keep its name until the call is over",
            name=self.descriptor.name,
        )
