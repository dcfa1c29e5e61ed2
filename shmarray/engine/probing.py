"""What does a function in plain Python return?

A whole-chunk function is tried on chunk 0, and that counts as done; others on the first item. Both in a worker: what
ends the process must not end the caller.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from shmarray.chunks import ChunkGrid
from shmarray.engine.chunk_info import ChunkInfo
from shmarray.engine.job import Binder
from shmarray.engine.operands import Array
from shmarray.engine.python_job import ArraySpec, FunctionJob, chunk_window, claiming, store_chunk
from shmarray.pool import Lane

__all__ = ["AskJob", "ProbeJob", "Probed", "item_dtypes"]

# The scratch begins with the length of a pickled header, a word that says whether the new values are committed, and
# the header; after a page come the items of the result, or of everything that was changed.
_LENGTH, _COMMITTED, _HEADER, _ITEMS = slice(0, 8), slice(8, 16), 16, 4096


class Probed(NamedTuple):
    """What was seen of a function on chunk 0."""

    result: Array | None  #: what it returned
    changed: bool  #: whether it changed what it was given


@dataclass(frozen=True, slots=True)
class ProbeJob:
    """Chunk 0 of a function whose result is not known yet: does it return an array, and of which dtype?

    The function gets copies of its views. If it returns an array, that goes to `scratch`. If it returns nothing, the
    copies go there, are committed, and are copied back, which is what it did in place: so a worker may die at any
    moment, and another does the rest. With a halo nothing is copied back: the caller refuses what works in place there.
    Nor with `keeps=False`: then the chunk is done again, in a call that changes it safely.
    """

    runs_python: ClassVar[bool] = True

    job: FunctionJob
    scratch: ArraySpec
    keeps: bool = True

    @staticmethod
    def scratch_nbytes(grid: ChunkGrid, inputs: Sequence[Any]) -> int:
        """Room for a chunk of the widest number, or of all inputs."""
        items = math.prod(part.stop - part.start for part in grid.slices(0))
        return _ITEMS + int(items) * max(16, sum(value.itemsize for value in inputs if isinstance(value, np.ndarray)))

    def bind(self, binder: Binder) -> Callable[[Lane, int], int]:
        job = self.job
        values = [value.view(binder) if isinstance(value, ArraySpec) else value for value in job.inputs]
        scratch = self.scratch.view(binder)
        committed = scratch[_COMMITTED].view(np.int64)

        def prepare() -> Callable[[int], None]:
            function = pickle.loads(job.function)

            def do(index: int) -> None:
                info, window = chunk_window(job.grid, job.halo, index)
                views = [value[window] if isinstance(value, np.ndarray) else value for value in values]
                writable = [view for view in views if isinstance(view, np.ndarray) and view.flags.writeable]
                if committed[0]:  # by a worker that died while it copied them back
                    _copy_back(writable, scratch)
                    return
                copies = [_copy(view) if isinstance(view, np.ndarray) else view for view in views]
                result = function(*copies, chunk_info=info) if job.with_info else function(*copies)
                changed_to = [copy for copy in copies if isinstance(copy, np.ndarray) and copy.flags.writeable]
                changed = not all(map(_same_bytes, writable, changed_to))
                dtype = None if result is None else np.asarray(result).dtype
                _write_header(scratch, (dtype, changed), _unknown_dtype(job.name, dtype))
                if dtype is not None:
                    self._store(result, dtype, info, scratch)
                elif changed and self.keeps and not any(job.halo):
                    for place, copy in zip(_places(writable, scratch), changed_to, strict=True):
                        place[...] = copy
                    committed[0] = 1
                    _copy_back(writable, scratch)

            return do

        return claiming(prepare)

    def _store(self, result: Any, dtype: np.dtype[Any], info: ChunkInfo, scratch: Array) -> None:
        shape = tuple(z - a for a, z in zip(info.start, info.stop, strict=True))
        nbytes = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or nbytes > scratch.size - _ITEMS:
            raise _unknown_dtype(self.job.name, dtype)
        stored = scratch[_ITEMS : _ITEMS + nbytes].view(dtype).reshape(shape)
        at_origin = info._replace(start=tuple(0 for _ in shape), stop=shape)
        store_chunk(self.job.name, result, stored, at_origin)

    @staticmethod
    def clear(scratch: Array) -> None:
        """Make a scratch ready: its pages may be those of another."""
        scratch[:_HEADER] = 0

    @staticmethod
    def settle(scratch: Array, grid: ChunkGrid, inputs: Sequence[Any]) -> None:
        """After an error: finish what was committed, so that chunk 0 is either done or as it was."""
        if scratch[_COMMITTED].view(np.int64)[0]:
            arrays = [value for value in inputs if isinstance(value, np.ndarray) and value.shape == grid.shape]
            _copy_back([array[grid.slices(0)] for array in arrays if array.flags.writeable], scratch)

    @staticmethod
    def read(scratch: Array, grid: ChunkGrid) -> Probed:
        """What the job left in `scratch`."""
        dtype, changed = _read_header(scratch)
        if dtype is None:
            return Probed(None, changed)
        shape = tuple(part.stop - part.start for part in grid.slices(0))
        nbytes = math.prod(shape) * dtype.itemsize
        result: Array = scratch[_ITEMS : _ITEMS + nbytes].view(dtype).reshape(shape)
        return Probed(result, changed)


@dataclass(frozen=True, slots=True)
class AskJob:
    """A question to a function: a pickled callable without arguments, whose result is the answer."""

    runs_python: ClassVar[bool] = True
    scratch_nbytes: ClassVar[int] = _ITEMS

    name: str
    question: bytes
    scratch: ArraySpec

    def bind(self, binder: Binder) -> Callable[[Lane, int], int]:
        scratch = self.scratch.view(binder)

        def prepare() -> Callable[[int], None]:
            question = pickle.loads(self.question)

            def do(index: int) -> None:
                _write_header(scratch, question(), TypeError(f"{self.name} returned too many values for an item"))

            return do

        return claiming(prepare)

    @staticmethod
    def read(scratch: Array) -> Any:
        """The answer."""
        return _read_header(scratch)


def item_dtypes(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[np.dtype[Any], ...]:
    """A question: the dtypes of what the function returns for such arguments."""
    result = function(*arguments)
    return tuple(np.asarray(value).dtype for value in (result if isinstance(result, tuple) else (result,)))


def _write_header(scratch: Array, header: Any, too_long: Exception) -> None:
    data = pickle.dumps(header)
    if len(data) > _ITEMS - _HEADER:
        raise too_long
    scratch[_LENGTH].view(np.int64)[0] = len(data)
    scratch[_HEADER : _HEADER + len(data)] = np.frombuffer(data, np.uint8)


def _read_header(scratch: Array) -> Any:
    length = int(scratch[_LENGTH].view(np.int64)[0])
    return pickle.loads(scratch[_HEADER : _HEADER + length].tobytes())


def _places(views: Sequence[Array], scratch: Array) -> Iterator[Array]:
    """Where the new items of each view lie in the scratch."""
    start = _ITEMS
    for view in views:
        yield scratch[start : start + view.nbytes].view(view.dtype).reshape(view.shape)
        start += view.nbytes


def _copy_back(views: Sequence[Array], scratch: Array) -> None:
    for view, place in zip(views, _places(views, scratch), strict=True):
        view[...] = place


def _unknown_dtype(name: str, dtype: np.dtype[Any] | None) -> TypeError:
    return TypeError(f"{name} returned dtype {dtype}; give out= with the dtype that you want")


def _copy(view: Array) -> Array:
    copy = view.copy()
    copy.flags.writeable = view.flags.writeable
    return copy


def _same_bytes(view: Array, copy: Array) -> bool:
    one, other = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (view, copy))
    return one.data == other.data
