"""How do the results of a crash-safe call lie in shared memory until they are copied to their arrays?

::

    0     first, stop    the chunks of the window, as a range
    16    committed      1: all of the window's results are here
    24    begins         the window's first element along its axis
    32    text_nbytes
    64    text           JSON: the task, the grid, and how the elements of each array lie there and here
    ..    states         a byte a chunk of the whole grid: 1 when it is in its place
    ..    blocks         the window's results, one block an array

A *window* is a run of chunks that is one slab of the grid: all of it, or some of it along `axis`.

Invariant: the text is written once, before the scratch has a name. Whoever reads it believes nothing:
:meth:`Layout.parse` and :meth:`Layout.check` raise `ValueError` for whatever does not fit the files it is about.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shmarray.chunks import ChunkGrid

__all__ = ["COMMITTED", "TEXT", "Block", "Layout", "Window", "bytes_at"]

COMMITTED = 16
TEXT = 64
_WORDS = struct.Struct("<5q")
_ALIGN = 4096


class Window(NamedTuple):
    """The changeable words at the scratch's start."""

    first: int
    stop: int
    committed: int
    begins: int
    text_nbytes: int

    @classmethod
    def of(cls, scratch: Any) -> Window:
        """Read from the first bytes of a scratch."""
        return cls._make(_WORDS.unpack_from(scratch))

    def write(self, scratch: Any) -> None:
        """Put down at the start of a scratch."""
        _WORDS.pack_into(scratch, 0, *self)


