"""Jobs that run Python in the workers: whole-chunk functions without jit, and NumPy's own ufunc loops."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from shmarray.chunks import ChunkGrid
from shmarray.engine.chunk_info import ChunkInfo
from shmarray.engine.job import Binder, Place
from shmarray.engine.operands import Array, Operand
from shmarray.pool import Lane

__all__ = ["ArraySpec", "FunctionJob", "ItemsJob", "ProbeJob", "UfuncJob", "UfuncReductionJob", "claiming"]


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """A view of a segment, to be made anew in another process."""

    place: Place
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    writable: bool

    @classmethod
    def of(cls, operand: Operand, shape: tuple[int, ...], *, writable: bool) -> ArraySpec:
        """The operand broadcast to `shape`."""
        array = operand.array
        if array.shape != shape:
            array = np.broadcast_to(array, shape)
            writable = False
        return cls(operand.place, array.shape, array.strides, array.dtype, writable)

    def view(self, binder: Binder) -> Array:
        """The array on this process's mapping; it does not keep the mapping, its lane does."""
        key, offset = self.place
        if not np.prod(self.shape, dtype=object):
            return np.empty(self.shape, self.dtype)
        address = offset if key is None else binder.addresses[key] + offset
        low = address + sum(min(0, (n - 1) * s) for n, s in zip(self.shape, self.strides, strict=True))
        high = address + sum(max(0, (n - 1) * s) for n, s in zip(self.shape, self.strides, strict=True))
        memory = np.asarray(_Bytes(low, high - low + self.dtype.itemsize))
        view = np.ndarray(self.shape, self.dtype, memory, address - low, self.strides)
        view.flags.writeable = self.writable
        return view


