"""Plans of ready-made loops: a step is a number of tasks, and a task is a call of one compiled loop.

The loop takes whole arrays and scalars, and before them what its task is: a number, or the first and the last unit of
work (rows, blocks of columns; what a unit is, is the loop's affair). So sorting, scans, histograms, filters and random
numbers are written as loops over plain arrays (`shmarray.kernels`). No numba here.

Invariant: a task may be done again from its beginning (a worker died in it), so what it reads is nothing that it
writes, unless `in_place` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shmarray.engine.job import BlockJob
from shmarray.engine.operands import Array, Operand
from shmarray.engine.plan import Plan
from shmarray.engine.reduction_grid import BLOCK_ITEMS_BY_ROWS

__all__ = ["BLOCK_ITEMS_BY_ROWS", "Argument", "Kind", "kind_of", "plan_step"]

Argument = Array | np.generic | int | float

#: What code is compiled for: dtype, dimensions (None for a scalar), and whether items lie side by side in C order.
Kind = tuple[np.dtype[Any], int | None, bool]


def kind_of(argument: Argument) -> Kind:
    """What a task's code must know of an argument.

    Examples
    --------
    >>> kind_of(3), kind_of(np.zeros((2, 3))[:, ::2])
    ((dtype('int64'), None, True), (dtype('float64'), 2, False))
    """
    if isinstance(argument, np.ndarray):
        return argument.dtype, argument.ndim, argument.flags.c_contiguous
    return _scalar(argument).dtype, None, True


def _scalar(argument: np.generic | int | float) -> np.generic:
    if isinstance(argument, np.generic):
        return argument
    return np.int64(argument) if isinstance(argument, int) else np.float64(argument)


def plan_step(
    name: str,
    kernel: tuple[int, Any],
    arguments: Sequence[Argument],
    n_tasks: int,
    *,
    in_place: bool = False,
    units: tuple[int, int] | None = None,
) -> Plan:
    """A plan of `n_tasks` calls of a loop (`shmarray.engine.step_driver`).

    Parameters
    ----------
    name : str
        For messages.
    kernel : (int, jit.Code)
        The driver's code, compiled for the kinds of these arguments.
    arguments : sequence of ndarray or scalar
        What the loop takes behind its task.
    n_tasks : int
    in_place : bool
        A task writes what it reads.
    units : (int, int), optional
        Units of work in all, and of one task, for a loop that takes the first and the last.
    """
    operands: list[Operand] = []
    places: list[tuple[int, Any]] = []
    words: list[int] = list(units or ())
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            operand = Operand.of(argument)
            operands.append(operand)
            places.append((len(words), operand.place))
            words += [0, *argument.shape, *argument.strides]
        else:
            data = _scalar(argument).tobytes()
            words += np.frombuffer(data.ljust(-(-len(data) // 8) * 8, b"\0"), np.int64).tolist()
    job = BlockJob(kernel[0], np.array(words, np.int64).tobytes(), tuple(places))
    return Plan(name, n_tasks, job, operands, in_place=in_place, caller_joins=True, kernels=[kernel])
