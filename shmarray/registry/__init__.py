"""All segments of a namespace: made, found, listed, reclaimed, reused.

The only code that removes a segment's file. A namespace (`config.namespace`) is a prefix of file names;
nothing here looks beyond it.
"""

from __future__ import annotations

from shmarray.registry import condition as condition
from shmarray.registry.attachment import adopt as adopt
from shmarray.registry.attachment import attach as attach
from shmarray.registry.creation import check_shape as check_shape
from shmarray.registry.creation import create as create
from shmarray.registry.listing import SegmentInfo, Usage, info, usage
from shmarray.registry.listing import list_segments as list
from shmarray.registry.reclaim import gc, unlink
from shmarray.registry.references import SegmentReference as SegmentReference
from shmarray.registry.references import attach_reference as attach_reference
from shmarray.registry.references import export as export
from shmarray.registry.references import lent as lent
from shmarray.registry.store import store as _store

#: What users need. The other names are for the layers above.
__all__ = ["SegmentInfo", "Usage", "gc", "info", "list", "unlink", "usage"]

on_unmap = _store.on_unmap
trim = _store.trim


def __dir__() -> tuple[str, ...]:
    return ("__doc__", "__file__", "__name__", *__all__)