@dataclass(frozen=True, slots=True)
class Block:
    """How the elements of one array lie, in its segment and in the scratch.

    Attributes
    ----------
    file : tuple or None
        File name, device, inode and time of creation of the segment; None for one that has no name.
    offset, strides : int, tuple of int
        Of the array's first element in its segment, and from one to the next, in bytes.
    itemsize : int
    scratch_offset, scratch_strides : int, tuple of int
        Of the window's first element in the scratch, and from one to the next.
    """

    file: tuple[str, int, int, int] | None
    offset: int
    strides: tuple[int, ...]
    itemsize: int
    scratch_offset: int
    scratch_strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is in one scratch.

    Attributes
    ----------
    task : str
        The kernel's name, for people.
    grid : ChunkGrid
    axis, extent : int
        A window has at most `extent` elements along `axis`.
    states_at, nbytes : int
    blocks : tuple of Block
    """

    task: str
    grid: ChunkGrid
    axis: int
    extent: int
    states_at: int
    nbytes: int
    blocks: tuple[Block, ...]

    @classmethod
    def plan(
        cls,
        task: str,
        grid: ChunkGrid,
        axis: int,
        extent: int,
        arrays: Sequence[tuple[tuple[str, int, int, int] | None, int, tuple[int, ...], int]],
    ) -> Layout:
        """Lay out a scratch for arrays given as (file, offset, strides, itemsize); the order in memory is theirs."""
        shape = list(grid.shape)
        if shape:
            shape[axis] = extent
        states_at = TEXT + 4096 * (1 + len(arrays))
        at = _aligned(states_at + len(grid))
        blocks = []
        for file, offset, strides, itemsize in arrays:
            packed, step = [0] * len(shape), itemsize
            for dimension in sorted(range(len(shape)), key=lambda d: (abs(strides[d]), -d)):
                packed[dimension] = step
                step *= shape[dimension]
            blocks.append(Block(file, offset, strides, itemsize, at, tuple(packed)))
            at = _aligned(at + step)
        return cls(task, grid, axis, extent, states_at, at, tuple(blocks))

    def text(self) -> bytes:
        """All of it, as it stands in the scratch."""
        blocks = [
            [block.file, block.offset, block.strides, block.itemsize, block.scratch_offset, block.scratch_strides]
            for block in self.blocks
        ]
        facts = [self.task[:200], self.grid.shape, self.grid.chunks, self.axis, self.extent, self.states_at, blocks]
        text = json.dumps(facts).encode()
        if len(text) > self.states_at - TEXT:
            raise ValueError(f"the arrays of {self.task} have too many dimensions for a crash-safe call")
        return text

    @classmethod
    def parse(cls, text: bytes, nbytes: int) -> Layout:
        """Read what a scratch of `nbytes` says; `ValueError` for what :meth:`text` cannot have written."""
        try:
            task, shape, chunks, axis, extent, states_at, listed = json.loads(text)
            grid = ChunkGrid(_integers(shape), _integers(chunks))
            blocks = []
            for file, offset, strides, itemsize, scratch_offset, scratch_strides in listed:
                named = None
                if file is not None:
                    name, *numbers = file
                    device, inode, created_ns = _integers(numbers)
                    named = (str(name), device, inode, created_ns)
                offset, itemsize, scratch_offset = _integers([offset, itemsize, scratch_offset])
                one = Block(named, offset, _integers(strides), itemsize, scratch_offset, _integers(scratch_strides))
                if len(one.strides) != len(grid.shape) or len(one.scratch_strides) != len(grid.shape) or itemsize < 1:
                    raise ValueError("the dimensions of an array are not those of the grid")
                blocks.append(one)
            axis, extent, states_at = _integers([axis, extent, states_at])
            if not 0 <= axis < max(1, len(grid.shape)) or not 0 < states_at <= nbytes - len(grid):
                raise ValueError("its parts are not where they can be")
        except (TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"it does not say what a scratch says: {error}") from error
        return cls(str(task), grid, axis, extent, states_at, nbytes, tuple(blocks))

    def check(self, block: Block, window: Window, segment_nbytes: int) -> None:
        """`ValueError` unless all chunks of the window lie within the scratch and within the array's segment."""
        if not 0 <= window.first <= window.stop <= len(self.grid):
            raise ValueError("its window is not in its grid")
        for index in range(window.first, window.stop):
            shape, there, here = self._places(block, index, window.begins)
            for start, strides, limit in (
                (there, block.strides, segment_nbytes),
                (here, block.scratch_strides, self.nbytes),
            ):
                reach = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
                low, high = start + sum(min(0, r) for r in reach), start + sum(max(0, r) for r in reach)
                if low < 0 or high + block.itemsize > limit:
                    raise ValueError(f"chunk {index} is not where it can be")

    def copy(self, block: Block, index: int, begins: int, scratch: int, segment: int) -> None:
        """Copy one chunk from the scratch at address `scratch` to the array's segment at address `segment`."""
        shape, there, here = self._places(block, index, begins)
        source = _view(scratch + here, shape, block.scratch_strides, block.itemsize)
        _view(segment + there, shape, block.strides, block.itemsize)[...] = source

    def _places(self, block: Block, index: int, begins: int) -> tuple[tuple[int, ...], int, int]:
        """A chunk's shape, and the offsets of its first element in the array's segment and in the scratch."""
        core = self.grid.slices(index)
        there, here = block.offset, block.scratch_offset
        for dimension, part in enumerate(core):
            there += part.start * block.strides[dimension]
            start = part.start - (begins if dimension == self.axis else 0)
            here += start * block.scratch_strides[dimension]
        return tuple(part.stop - part.start for part in core), there, here


class _Bytes:
    """Shows memory at an address to NumPy."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": (address, False), "version": 3}


def bytes_at(address: int, nbytes: int) -> npt.NDArray[np.uint8]:
    """Memory at an address. The array does not keep it mapped."""
    return np.asarray(_Bytes(address, nbytes))


def _view(address: int, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> npt.NDArray[np.void]:
    reach = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
    low, high = sum(min(0, r) for r in reach), sum(max(0, r) for r in reach)
    memory = bytes_at(address + low, high - low + itemsize)
    return np.ndarray(shape, np.dtype((np.void, itemsize)), memory, -low, strides)


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and abs(value) < 2**63 for value in values):
        raise ValueError(f"{values!r} are not integers")
    return tuple(values)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN
