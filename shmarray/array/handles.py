"""Where do the bytes of a view lie, and how is that said to another process?

A handle is a segment's reference, a byte offset, shape, strides and dtype: any view, however sliced, stepped,
transposed or reversed, travels so, and its bytes do not. Arrays that no other process can see (private
memory, copy-on-write mappings) travel by value.

Invariant: a handle never reads outside the segment. NumPy checks offset, shape and strides against the
mapping when the view is made anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shmarray import registry
from shmarray.array.results import over_segment
from shmarray.segment import segment_of

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["Location", "attach_view", "export_view", "locate"]


class Location(NamedTuple):
    """A view's place: element zero lies `offset_bytes` into the segment's array bytes."""

    segment: Segment
    offset_bytes: int


def locate(array: np.ndarray[Any, Any]) -> Location | None:
    """The segment that holds an array and the byte offset of its first element; None for private memory.

    Works for any ndarray whose `.base` chain ends in a segment. Mind `segment.mode`: bytes behind a `"c"`
    mapping are this process's own once written.

    Examples
    --------
    >>> import shmarray as sa
    >>> a = sa.zeros(10)
    >>> locate(a[3:]).offset_bytes, locate(a[::-1]).offset_bytes
    (24, 72)
    """
    segment = segment_of(array)
    if segment is None:
        return None
    address: int = array.__array_interface__["data"][0]
    return Location(segment, address - segment.address)


def export_view(array: np.ndarray[Any, Any]) -> tuple[Any, ...] | None:
    """What :func:`attach_view` needs to make the view elsewhere; None where only the value can travel."""
    location = locate(array)
    if location is None or location.segment.mode == "c":
        return None
    return (
        registry.export(location.segment),
        location.segment.mode,
        location.offset_bytes,
        array.shape,
        array.strides,
        _dtype_code(array.dtype),
        array.flags.writeable,
    )


def attach_view(
    reference: Any,
    mode: str,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: Any,
    writeable: bool,
    *,
    kind: type[np.ndarray[Any, Any]],
) -> np.ndarray[Any, Any]:
    """The view that :func:`export_view` described, over this process's mapping of the segment.

    Raises
    ------
    SegmentNotFoundError
        The segment is gone; the message says why it may be.
    ValueError
        The handle points outside the segment: it was damaged on its way.
    """
    segment = registry.attach_reference(reference, mode=mode)
    try:
        kind_of_item = np.dtype(dtype)
        if kind_of_item.hasobject:
            raise TypeError("bytes of a segment are no Python objects")
        if 0 in shape:
            offset = 0  # an empty view may "begin" outside; nothing is read through it
        view = over_segment(segment, shape, kind_of_item, offset=offset, strides=strides, kind=kind)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"damaged handle: offset {offset}, shape {shape}, strides {strides}, dtype {dtype!r} do not"
            f" fit into the {segment.nbytes} bytes of its segment; pickle the array anew"
        ) from error
    if not writeable:
        view.flags.writeable = False
    return view


def _dtype_code(dtype: np.dtype[Any]) -> Any:
    """The dtype as a short string where that says all: a pickled dtype object costs 2 µs and 60 bytes."""
    if dtype.names is None and dtype.metadata is None:
        code = dtype.str
        if np.dtype(code) == dtype:
            return code
    return dtype
