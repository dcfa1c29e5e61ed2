"""Folds in plain Python (`reduction(jit=False)`): the grid and the order of compiled folds, in the workers alone.

Invariant: items and accumulators are NumPy scalars of the dtypes that a compiled fold has, and are taken in the very
order in which that takes them (`shmarray.engine.reduction`). So the bits do not depend on the number of workers, and
are those of the compiled fold wherever the function's own arithmetic is.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from shmarray.engine.job import Binder
from shmarray.engine.operands import Array, Operand
from shmarray.engine.plan import Plan
from shmarray.engine.python_job import RANKS, ArraySpec, claiming
from shmarray.engine.reduction_grid import STRIPES, STRIPES_FROM, ReductionShape, fold_block, is_striped
from shmarray.pool import Lane

__all__ = ["FoldJob", "accumulator_dtype", "plan_fold"]


@dataclass(frozen=True, slots=True)
class FoldJob:
    """A fold in plain Python: each chunk of the grid becomes a row's part of the partial results.

    Attributes
    ----------
    functions : bytes
        The fold and `combine`, pickled together.
    identity : NumPy scalar
        Of the accumulator's dtype.
    array, partials : ArraySpec
        `partials` has the shape (how.n_ranges, how.n_kept).
    """

    runs_python: ClassVar[bool] = True

    name: str
    functions: bytes
    identity: Any
    array: ArraySpec
    partials: ArraySpec
    how: ReductionShape

    def bind(self, binder: Binder) -> Callable[[Lane, int], int]:
        how = self.how
        array = self.array.view(binder).transpose(how.kept + how.reduced)
        partials = self.partials.view(binder)
        kept_shape = array.shape[: len(how.kept)]
        n_columns = -(-how.n_kept // how.kept_step)

        def prepare() -> Callable[[int], None]:
            fold, combine = pickle.loads(self.functions)
            chain = _Chain(self.name, fold, combine, self.identity)

            def do(index: int) -> None:
                row, column = divmod(index, n_columns)
                first, stop = row * how.reduced_step, min(how.n_reduced, (row + 1) * how.reduced_step)
                with np.errstate(all="ignore"):  # as compiled code has it: inf, nan, and whole numbers that wrap
                    for kept in range(column * how.kept_step, min(how.n_kept, (column + 1) * how.kept_step)):
                        place: Any = (*np.unravel_index(kept, kept_shape), ...)
                        items = array[place].flat[first:stop]
                        partials[row, kept] = chain.by_rows(items) if how.by_rows else chain.straight(items)

            return do

        return claiming(prepare)


class _Chain:
    """Items folded one after another."""

    def __init__(self, name: str, fold: Callable[..., Any], combine: Callable[..., Any], identity: Any) -> None:
        self._name, self._fold, self._combine, self._identity = name, fold, combine, identity
        self._type = type(identity)
        self._striped = is_striped(identity.dtype)

    def straight(self, items: Iterable[Any], accumulator: Any = None) -> Any:
        accumulator = self._identity if accumulator is None else accumulator
        for item in items:
            accumulator = self._held(self._fold(accumulator, item))
        return accumulator

    def by_rows(self, items: Array) -> Any:
        accumulator = self._identity
        step = fold_block(items.itemsize) if self._striped else max(1, items.size)
        for first in range(0, items.size, step):
            block = items[first : first + step]
            if self._striped and block.size >= STRIPES_FROM:
                m = block.size // STRIPES
                stripes = [self.straight(block[k * m : (k + 1) * m]) for k in range(STRIPES)]
                while len(stripes) > 1:
                    stripes = [self._join(*stripes[k : k + 2]) for k in range(0, len(stripes), 2)]
                accumulator, block = self._join(accumulator, stripes[0]), block[STRIPES * m :]
            accumulator = self.straight(block, accumulator)
        return accumulator

    def _join(self, one: Any, other: Any) -> Any:
        return self._held(self._combine(one, other))

    def _held(self, value: Any) -> Any:
        """The value as an accumulator, unless that cannot hold its kind."""
        if type(value) is self._type:
            return value
        found, dtype = np.asarray(value), self._identity.dtype
        if found.ndim or RANKS.get(found.dtype.kind, 9) > RANKS[dtype.kind]:
            raise TypeError(
                f"{self._name} returned {_kind_of(value)} for some items, which an accumulator of {dtype} cannot hold; "
                "its first result says what the others are: let it return one kind, or give an identity of the widest"
            )
        return self._type(value)


class _NoAccumulatorError(TypeError):
    """What a function returned is no accumulator."""


def accumulator_dtype(
    name: str, fold: Callable[..., Any], combine: Callable[..., Any], identity: Any, item: Any
) -> np.dtype[Any] | str:
    """A question: the dtype that holds the identity and what the functions return for such an item.

    Or the reason why there is none: an exception of the functions' own is none of the caller's arguments' fault.
    """

    def returned(value: Any, who: str) -> np.dtype[Any]:
        dtype = np.asarray(value).dtype
        if dtype.kind not in RANKS or np.ndim(value):
            raise _NoAccumulatorError(f"{who} must return a number, the new accumulator; it returned {_kind_of(value)}")
        return dtype

    dtype = np.asarray(identity).dtype
    try:
        with np.errstate(all="ignore"):
            for _ in range(8):
                folded = fold(dtype.type(identity), item)
                wider = np.result_type(dtype, returned(folded, name))
                one = wider.type(folded)
                wider = np.result_type(wider, returned(combine(one, one), f"{name}'s combine"))
                if wider == dtype:
                    return dtype
                dtype = wider
    except _NoAccumulatorError as error:
        return str(error)
    return f"{name}: the accumulator's type grows with every step; give an identity of the final type"


def _kind_of(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "nothing (None)"
    return str(value.dtype) if isinstance(value, np.generic) else f"a {type(value).__name__}"


def plan_fold(
    name: str, functions: bytes, identity: np.generic, array: Array, partials: Array, how: ReductionShape
) -> Plan:
    """A plan that folds an array by a pickled function, in the workers alone; see `FoldJob`."""
    operands: Sequence[Operand] = [Operand.of(array), Operand.of(partials)]
    source, target = (
        ArraySpec.of(operand, operand.array.shape, writable=operand is operands[1]) for operand in operands
    )
    job = FoldJob(name, functions, identity, source, target, how)
    return Plan(name, how.n_chunks, job, operands, in_place=False, caller_joins=False)
