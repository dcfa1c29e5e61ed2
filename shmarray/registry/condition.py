"""Is an array's content what its users think?

Not where a worker died while it changed a chunk in place, or the whole program did, or a crash-safe call was cut short
between two of its parts. The array itself remembers that, in words of its descriptor page outside the checksum: whoever
opens it later can ask. While a call changes it in place it counts as such, too: only its end tells that all is well.

Each mark is a byte of its own, written alone: several processes set and clear them at once, and an update of the whole
word could bring back, or take away, what another has just written.

Invariant: nothing but the user's word (:func:`clean`) takes the mark of unknown content away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from shmarray.errors import ShmArrayError
from shmarray.segment.descriptor import DIRTY, REASON, REASON_NBYTES, SCRATCH

if TYPE_CHECKING:
    import weakref

    from shmarray.segment import Segment
    from shmarray.segment.mapping import Mapping

__all__ = [
    "CHANGING",
    "UNDER_WAY",
    "UNKNOWN",
    "begin_change",
    "clean",
    "end_change",
    "is_dirty",
    "mark_dirty",
    "pack_reason",
    "reason_in",
    "reason_of",
]

#: Where in the page the marks are: content unknown; a crash-safe call is under way, or was cut short; another call that
#: changes the array in place is, or was.
UNKNOWN, UNDER_WAY, CHANGING = DIRTY, DIRTY + 1, DIRTY + 2

_CUT_SHORT = "a call that changes it in place is under way, or its program was ended in the middle of one"

_DIRTY = DIRTY >> 3


def mark_dirty(segment: Segment, reason: str) -> None:
    """Note that the content of some of the segment is unknown; nothing for what has no writable page of ours."""
    mapping = _page_of(segment)
    if mapping is not None:
        mapping.page[REASON : REASON + REASON_NBYTES] = pack_reason(reason)
        mapping.page[UNKNOWN] = 1


def begin_change(segments: Iterable[weakref.ref[Segment]]) -> list[memoryview]:
    """Note that a call begins to change segments in place; what `end_change` takes.

    The caller holds the segments until then. Several calls at once have one mark, so if one of them is killed after
    another has ended, nothing tells.
    """
    pages = []
    for reference in segments:
        segment = reference()
        if segment is not None and (page := segment.mapping.page):
            page[CHANGING] = 1
            pages.append(page)
    return pages


def end_change(pages: Iterable[memoryview]) -> None:
    """Note that the call has come to its end, whatever that was."""
    for page in pages:
        page[CHANGING] = 0


def clean(segment: Segment) -> None:
    """Take the marks away; a crash-safe call that was cut short is finished first.

    Raises
    ------
    ShmArrayError
        When such a call is under way.
    """
    mapping = _page_of(segment)
    if mapping is not None:
        if mapping.page[SCRATCH]:
            from shmarray.registry.replay import look_after, scratch_named_in

            look_after(mapping)
            if scratch_named_in(mapping.page):
                raise ShmArrayError(
                    f"a crash-safe call on array {mapping.descriptor.name or mapping.file_name!r} is under way; it can "
                    "be declared clean when that has ended"
                )
        mapping.page[UNKNOWN] = mapping.page[CHANGING] = 0
        mapping.page[REASON : REASON + REASON_NBYTES] = bytes(REASON_NBYTES)


def is_dirty(segment: Segment) -> bool:
    """Whether some of its content is unknown, or a crash-safe call on it is under way or was cut short."""
    words = segment.mapping.words
    return bool(len(words) and words[_DIRTY])


def reason_of(segment: Segment) -> str:
    """Why it is dirty; "" where it is not."""
    page = segment.mapping.page
    return reason_in(page.tobytes()) if len(page) else ""


def reason_in(page: bytes) -> str:
    """The same by a copy of the page; whatever is there is shown, and nothing of it believed."""
    text = page[REASON : REASON + REASON_NBYTES].partition(b"\0")[0].decode(errors="replace")
    return text or (_CUT_SHORT if page[CHANGING] else "")


def pack_reason(reason: str) -> bytes:
    """A text as it stands in the page: cut between characters, NUL-padded."""
    return reason.encode()[: REASON_NBYTES - 1].decode(errors="ignore").encode().ljust(REASON_NBYTES, b"\0")


def _page_of(segment: Segment) -> Mapping | None:
    mapping = segment.mapping
    return None if mapping.foreign or mapping.mode != "r+" else mapping