class _Bytes:
    """Shows memory at an address to NumPy."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": (address, False), "version": 3}


def claiming(prepare: Callable[[], Callable[[int], None]]) -> Callable[[Lane, int], int]:
    """A lane's loop around a function of the chunk's index.

    `prepare` makes that function anew for each run, and nothing of it outlives the run: an array that the user's
    function refers to must not stay mapped in an idle worker. It does so before the first claim: a function that
    cannot be loaded is no chunk's fault, and leaves all of them untouched.
    """

    def run(lane: Lane, budget_ns: int) -> int:
        started = time.monotonic_ns()
        do = prepare()
        while True:
            index = lane.claim()
            if index < 0:
                return 0
            do(index)
            lane.finish(index)
            if budget_ns and time.monotonic_ns() - started > budget_ns:
                return 1

    return run


@dataclass(frozen=True, slots=True)
class FunctionJob:
    """A whole-chunk function in plain Python.

    Attributes
    ----------
    function : bytes
        By cloudpickle, so that lambdas, closures and what was typed at a prompt work.
    inputs : tuple of ArraySpec or NumPy scalar
    output : ArraySpec, optional
        Takes what the function returns; None: it returns nothing.
    grid : ChunkGrid
    halo : tuple of int
    with_info : bool
    """

    runs_python: ClassVar[bool] = True

    name: str
    function: bytes
    inputs: tuple[Any, ...]
    output: ArraySpec | None
    grid: ChunkGrid
    halo: tuple[int, ...]
    with_info: bool

    def bind(self, binder: Binder) -> Callable[[Lane, int], int]:
        values = [value.view(binder) if isinstance(value, ArraySpec) else value for value in self.inputs]
        output = None if self.output is None else self.output.view(binder)

        def prepare() -> Callable[[int], None]:
            function = pickle.loads(self.function)

            def do(index: int) -> None:
                info, window = chunk_window(self.grid, self.halo, index)
                views = [value[window] if isinstance(value, np.ndarray) else value for value in values]
                result = function(*views, chunk_info=info) if self.with_info else function(*views)
                store_chunk(self.name, result, output, info)

            return do

        return claiming(prepare)


def chunk_window(grid: ChunkGrid, halo: Sequence[int], index: int) -> tuple[ChunkInfo, tuple[slice, ...]]:
    """Where a chunk is, and the slices that cut it out together with its halo."""
    core = grid.slices(index)
    start, stop = tuple(s.start for s in core), tuple(s.stop for s in core)
    before = tuple(min(h, first) for h, first in zip(halo, start, strict=True))
    after = tuple(min(h, extent - last) for h, extent, last in zip(halo, grid.shape, stop, strict=True))
    window = tuple(slice(a - b, z + c) for a, z, b, c in zip(start, stop, before, after, strict=True))
    return ChunkInfo(index, grid.position(index), start, stop, before, after), window


def store_chunk(name: str, result: Any, output: Array | None, info: ChunkInfo) -> None:
    """Put what a whole-chunk function returned where it belongs.

    Raises
    ------
    TypeError, ValueError
        When it returned nothing where an array was due, or the reverse, or one of another shape.
    """
    if output is None:
        if result is not None:
            raise TypeError(
                f"{name} returned a {type(result).__name__} for chunk {info.number}, after nothing for another"
            )
        return
    if result is None:
        raise TypeError(
            f"{name} returned nothing for chunk {info.number}; with out= it must return each chunk's result"
        )
    result = np.asarray(result)
    core = tuple(slice(a, z) for a, z in zip(info.start, info.stop, strict=True))
    shape = tuple(z - a for a, z in zip(info.start, info.stop, strict=True))
    with_halo = tuple(n + b + a for n, b, a in zip(shape, info.before, info.after, strict=True))
    if result.shape == shape:
        output[core] = result
    elif result.shape == with_halo:
        output[core] = result[tuple(slice(b, b + n) for b, n in zip(info.before, shape, strict=True))]
    else:
        raise ValueError(
            f"{name} returned shape {result.shape} for chunk {info.number}; "
            f"expected {shape}" + (f" or, with its halo, {with_halo}" if with_halo != shape else "")
        )


@dataclass(frozen=True, slots=True)
class ItemsJob:
    """A scalar function in plain Python, item by item (`elementwise(jit=False)`)."""

    runs_python: ClassVar[bool] = True

    function: bytes
    inputs: tuple[Any, ...]
    outputs: tuple[ArraySpec, ...]
    grid: ChunkGrid

    def bind(self, binder: Binder) -> Callable[[Lane, int], int]:
        values = [value.view(binder) if isinstance(value, ArraySpec) else value for value in self.inputs]
        outputs = [spec.view(binder) for spec in self.outputs]

        def prepare() -> Callable[[int], None]:
            function = np.frompyfunc(pickle.loads(self.function), len(self.inputs), len(self.outputs))

            def do(index: int) -> None:
                core = self.grid.slices(index)
                results = function(*(value[core] if isinstance(value, np.ndarray) else value for value in values))
                for output, result in zip(outputs, results if isinstance(results, tuple) else (results,), strict=True):
                    output[core] = result

            return do

        return claiming(prepare)


@dataclass(frozen=True, slots=True)
class UfuncJob:
    """A NumPy ufunc, one call of NumPy's own loop a chunk; floating-point flags are noted, not acted on."""

    ufunc: np.ufunc
    inputs: tuple[Any, ...]
    outputs: tuple[ArraySpec, ...]
    where: Any
    grid: ChunkGrid

    def bind(self, binder: Binder) -> Callable[[Lane, int], int]:
        ufunc, grid = self.ufunc, self.grid
        values = [value.view(binder) if isinstance(value, ArraySpec) else value for value in self.inputs]
        outputs = [spec.view(binder) for spec in self.outputs]
        where = self.where.view(binder) if isinstance(self.where, ArraySpec) else self.where

        def do(index: int) -> None:
            core: Any = (..., *grid.slices(index))  # the ellipsis: without dimensions, too, a view and not a scalar
            parts = [value[core] if isinstance(value, np.ndarray) else value for value in values]
            out = tuple(output[core] for output in outputs)
            here = where[core] if isinstance(where, np.ndarray) else where
            ufunc(*parts, out=out, where=here)

        return _noting_flags(claiming(lambda: do))


@dataclass(frozen=True, slots=True)
class UfuncReductionJob:
    """A ufunc's `reduce` of each chunk; partial results stand where their chunk stands in the grid."""

    ufunc: np.ufunc
    array: ArraySpec
    partials: ArraySpec
    grid: ChunkGrid
    axes: tuple[int, ...]

    def bind(self, binder: Binder) -> Callable[[Lane, int], int]:
        ufunc, grid, axes = self.ufunc, self.grid, self.axes
        array, partials = self.array.view(binder), self.partials.view(binder)

        def do(index: int) -> None:
            core, position = grid.slices(index), grid.position(index)
            place = tuple(slice(p, p + 1) if i in axes else core[i] for i, p in enumerate(position))
            ufunc.reduce(array[core], axis=axes, dtype=partials.dtype, out=partials[place], keepdims=True)

        return _noting_flags(claiming(lambda: do))


