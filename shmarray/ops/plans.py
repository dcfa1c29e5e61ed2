"""Plans of calls that may come again with the same arrays: the hot path of kernels.

Invariant: a plan is found only for the very arrays it was made for, with nothing about them changed; and remembering
never keeps an array alive.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from shmarray.array import SharedArray
from shmarray.engine import Plan

__all__ = ["PlanMemory"]

_REMEMBERED = 64


#: An array, and what of it can be changed in place: its shape, strides, dtype, and whether it is writeable.
_Known = tuple[weakref.ref[np.ndarray[Any, Any]], tuple[int, ...], tuple[int, ...], np.dtype[Any], bool]


class _Remembered(NamedTuple):
    arrays: tuple[_Known, ...]
    plan: Plan


class PlanMemory:
    """The last plans of a kernel."""

    __slots__ = ("_plans",)

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[int, ...], _Remembered] = OrderedDict()

    def find(self, arguments: tuple[Any, ...]) -> Plan | None:
        """The plan of a call with these arguments; identity decides."""
        remembered = self._plans.get(tuple(map(id, arguments)))
        if remembered is None:
            return None
        for (reference, shape, strides, dtype, writeable), array in zip(remembered.arrays, arguments, strict=True):
            alive: Any = reference()
            if (
                alive is not array
                or array.shape != shape
                or array.strides != strides
                or array.dtype is not dtype
                or array.flags.writeable is not writeable
            ):
                return None
        return remembered.plan

    def keep(self, arrays: Sequence[Any], plan: Plan) -> None:
        """Remember a plan, if it can be run again: all its memory is that of these arguments."""
        if plan.private or not all(isinstance(array, SharedArray) and array.ndim for array in arrays):
            return
        known = tuple(
            (weakref.ref(array), array.shape, array.strides, array.dtype, array.flags.writeable) for array in arrays
        )
        self._plans[tuple(map(id, arrays))] = _Remembered(known, plan)
        if len(self._plans) > _REMEMBERED:
            self._plans.popitem(last=False)
