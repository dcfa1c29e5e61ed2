"""How filters are spread over an array: one pass an axis (the last two together), each cut into units of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from shmarray.engine import Options
from shmarray.ops.filter_arguments import FilterCall
from shmarray.ops.results import new_result
from shmarray.ops.units import run_units

__all__ = ["Line", "correlate_lines", "correlate_taps", "moving_windows", "rank_taps"]

Array = np.ndarray[Any, Any]

_WIDTH = 1 << 15  # columns of a unit where a single row is cut
_TILE_ITEMS = 1 << 14  # elements of a tile of moving windows


class Line(NamedTuple):
    """Weights along one axis."""

    weights: Array
    left: int  #: which of them meets the element at hand

    @property
    def is_symmetric(self) -> bool:
        """Odd in number and the same from both ends, as exactly as scipy asks."""
        half = self.weights.size // 2
        ends = self.weights[:half] - self.weights[::-1][:half]
        return self.weights.size % 2 == 1 and bool(np.all(np.abs(ends) <= np.finfo(float).eps))


def correlate_lines(call: FilterCall, lines: Sequence[Line | None], target: Array) -> None:
    """Correlate with weights along each axis in turn; None leaves an axis alone."""
    source = _converted(call.source, call.work)
    shape = source.shape
    n = len(shape)
    passes: list[tuple[tuple[int, int, int], int | None, int | None]] = [
        ((math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])), axis, None)
        for axis in range(n - 2)
        if lines[axis] is not None
    ]
    down = n - 2 if n > 1 and lines[n - 2] is not None else None
    along = n - 1 if lines[n - 1] is not None else None
    if down is not None:
        passes.append(((math.prod(shape[: n - 2]), shape[n - 2], shape[n - 1]), down, along))
    elif along is not None:
        passes.append(((1, math.prod(shape[:-1]), shape[-1]), None, along))
    if not passes:
        target[...] = call.source
        return
    for position, (view, first, second) in enumerate(passes):
        is_last = position == len(passes) - 1
        made = target if is_last and target.dtype == call.work else _temporary(shape, call.work)
        both = first is not None and second is not None
        width = view[2] if both else min(view[2], _WIDTH)
        values: list[Any] = [source.reshape(-1), np.int64(view[1]), np.int64(view[2])]
        for which in (first, second):
            line = None if which is None else lines[which]
            weights = np.empty(0) if line is None else line.weights
            values += [
                np.ascontiguousarray(weights, call.work),
                np.int64(0 if line is None else line.left),
                np.bool_(line is not None and line.is_symmetric),
                np.int64(0 if which is None else call.modes[which]),
            ]
        values += [call.work.type(call.cval), np.bool_(call.whole), np.int64(width)]
        units = view[0] * view[1] * -(-view[2] // width)
        unit_nbytes = width * call.work.itemsize
        _run(call, ("filters", "separable_rows"), values, made.reshape(-1), units, unit_nbytes)
        if call.whole:
            np.trunc(made, out=made)
        source = made
    if source is not target:
        _store(source, target)


def correlate_taps(call: FilterCall, taps: Array, weights: Array, target: Array) -> None:
    """Correlate with weights at any places."""
    source = _converted(call.source, call.work)
    made = target if target.dtype == call.work else _temporary(source.shape, call.work)
    values = [
        source.reshape(-1),
        np.array(source.shape, np.int64),
        np.ascontiguousarray(taps, np.int64),
        np.ascontiguousarray(weights, call.work),
        np.array(call.modes, np.int64),
        call.work.type(call.cval),
    ]
    rows, columns = _rows_of(source)
    nbytes = columns * source.itemsize * _effort(len(taps))
    _run(call, ("filters", "footprint_rows"), values, made.reshape(-1), rows, nbytes)
    if made is not target:
        _store(made, target)


def rank_taps(call: FilterCall, taps: Array, exchanges: Array, rank: int, target: Array) -> None:
    """The element of a rank among those at some places."""
    source = call.source
    made = target if target.dtype == source.dtype else _temporary(source.shape, source.dtype)
    values = [
        source.reshape(-1),
        np.array(source.shape, np.int64),
        np.ascontiguousarray(taps, np.int64),
        exchanges,
        np.int64(rank),
        np.array(call.modes, np.int64),
        _constant(call.cval, source.dtype),
    ]
    rows, columns = _rows_of(source)
    nbytes = columns * source.itemsize * _effort(len(exchanges))
    _run(call, ("filters", "rank_rows"), values, made.reshape(-1), rows, nbytes)
    if made is not target:
        _store(made, target)


def moving_windows(
    call: FilterCall, kernel: str, windows: Sequence[tuple[int, int]], target: Array, work: np.dtype[Any]
) -> None:
    """Join the elements of a window along each axis in turn; `windows` has length and what lies before, by axis."""
    source, shape = call.source, call.source.shape
    if source.dtype.kind in "biu" and work.kind == "f":
        source = _converted(source, work)  # rather than a kernel for each type of integers
    between = np.dtype(np.float64) if call.whole and work.kind == "f" else target.dtype
    if work == source.dtype:
        between = work
    axes = [axis for axis, (length, _) in enumerate(windows) if length > 1]
    if not axes:
        target[...] = source
        return
    for position, axis in enumerate(axes):
        length, before = windows[axis]
        view = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        made = target if position == len(axes) - 1 and target.dtype == between else _temporary(shape, between)
        move_along(
            call.name, kernel, source.reshape(view), made.reshape(view), length, before, call.modes[axis],
            _constant(call.cval, work), whole=call.whole, options=call.options,
        )  # fmt: skip
        source = made
    if source is not target:
        _store(source, target)


def move_along(
    name: str,
    kernel: str,
    source: Array,
    target: Array,
    length: int,
    before: int,
    mode: int,
    cval: np.generic,
    *,
    whole: bool = False,
    options: Options,
) -> None:
    """One pass of moving windows along the second of three axes."""
    positions, columns, units = tiles(target.shape, length)
    extents = [np.int64(extent) for extent in (source.shape[1], *target.shape[1:])]
    integers = [np.int64(value) for value in (length, before, mode)]
    values: list[Any] = [source.reshape(-1), *extents, *integers, cval, np.int64(positions), np.int64(columns)]
    values.append(np.bool_(whole))
    nbytes = positions * columns * 8
    run_units(name, ("moving", kernel), values, [target.reshape(-1)], units, unit_nbytes=nbytes, options=options)


def tiles(shape: Sequence[int], length: int) -> tuple[int, int, int]:
    """Positions and columns of a tile of moving windows, and how many tiles there are.

    A tile needs `length` positions more than it gives: it is long enough for that not to matter, within reason.
    """
    columns = min(shape[2], max(16, _TILE_ITEMS // (4 * length)))
    positions = min(shape[1], max(_TILE_ITEMS // columns, 2 * length))
    return positions, columns, shape[0] * -(-shape[1] // positions) * -(-shape[2] // columns)


def _run(
    call: FilterCall, home: tuple[str, str], inputs: Sequence[Any], output: Array, units: int, unit_nbytes: int
) -> None:
    run_units(call.name, home, inputs, [output], units, unit_nbytes=unit_nbytes, options=call.options)


def _rows_of(array: Array) -> tuple[int, int]:
    return array.size // array.shape[-1], array.shape[-1]


def _effort(steps: int) -> int:
    """How many bytes' worth of time a byte takes: chunks of dear work are smaller, so that Ctrl-C is seen in time."""
    return max(1, steps // 8)


def _constant(cval: float, dtype: np.dtype[Any]) -> np.generic:
    """The value beyond the edges in an array's own dtype; integers are cut and kept within its range."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        cval = min(max(int(cval), int(limits.min)), int(limits.max))
    value: np.generic = dtype.type(cval)
    return value


def _temporary(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    return new_result(tuple(shape), dtype).view(np.ndarray)


def _converted(array: Array, dtype: np.dtype[Any]) -> Array:
    if array.dtype == dtype:
        return array
    made = _temporary(array.shape, dtype)
    made[...] = array
    return made


def _store(source: Array, target: Array) -> None:
    """Convert temporary results; as integers, so do booleans keep the whole part alone."""
    if target.dtype.kind == "b" and source.dtype.kind == "f":
        np.trunc(source, out=source)
    with np.errstate(invalid="ignore"):
        np.copyto(target, source, casting="unsafe")