def _noting_flags(run: Callable[[Lane, int], int]) -> Callable[[Lane, int], int]:
    """The same loop with NumPy's floating-point errors noted on the lane, for the caller to act on."""

    def noting(lane: Lane, budget_ns: int) -> int:
        noted = 0

        def note(kind: str, flag: int) -> None:
            nonlocal noted
            noted |= flag

        with np.errstate(all="call", call=note):
            try:
                return run(lane, budget_ns)
            finally:
                lane.note_floating_flags(noted)

    return noting


_PROBE_HEADER = 4096


class Probed(NamedTuple):
    """What was seen of a function on chunk 0."""

    result: Array | None  #: what it returned
    changed: bool  #: whether it changed what it was given


@dataclass(frozen=True, slots=True)
class ProbeJob:
    """Chunk 0 of a function whose result is not known yet: does it return an array, and of which dtype?

    The function gets copies of its views. If it returns an array, that goes to `scratch` (a header that says its dtype,
    then the items); if it returns nothing, the copies are copied back, which is what it did in place. So it runs once.
    With a halo nothing is copied back: the caller refuses what works in place there. Nor with `keeps=False`: then the
    chunk is done again, in a call that changes it safely.
    """

    runs_python: ClassVar[bool] = True

    job: FunctionJob
    scratch: ArraySpec
    keeps: bool = True

    @staticmethod
    def scratch_nbytes(grid: ChunkGrid) -> int:
        """Room for a chunk of the widest number."""
        items = math.prod(part.stop - part.start for part in grid.slices(0))
        return _PROBE_HEADER + 16 * int(items)

    def bind(self, binder: Binder) -> Callable[[Lane, int], int]:
        job = self.job
        values = [value.view(binder) if isinstance(value, ArraySpec) else value for value in job.inputs]
        scratch = self.scratch.view(binder)

        def prepare() -> Callable[[int], None]:
            function = pickle.loads(job.function)

            def do(index: int) -> None:
                info, window = chunk_window(job.grid, job.halo, index)
                views = [value[window] if isinstance(value, np.ndarray) else value for value in values]
                copies = [_copy(view) if isinstance(view, np.ndarray) else view for view in views]
                result = function(*copies, chunk_info=info) if job.with_info else function(*copies)
                pairs = [(view, copy) for view, copy in zip(views, copies, strict=True) if isinstance(view, np.ndarray)]
                changed = any(view.flags.writeable and not _same_bytes(view, copy) for view, copy in pairs)
                dtype = None
                if result is not None:
                    dtype = np.asarray(result).dtype
                    self._store(result, dtype, info, scratch)
                elif changed and self.keeps and not any(job.halo):
                    for view, copy in pairs:
                        if view.flags.writeable:
                            view[...] = copy
                header = pickle.dumps((dtype, changed))
                if len(header) > _PROBE_HEADER - 8:
                    raise _unknown_dtype(job.name, dtype)
                scratch[:8].view(np.int64)[0] = len(header)
                scratch[8 : 8 + len(header)] = np.frombuffer(header, np.uint8)

            return do

        return claiming(prepare)

    def _store(self, result: Any, dtype: np.dtype[Any], info: ChunkInfo, scratch: Array) -> None:
        shape = tuple(z - a for a, z in zip(info.start, info.stop, strict=True))
        nbytes = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or nbytes > scratch.size - _PROBE_HEADER:
            raise _unknown_dtype(self.job.name, dtype)
        stored = scratch[_PROBE_HEADER : _PROBE_HEADER + nbytes].view(dtype).reshape(shape)
        at_origin = info._replace(start=tuple(0 for _ in shape), stop=shape)
        store_chunk(self.job.name, result, stored, at_origin)

    @staticmethod
    def read(scratch: Array, grid: ChunkGrid) -> Probed:
        """What the job left in `scratch`."""
        length = int(scratch[:8].view(np.int64)[0])
        dtype, changed = pickle.loads(scratch[8 : 8 + length].tobytes())
        if dtype is None:
            return Probed(None, changed)
        shape = tuple(part.stop - part.start for part in grid.slices(0))
        nbytes = math.prod(shape) * dtype.itemsize
        result: Array = scratch[_PROBE_HEADER : _PROBE_HEADER + nbytes].view(dtype).reshape(shape)
        return Probed(result, changed)


def _unknown_dtype(name: str, dtype: np.dtype[Any] | None) -> TypeError:
    return TypeError(f"{name} returned dtype {dtype}; give out= with the dtype that you want")


def _copy(view: Array) -> Array:
    copy = view.copy()
    copy.flags.writeable = view.flags.writeable
    return copy


def _same_bytes(view: Array, copy: Array) -> bool:
    one, other = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (view, copy))
    return one.data == other.data
