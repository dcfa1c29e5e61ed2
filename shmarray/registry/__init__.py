"""All segments of a namespace: made, found, listed, reclaimed, reused.

The only code that removes a segment's file. A namespace (`config.namespace`) is a prefix of file names;
nothing here looks beyond it.
"""

from __future__ import annotations

from shmarray.registry import condition
from shmarray.registry.attachment import adopt, attach
from shmarray.registry.creation import check_shape, create
from shmarray.registry.listing import SegmentInfo, Usage, info, usage
from shmarray.registry.listing import list_segments as list
from shmarray.registry.reclaim import gc, unlink
from shmarray.registry.references import SegmentReference, attach_reference, export, lent
from shmarray.registry.store import store as _store

__all__ = [
    "SegmentInfo",
    "SegmentReference",
    "Usage",
    "adopt",
    "attach",
    "attach_reference",
    "check_shape",
    "condition",
    "create",
    "export",
    "gc",
    "info",
    "lent",
    "list",
    "on_unmap",
    "trim",
    "unlink",
    "usage",
]

on_unmap = _store.on_unmap
trim = _store.trim
