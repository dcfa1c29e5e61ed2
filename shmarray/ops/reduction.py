"""`@reduction`: a fold becomes a kernel that reduces arrays over any axes, with the same bits for any number of
workers."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from shmarray import jit as compiler
from shmarray.configuration import config
from shmarray.engine import (
    Options,
    Plan,
    ReductionShape,
    accumulator_dtype,
    check_output,
    plan_fold,
    plan_reduction,
    run,
    run_part,
)
from shmarray.errors import ShmArrayError
from shmarray.ops.arguments import as_outputs, by_value, positional_arity, reachable, reachable_if_large
from shmarray.ops.kernel import Kernel, count_arguments
from shmarray.ops.questions import ask, first_item
from shmarray.ops.results import new_result, new_shared

__all__ = ["Reduction", "reduction"]

Array = np.ndarray[Any, Any]


class Reduction(Kernel):
    """A kernel made of a fold; made by :func:`reduction`."""

    _keywords = ("axis", "keepdims", "out")

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        *,
        identity: Any,
        combine: Callable[[Any, Any], Any],
        jit: bool,
        precise: bool,
        debug: bool,
    ) -> None:
        super().__init__(function, "reduction", jit=jit, precise=precise, debug=debug)
        if positional_arity(function) != 2:
            raise TypeError(
                f"{self.__name__} must take two arguments, the accumulator and an item. A fold is of one array: make "
                "one of several first, for example with an elementwise kernel"
            )
        if not callable(combine):
            raise TypeError(f"combine must be a function of two accumulators; got {combine!r}")
        if not isinstance(identity, bool | int | float | complex | np.generic):
            raise TypeError(f"identity must be a number, the accumulator to start from; got {identity!r}")
        self._identity, self._combine = identity, combine
        self._combiner: Any = None
        self._accumulators: dict[np.dtype[Any], np.dtype[Any]] = {}

    def __call__(
        self,
        array: Any,
        axis: int | Sequence[int] | None = None,
        *others: Any,
        keepdims: bool = False,
        out: Any = None,
        **options: Any,
    ) -> Any:
        try:
            return self._call(array, axis, others, keepdims, out, self._options(options))
        except ShmArrayError as error:
            error.__traceback__ = None  # what lies between the call and here tells its author nothing
            raise error

    def _call(
        self,
        array: Any,
        axis: int | Sequence[int] | None,
        others: tuple[Any, ...],
        keepdims: bool,
        out: Any,
        checked: Options,
    ) -> Any:
        name = self.__name__
        if others or isinstance(axis, np.ndarray):
            raise TypeError(
                f"{name} folds one array, and what comes behind it is the axis; got {count_arguments(2 + len(others))}."
                f" Make one array of several first, with an elementwise kernel or an operator: {name}(a * b)"
            )
        data = np.asarray(array)
        if data.dtype.hasobject:
            raise TypeError(
                f"{name}: dtype {data.dtype} holds Python objects; convert it, for example with .astype(float)"
            )
        axes = _normal_axes(axis, data.ndim)
        accumulator = self._accumulator(data, checked)
        shape = tuple(extent for i, extent in enumerate(data.shape) if i not in axes)
        kept_shape = tuple(1 if i in axes else extent for i, extent in enumerate(data.shape))
        target = self._check_out(out, kept_shape if keepdims else shape, accumulator, data)
        values = self._reduce(data, axes, accumulator, checked)
        values = values.reshape(kept_shape if keepdims else shape)
        if target is not None:
            target[...] = values
            return out
        if not values.ndim:
            return values[()]
        result = new_result(values.shape, accumulator)
        result[...] = values
        return result

    def _check_out(self, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], data: Array) -> Array | None:
        if out is None:
            return None
        (plain,) = as_outputs(out, 1, shape, (dtype,), name=self.__name__)
        check_output(plain, [data], name=self.__name__)
        return plain

    def _reduce(self, data: Array, axes: tuple[int, ...], accumulator: np.dtype[Any], options: Options) -> Array:
        """The reduced values, flat over the kept elements."""
        how = ReductionShape.of(data.shape, axes)
        if not how.n_kept or not how.n_reduced:
            return np.full(how.n_kept, self._identity, accumulator)
        away = options.workers_alone or not self._jit
        deadline = None if options.timeout is None else time.monotonic() + options.timeout
        (data,) = reachable([data]) if away else reachable_if_large([data])
        shape = (how.n_ranges, how.n_kept)
        partials = self._partials(shape, accumulator, shared=away or data.nbytes >= config.parallel_nbytes)
        run(self._plan("rows" if how.by_rows else "columns", data, partials, how), options)
        if how.n_ranges == 1:
            only: Array = partials[0]
            return only
        # The partials of a kept element stand in one column: fold these with `combine`, in the order of the grid.
        combined = self._partials((1, how.n_kept), accumulator, shared=away)
        if not away:  # on this thread: the work of a microsecond
            partials = np.ascontiguousarray(partials.reshape(shape))
        plan = self._plan("combine", partials, combined, how.down())
        if away:
            run_part(plan, replace(options, progress=False), 0, plan.n_chunks, deadline=deadline)
        else:
            run(plan)
        result: Array = combined[0]
        return result

    def _plan(self, form: str, array: Array, partials: Array, how: ReductionShape) -> Plan:
        """A plan of folding an array, or ("combine") partial results."""
        if self._jit:
            kernel = self._kernel(form, array.dtype, partials.dtype)
            joins = form == "combine" or not self._debug
            return plan_reduction(self.__name__, kernel, array, partials, how, caller_joins=joins)
        fold, combine = self.__wrapped__, self._combine
        functions = by_value((combine if form == "combine" else fold, combine), fold)
        return plan_fold(self.__name__, functions, partials.dtype.type(self._identity), array, partials, how)

    @staticmethod
    def _partials(shape: tuple[int, int], dtype: np.dtype[Any], *, shared: bool) -> Array:
        if not shared:
            return np.empty(shape, dtype)
        return new_shared(shape, dtype).view(np.ndarray)

    # ------------------------------------------------------------------ compilation

    def _key(self) -> Any:
        identity = np.asarray(self._identity)
        return (*super()._key(), compiler.fingerprint(self._combine), (identity.dtype, identity.tobytes()))

    def _compiled_combine(self) -> Any:
        if self._combiner is None:
            self._combiner = compiler.scalar(_as_python(self._combine), precise=self._precise, debug=self._debug)
        return self._combiner

    def _accumulator(self, array: Array, options: Options) -> np.dtype[Any]:
        """The dtype that holds the identity and whatever the fold and `combine` give."""
        if not self._jit:
            fold, item = self.__wrapped__, first_item(array)
            question = partial(accumulator_dtype, self.__name__, fold, self._combine, self._identity, item)
            answer: np.dtype[Any] | str = ask(self.__name__, fold, question, options)
            if isinstance(answer, str):
                raise TypeError(answer)
            return answer
        dtype = self._accumulators.get(array.dtype)
        if dtype is None:
            key = ("reduction accumulator", self._key(), array.dtype)
            dtype = self._accumulators[array.dtype] = compiler.remember(key, lambda: self._infer(array.dtype))
        return dtype

    def _infer(self, item: np.dtype[Any]) -> np.dtype[Any]:
        from numba import types

        from shmarray.ops.item_types import dtype_of, item_type, wrong_result

        name, expected = self.__name__, "a number, the new accumulator"

        def returned(function: Any, what: str, *arguments: np.dtype[Any]) -> np.dtype[Any]:
            kinds = [item_type(argument, name=name) for argument in arguments]
            kind = types.unliteral(compiler.return_type(function, kinds))
            if not isinstance(kind, types.Number | types.Boolean):
                raise wrong_result(kind, name=what, expected=expected)
            return dtype_of(kind, name=what, expected=expected)

        fold, combine = self._compiled(), self._compiled_combine()
        dtype = np.asarray(self._identity).dtype
        for _ in range(8):
            wider = np.result_type(dtype, returned(fold, name, dtype, item))
            wider = np.result_type(wider, returned(combine, f"{name}'s combine", wider, wider))
            if wider == dtype:
                return dtype
            dtype = wider
        raise TypeError(f"{name}: the accumulator's type grows with every step; give an identity of the final type")

    def _kernel(self, form: str, item: np.dtype[Any], accumulator: np.dtype[Any]) -> tuple[int, Any]:
        def driver() -> Any:
            from numba.np.numpy_support import from_dtype

            from shmarray.engine.reduction import make_column_driver, make_row_driver

            fold, combine = self._compiled(), self._compiled_combine()
            types = from_dtype(item), from_dtype(accumulator)
            if form == "rows":
                return make_row_driver(fold, combine, self._identity, *types)
            return make_column_driver(fold if form == "columns" else combine, self._identity, *types)

        return self._code(f"reduction {form}", (item, accumulator), driver)


def _as_python(combine: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Builtins (`operator.add`, `max`, `np.maximum`) inside a function that numba can take."""
    if hasattr(combine, "__code__") or hasattr(combine, "py_func"):
        return combine

    def combined(one: Any, other: Any) -> Any:
        return combine(one, other)

    return combined


