"""How does a segment get into another process without its bytes?

As a :class:`SegmentReference`: file name, inode, time of creation. While a reference is on its way its
segment is *in flight*: a deadline in the descriptor page keeps it from being destroyed when its sender
drops it or ends, until one process has attached or `config.handle_ttl_s` have passed.

Invariant: a reference attaches to the very segment it was made of, or raises; never to a namesake.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from shmarray.configuration import config
from shmarray.errors import SegmentNotFoundError
from shmarray.packing import collect
from shmarray.registry.attachment import adopt, attach_file, check_mode, second_segment, settled
from shmarray.registry.names import is_public, label_of
from shmarray.registry.store import store
from shmarray.segment.descriptor import DEADLINE, DESCRIPTOR_NBYTES
from shmarray.segment.failpoints import ARMED, reach
from shmarray.segment.libc import fcntl
from shmarray.segment.mapping import Mapping

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shmarray.segment import Segment

__all__ = ["SegmentReference", "attach_reference", "export", "keep_in_flight", "lent", "open_leases", "reattach"]


class SegmentReference(NamedTuple):
    """Where a segment is, for another process of this machine. Small, and safe to pickle.

    Attributes
    ----------
    file_name : str
    namespace : str
        Empty for a foreign segment.
    key : tuple of int
        Device and inode.
    created_ns : int
    nbytes : int
        Bytes of data.
    """

    file_name: str
    namespace: str
    key: tuple[int, int]
    created_ns: int
    nbytes: int


def export(segment: Segment, *, in_flight: bool = True) -> SegmentReference:
    """A reference to the segment, which counts as in flight from now.

    Publishes a nameless segment. Several references in flight share one deadline, the latest; the first
    process that attaches ends it, so keep the array for several receivers. Who keeps the segment until its
    receiver has attached, and hears of that, says `in_flight=False`: then there is no deadline. Nor is there one in a
    thread that packs (see :mod:`shmarray.packing`).
    """
    mapping = segment.mapping
    if mapping.foreign:
        return SegmentReference(mapping.file_name or "", "", mapping.key, 0, segment.nbytes)
    mapping = mapping.parent or mapping
    file_name = store.publish(mapping)
    store.check_name(mapping)
    if in_flight and not collect(segment):
        keep_in_flight(segment)
    return SegmentReference(file_name, mapping.namespace, mapping.key, mapping.descriptor.created_ns, segment.nbytes)


def keep_in_flight(segment: Segment) -> None:
    """Keep an exported segment until one process has attached, or `config.handle_ttl_s` have passed."""
    until_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(config.handle_ttl_s * 1e9)
    _set_deadline(segment.mapping, until_ns)


def open_leases(segments: Iterable[Segment]) -> list[int]:
    """Descriptors that keep these segments alive as mappings of theirs would; the caller's to close.

    Raises
    ------
    OSError
        There are no more descriptors, or a segment was unlinked meanwhile.
    """
    leases: list[int] = []
    try:
        for mapping in {id(mapping): mapping for mapping in (s.mapping.parent or s.mapping for s in segments)}.values():
            lease = mapping.open_unlocked()
            leases.append(lease)
            # Nobody has the file exclusively: this process holds it.
            fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BaseException:
        for lease in leases:
            with contextlib.suppress(OSError):
                os.close(lease)
        raise
    return leases


def _set_deadline(mapping: Mapping, until_ns: int) -> None:
    mapping = mapping.parent or mapping
    if mapping.mode == "r+":
        mapping.words[DEADLINE >> 3] = until_ns
        return
    if ARMED:
        reach("publish.open")
    fd = mapping.open_unlocked()
    try:
        if ARMED:
            reach("publish.write")
        os.pwrite(fd, until_ns.to_bytes(8, "little"), mapping.length - DESCRIPTOR_NBYTES + DEADLINE)
    finally:
        os.close(fd)


def attach_reference(reference: SegmentReference, *, mode: str = "r+") -> Segment:
    """Map the segment a reference was made of.

    Raises
    ------
    SegmentNotFoundError
        When it has gone meanwhile; the message says how that can be.
    """
    check_mode(mode)
    file_name, namespace, key, created_ns, nbytes = reference
    if not namespace:
        return adopt(file_name, nbytes, mode=mode)
    mapping = store.share_key(key, created_ns)
    if mapping is not None:
        mapping.words[DEADLINE >> 3] = 0
        return settled(second_segment(mapping, mode))
    label = label_of(file_name) if is_public(file_name) else None
    try:
        segment = attach_file(file_name, namespace, label, mode, key=key)
        if segment.descriptor.created_ns == created_ns:
            _set_deadline(segment.mapping, 0)
            return settled(segment)
    except SegmentNotFoundError:
        pass
    raise SegmentNotFoundError(
        f"the array behind this handle ({label or file_name!r}) has gone: its sender dropped it and either "
        f"another process took the handle first or config.handle_ttl_s ({config.handle_ttl_s:g} s) passed, "
        "or it was unlinked; keep the array until every receiver has attached",
        name=label or file_name,
    )


def reattach(reference: SegmentReference, mode: str) -> Segment:
    """What a pickled segment calls."""
    return attach_reference(reference, mode=mode)


def lent(segment: Segment, *, may_be_kept: bool = False) -> None:
    """Say that worker processes map this segment through `open_unlocked`.

    It stays reusable: they hear of its end through `on_unmap`, and are idle before it is reused. Not so where
    a user's Python runs on it (`may_be_kept`): that can keep a view, or fork.
    """
    mapping = segment.mapping.parent or segment.mapping
    mapping.lent = True
    if may_be_kept:
        store.mark_exported(mapping)
