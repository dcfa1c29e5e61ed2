"""Plans of algorithms that go in steps: each step is a number of tasks, and a task is a call of one compiled loop.

The loop takes the task's number and whole arrays, and works out for itself which part of them the task is about: so
sorting, scans and histograms are written as loops over plain arrays (`shmarray.kernels`). No numba here.

Invariant: a task may be done again from its beginning (a worker died in it), so what it reads is nothing that it
writes, unless `in_place` says so.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shmarray.engine.execution import Plan
from shmarray.engine.job import BlockJob
from shmarray.engine.operands import Array, Operand
from shmarray.engine.planning import ReductionShape, joined_dimensions

__all__ = [
    "BLOCK_ITEMS_BY_COLUMNS",
    "BLOCK_ITEMS_BY_ROWS",
    "Argument",
    "Kind",
    "block_shape",
    "kind_of",
    "plan_block_reduction",
    "plan_step",
]

Argument = Array | int | float

#: What code is compiled for: "int", "float", or (dtype, dimensions, whether items lie side by side in C order).
Kind = str | tuple[np.dtype[Any], int, bool]


#: Items of one block, by whether the last axis is reduced. Part of what a result's bits depend on: changing them
#: changes results.
BLOCK_ITEMS_BY_ROWS = 8192
BLOCK_ITEMS_BY_COLUMNS = 512


def block_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> ReductionShape:
    """How an array is reduced block by block: as by folds, but columns are cut into whole blocks."""
    how = ReductionShape.of(shape, axes)
    if how.by_rows:
        return how
    kept_step = min(how.kept_step, _COLUMNS)
    return replace(how, kept_step=kept_step, reduced_step=how.kept_step * how.reduced_step // kept_step)


#: Kept elements of a chunk where the last axis is kept. Part of what a result's bits depend on.
_COLUMNS = 128


def kind_of(argument: Argument) -> Kind:
    """What a task's code must know of an argument.

    Examples
    --------
    >>> kind_of(3), kind_of(np.zeros((2, 3))[:, ::2])
    ('int', (dtype('float64'), 2, False))
    """
    if isinstance(argument, np.ndarray):
        return argument.dtype, argument.ndim, argument.flags.c_contiguous
    return "int" if isinstance(argument, int) else "float"


def plan_step(
    name: str, kernel: tuple[int, Any], arguments: Sequence[Argument], n_tasks: int, *, in_place: bool = False
) -> Plan:
    """A plan of `n_tasks` calls of a loop (`shmarray.engine.step_driver`).

    Parameters
    ----------
    name : str
        For messages.
    kernel : (int, jit.Code)
        The driver's code, compiled for the kinds of these arguments.
    arguments : sequence of ndarray, int or float
        What the loop takes behind the task's number.
    n_tasks : int
    in_place : bool
        A task writes what it reads.
    """
    operands: list[Operand] = []
    places: list[tuple[int, Any]] = []
    words: list[int] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            operand = Operand.of(argument)
            operands.append(operand)
            places.append((len(words), operand.place))
            words += [0, *argument.shape, *argument.strides]
        elif isinstance(argument, int):
            words.append(argument)
        else:
            words.append(struct.unpack("<q", struct.pack("<d", argument))[0])
    job = BlockJob(kernel[0], np.array(words, np.int64).tobytes(), tuple(places))
    nbytes = max(operand.array.nbytes for operand in operands)
    return Plan(name, n_tasks, nbytes, job, operands, in_place=in_place, caller_joins=True, kernels=[kernel])


def plan_block_reduction(
    name: str, kernel: tuple[int, Any], array: Array, partials: Array, how: ReductionShape
) -> Plan:
    """A plan that reduces an array block by block (`shmarray.engine.block_reduction`).

    `partials` has the shape (how.n_ranges, how.n_kept, words of a state) and is C-contiguous.
    """
    operands = [Operand.of(array), Operand.of(partials)]
    kept, reduced = joined_dimensions(array, how.kept), joined_dimensions(array, how.reduced)
    words = [how.n_kept, how.kept_step, how.n_reduced, how.reduced_step, 0, len(kept), len(reduced), 0]
    for extent, stride in (*kept, *reduced):
        words += [extent, stride]
    words.append(BLOCK_ITEMS_BY_ROWS if how.by_rows else BLOCK_ITEMS_BY_COLUMNS)
    places = ((4, operands[1].place), (7, operands[0].place))
    job = BlockJob(kernel[0], np.array(words, np.int64).tobytes(), places)
    return Plan(name, how.n_chunks, array.nbytes, job, operands, in_place=False, caller_joins=True, kernels=[kernel])
