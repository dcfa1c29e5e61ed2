"""Plans of algorithms that go in steps: each step is a number of tasks, and a task is a call of one compiled loop.

The loop takes the task's number and whole arrays, and works out for itself which part of them the task is about: so
sorting, scans and histograms are written as loops over plain arrays (`shmarray.kernels`). No numba here.

Invariant: a task may be done again from its beginning (a worker died in it), so what it reads is nothing that it
writes, unless `in_place` says so.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from shmarray.engine.execution import Plan
from shmarray.engine.job import BlockJob
from shmarray.engine.operands import Array, Operand

__all__ = [
    "Argument",
    "Kind",
    "kind_of",
    "plan_step",
]

Argument = Array | int | float

#: What code is compiled for: "int", "float", or (dtype, dimensions, whether items lie side by side in C order).
Kind = str | tuple[np.dtype[Any], int, bool]


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
