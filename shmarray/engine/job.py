"""A job of machine code: a block of 64-bit words, with the places where addresses go.

The block is the same in every process but for the addresses of segments, which are filled in where it is bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from shmarray.pool import Lane, SegmentKey

__all__ = ["Binder", "BlockJob", "LocalBinder", "Place"]

#: A segment's key and an offset in it; None and an address in the caller, where a job does not leave the caller.
Place = tuple[SegmentKey | None, int]


class Binder(Protocol):
    """What binding a job needs: where segments are mapped, and loaded machine code by number."""

    @property
    def addresses(self) -> dict[SegmentKey, int]: ...

    def entry(self, kernel: int) -> Callable[..., int]: ...


@dataclass(frozen=True, slots=True)
class LocalBinder:
    """Binds jobs to the caller's own mappings."""

    addresses: dict[SegmentKey, int]
    entries: dict[int, Callable[..., int]]

    def entry(self, kernel: int) -> Callable[..., int]:
        return self.entries[kernel]


@dataclass(frozen=True, slots=True)
class BlockJob:
    """A compiled driver and the block it reads.

    Attributes
    ----------
    kernel : int
        Number of the driver's machine code.
    words : bytes
        The block, with zeros where addresses go.
    places : tuple of (int, Place)
        Which word holds the address of what.
    constants : bytes
        Values that words may point to, as `(None, offset)` in `constant_places`.
    constant_places : tuple of (int, int)
        Which word holds the address of which byte of `constants`.
    """

    kernel: int
    words: bytes
    places: tuple[tuple[int, Place], ...]
    constants: bytes = b""
    constant_places: tuple[tuple[int, int], ...] = ()

    def bind(self, binder: Binder) -> Callable[[Lane, int], int]:
        """A function that runs the driver on a lane for a number of nanoseconds (0: to the end)."""
        return self._bind(binder)[0]

    def _bind(self, binder: Binder) -> tuple[Callable[[Lane, int], int], Any]:
        """That function, and the block."""
        n_words = len(self.words) // 8
        memory = np.empty(n_words + -(-len(self.constants) // 8), np.int64)
        memory[:n_words] = np.frombuffer(self.words, np.int64)
        address = memory.ctypes.data
        if self.constants:
            memory[n_words:].view(np.uint8)[: len(self.constants)] = np.frombuffer(self.constants, np.uint8)
        for word, (key, offset) in self.places:
            memory[word] = offset if key is None else binder.addresses[key] + offset
        for word, offset in self.constant_places:
            memory[word] = address + 8 * n_words + offset
        entry = binder.entry(self.kernel)

        # The default argument keeps the block alive as long as the function is.
        def run(lane: Lane, budget_ns: int, _block: Any = memory) -> int:
            return entry(lane.page.address, address, lane.number, budget_ns)

        return run, memory


def constant_bytes(values: Sequence[np.generic]) -> tuple[bytes, list[int]]:
    """Scalars laid out one after another, each aligned, and their offsets."""
    parts, offsets, position = [], [], 0
    for value in values:
        data = value.tobytes()
        padding = -position % 16
        parts += [bytes(padding), data]
        offsets.append(position + padding)
        position += padding + len(data)
    return b"".join(parts), offsets