def _normal_axes(axis: int | Sequence[int] | None, n_dims: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(n_dims))
    given = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    axes = []
    for one in given:
        one = operator.index(one)
        if not -n_dims <= one < n_dims:
            raise np.exceptions.AxisError(one, n_dims)
        axes.append(one % n_dims)
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis {axis!r} names a dimension twice")
    return tuple(axes)


def reduction(
    function: Callable[[Any, Any], Any] | None = None,
    *,
    identity: Any,
    combine: Callable[[Any, Any], Any],
    jit: bool = True,
    precise: bool = False,
    debug: bool = False,
) -> Any:
    """Make a kernel of a fold.

    The array is cut into a grid that depends on its shape, dtype and the axes alone. Each part is folded from
    `identity` on, and the parts are joined in order; so the bits of the result do not depend on workers, settings or
    machine.

    Parameters
    ----------
    function : callable
        `f(accumulator, item)` gives the new accumulator, a number. The accumulator's dtype is the one that holds
        `identity` and everything that the function gives.
    identity : number
        The accumulator of nothing: `combine(identity, a) == a`. Python's floats are float64, so `-np.inf` over float32
        items makes the result float64: `np.float32(-np.inf)` does not.
    combine : callable
        `combine(a, b)` joins two accumulators, a being of earlier items. It must be associative.
    jit : bool
        False: run both functions as plain Python in the workers. They get NumPy scalars, the accumulator and the item,
        in the order in which a compiled fold takes them; the first item decides on the accumulator's dtype.
    precise : bool
        True: keep the C library's `exp`, `sin`, ... instead of this package's vectorised ones.
    debug : bool
        True: check the bounds of arrays that the function indexes.

    Returns
    -------
    Kernel
        Called as `kernel(array, axis=None, *, keepdims=False, out=None, **keywords)`; see `help(shmarray.Kernel)` for
        the keywords and the errors. It changes nothing but `out`, so `crash_safe` only keeps the caller out of the
        work. Over all axes it gives a NumPy scalar, otherwise a SharedArray.

    Raises
    ------
    TypeError
        When it is no function of two arguments, `combine` is no function, or `identity` no number.

    Examples
    --------
    >>> import operator, shmarray as sa
    >>> @sa.reduction(identity=0.0, combine=operator.add)
    ... def sumsq(acc, x):
    ...     return acc + x * x
    >>> a = sa.array([[1.0, 2.0], [3.0, 4.0]])
    >>> float(sumsq(a)), sumsq(a, axis=0)
    (30.0, SharedArray([10., 20.]))
    """
    facts = {"identity": identity, "combine": combine, "jit": jit, "precise": precise, "debug": debug}
    if function is None:
        return lambda function: Reduction(function, **facts)
    return Reduction(function, **facts)
