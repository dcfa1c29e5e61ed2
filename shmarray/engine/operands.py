"""Where an array's bytes are, for this process and for the workers.

Invariant: an operand holds its array, so its memory stays mapped as long as the operand does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shmarray import registry
from shmarray.segment import segment_of

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["Operand", "address_of", "check_output", "overlap", "same_elements", "shared_copy"]

Array = npt.NDArray[np.generic]

_SOLVER_WORK: Any = 100_000  # candidate solutions NumPy may try: a few milliseconds


def address_of(array: Array) -> int:
    """Where element (0, 0, ...) lies in this process."""
    address: int = array.__array_interface__["data"][0]
    return address


@dataclass(frozen=True, slots=True)
class Operand:
    """An array with the segment that its bytes are in; None for private memory."""

    array: Array
    segment: Segment | None
    address: int

    @classmethod
    def of(cls, array: Array) -> Operand:
        segment = segment_of(array)
        if segment is not None and segment.mode == "c":
            segment = None  # a private copy: other processes do not see what was written to it
        return cls(array, segment, address_of(array))

    @property
    def place(self) -> tuple[tuple[int, int] | None, int]:
        """The segment's key and the offset in it; None and the address where there is none."""
        if self.segment is None:
            return None, self.address
        return self.segment.key, self.address - self.segment.address


def shared_copy(array: Array) -> Operand:
    """The same elements in an unnamed segment, C-contiguous: what plain arrays become before workers see them."""
    segment = registry.create(array.shape, array.dtype)
    view = np.asarray(segment).view(array.dtype).reshape(array.shape)
    view[...] = array
    return Operand.of(view)


def bounds(array: Array) -> tuple[int, int]:
    """The first byte of an array and the one after its last."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return low, high


def same_elements(one: Array, other: Array) -> bool:
    """Whether two arrays are the same memory, element for element."""
    return (
        one.shape == other.shape
        and one.strides == other.strides
        and one.dtype == other.dtype
        and address_of(one) == address_of(other)
    )


def overlap(one: Array, other: Array) -> bool:
    """Whether two arrays share an element; also true where that is too hard to tell."""
    if not np.may_share_memory(one, other):  # compares the bounds of their bytes
        return False
    try:
        return np.shares_memory(one, other, max_work=_SOLVER_WORK)
    except np.exceptions.TooHardError:
        return True


def check_output(out: Array, inputs: Sequence[Array], *, name: str) -> bool:
    """Refuse an output that overlaps an input without being it; tell whether it is one.

    Raises
    ------
    ValueError
        When the output is read-only, overlaps itself, or shares only some memory with an input.
    """
    if not out.flags.writeable:
        raise ValueError(f"{name}: out is read-only; open the array with mode='r+', or give another")
    if out.size and 0 in [s for s, n in zip(out.strides, out.shape, strict=True) if n > 1]:
        raise ValueError(f"{name}: out overlaps itself (a stride is 0); give an array whose elements are distinct")
    in_place = False
    for position, array in enumerate(inputs):
        if same_elements(out, array):
            in_place = True
        elif overlap(out, array):
            raise ValueError(
                f"{name}: out shares memory with argument {position} without being the same elements; "
                "give that argument itself, a copy of it, or another out"
            )
    return in_place
