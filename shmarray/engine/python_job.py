"""Jobs that run Python in the workers: whole-chunk functions without jit, and NumPy's own ufunc loops."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from shmarray.chunks import ChunkGrid
from shmarray.engine.chunk_info import ChunkInfo
from shmarray.engine.job import Binder, Place
from shmarray.engine.operands import Array, Operand
from shmarray.pool import Lane

__all__ = ["RANKS", "ArraySpec", "FunctionJob", "ItemsJob", "UfuncJob", "UfuncReductionJob", "claiming", "wrong_shape"]


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
        raise wrong_shape(name, result.shape, info)


def wrong_shape(name: str, returned: tuple[int, ...], info: ChunkInfo) -> ValueError:
    """The error for a whole-chunk function that returned an array of another shape than its chunk."""
    shape = tuple(z - a for a, z in zip(info.start, info.stop, strict=True))
    with_halo = tuple(n + b + a for n, b, a in zip(shape, info.before, info.after, strict=True))
    return ValueError(
        f"{name} returned shape {returned} for chunk {info.number}; "
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
                    output[core] = _checked_items(result, output.dtype)

            return do

        return claiming(prepare)


#: Kinds of numbers, each of which holds those before it but for their size.
RANKS = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}


def _checked_items(items: Any, dtype: np.dtype[Any]) -> Any:
    """What the function returned, unless `dtype` cannot hold its kind (too large a number NumPy itself refuses)."""
    found = np.array(items.tolist() if isinstance(items, np.ndarray) else items)
    if found.dtype.kind in RANKS and dtype.kind in RANKS:
        fits = RANKS[found.dtype.kind] <= RANKS[dtype.kind]
    else:
        text = dtype.kind in "SU"
        fits = np.can_cast(found.dtype, dtype, "same_kind") and (not text or found.itemsize <= dtype.itemsize)
    if not fits:
        raise TypeError(
            f"the function returned {found.dtype} for some items, which {dtype} cannot hold; without out= its first "
            "result says what the others are: let it return one kind, or give out="
        )
    return items


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
