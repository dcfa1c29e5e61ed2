"""`@elementwise`: a scalar function becomes a broadcasting, chunked, fused kernel over arrays."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from shmarray import jit as compiler
from shmarray.array import SharedArray
from shmarray.chunks import ChunkGrid
from shmarray.engine import (
    Options,
    Plan,
    check_output,
    default_chunks,
    item_dtypes,
    plan_elementwise,
    plan_items,
    run,
    run_crash_safe,
)
from shmarray.errors import ShmArrayError
from shmarray.ops.arguments import (
    as_outputs,
    as_scalar_or_array,
    broadcast_shape,
    by_value,
    chunks_for,
    positional_arity,
    reachable,
    reachable_if_large,
)
from shmarray.ops.kernel import Kernel
from shmarray.ops.plans import PlanMemory
from shmarray.ops.questions import ask, first_item
from shmarray.ops.results import new_result

__all__ = ["Elementwise", "elementwise"]

Array = np.ndarray[Any, Any]
#: Of each argument: dtype, and whether it is one value for all.
Signature = tuple[tuple[np.dtype[Any], bool], ...]


class Elementwise(Kernel):
    """A kernel made of a scalar function; made by :func:`elementwise`."""

    def __init__(self, function: Callable[..., Any], *, jit: bool, precise: bool, debug: bool) -> None:
        super().__init__(function, "elementwise", jit=jit, precise=precise, debug=debug)
        self._arity = positional_arity(function)
        self._results: dict[Signature, tuple[np.dtype[Any], ...]] = {}
        self._plans = PlanMemory()

    def __call__(self, *args: Any, out: Any = None, **options: Any) -> Any:
        try:
            if not options:
                plan = self._plans.find((*args, out))
                if plan is not None:
                    run(plan)
                    return out
            return self._call(args, out, self._options(options))
        except ShmArrayError as error:
            error.__traceback__ = None  # what lies between the call and here tells its author nothing
            raise error

    def _call(self, args: tuple[Any, ...], out: Any, options: Options) -> Any:
        name = self.__name__
        self._check_arity(len(args), self._arity)
        inputs = as_scalar_or_array(args, name=name)
        arrays = [value for value in inputs if isinstance(value, np.ndarray)]
        shape = broadcast_shape([value.shape for value in arrays], name=name)
        signature = tuple((value.dtype, not isinstance(value, np.ndarray)) for value in inputs)
        dtypes = self._result_dtypes(signature, inputs, out, options)
        outputs = as_outputs(out, len(dtypes), shape, dtypes, name=name)
        checked = [check_output(output, arrays, name=name) for output in outputs]  # each of them is looked at
        in_place = any(checked)
        for position, output in enumerate(outputs):
            if any(np.shares_memory(output, other) for other in outputs[:position]):
                raise ValueError(f"{name}: two outputs share memory; give each an array of its own")
        results = [] if outputs else [new_result(shape, dtype) for dtype in dtypes]
        outputs = outputs or [result.view(np.ndarray) for result in results]
        chunks = chunks_for(shape, [*(out if isinstance(out, tuple) else (out,)), *args])
        joins = self._jit and not self._debug and not options.workers_alone
        operands = reachable_if_large(inputs) if joins else reachable(inputs)
        targets = outputs if joins else reachable(outputs)
        if options.crash_safe and out is not None and targets[0].size:
            grid = ChunkGrid(shape, default_chunks(targets[0]) if chunks is None else chunks)
            run_crash_safe(
                name, grid, targets, lambda scratch: self._plan(signature, operands, scratch, grid.chunks), options
            )
        else:
            plan = self._plan(signature, operands, targets, chunks, in_place=in_place)
            run(plan, options)
            if isinstance(out, SharedArray) and all(map(operator.is_, (*operands, *targets), (*inputs, *outputs))):
                self._plans.keep((*args, out), plan)
        for output, target in zip(outputs, targets, strict=True):
            if target is not output:  # a private output: workers wrote to a copy
                output[...] = target
        if out is not None:
            return out
        given: list[Any] = results if shape else [result[()] for result in results]  # scalars, as of NumPy's ufuncs
        return given[0] if len(given) == 1 else tuple(given)

    def _plan(
        self,
        signature: Signature,
        inputs: Sequence[Any],
        outputs: Sequence[Array],
        chunks: tuple[int, ...] | None,
        *,
        in_place: bool = False,
    ) -> Plan:
        if not self._jit:
            function = by_value(self.__wrapped__)
            return plan_items(self.__name__, function, inputs, outputs, chunks=chunks, in_place=in_place)
        kernel = self._kernel(signature, tuple(output.dtype for output in outputs))
        return plan_elementwise(
            self.__name__, kernel, inputs, outputs, chunks=chunks, in_place=in_place, caller_joins=not self._debug
        )

    # ------------------------------------------------------------------ compilation

    def _result_dtypes(
        self, signature: Signature, inputs: Sequence[Any], out: Any, options: Options
    ) -> tuple[np.dtype[Any], ...]:
        if not self._jit:
            given = out if isinstance(out, tuple) else (out,)
            if all(isinstance(array, SharedArray) for array in given):
                return tuple(array.dtype for array in given)
            return self._try_out(inputs, options)
        dtypes = self._results.get(signature)
        if dtypes is None:
            key = ("elementwise results", self._key(), signature)
            dtypes = self._results[signature] = compiler.remember(key, lambda: self._infer(signature))
        return dtypes

    def _infer(self, signature: Signature) -> tuple[np.dtype[Any], ...]:
        from numba import types

        from shmarray.ops.item_types import dtype_of, item_type, wrong_result

        name, expected = self.__name__, "a number, or a tuple of numbers, for each item"
        result = compiler.return_type(self._compiled(), [item_type(dtype, name=name) for dtype, _ in signature])
        kinds = tuple(result) if isinstance(result, types.BaseTuple) else (result,)
        if not kinds:
            raise wrong_result(result, name=name, expected=expected)
        if any(isinstance(kind, types.Array) for kind in kinds):
            expected += " (functions of whole arrays are for shmarray.chunkwise)"
        return tuple(dtype_of(kind, name=name, expected=expected) for kind in kinds)

    def _try_out(self, inputs: Sequence[Any], options: Options) -> tuple[np.dtype[Any], ...]:
        """The dtypes of plain Python's results, from the first items (ones where there is none)."""
        # As Python's own numbers, which is what the function gets of all the others.
        items = [np.asarray(first_item(value)).astype(object)[()] for value in inputs]
        question = partial(item_dtypes, self.__wrapped__, items)
        dtypes: tuple[np.dtype[Any], ...] = ask(self.__name__, self.__wrapped__, question, options)
        if not dtypes or any(dtype.hasobject for dtype in dtypes):
            raise TypeError(
                f"{self.__name__} must return a number, or a tuple of numbers, for each item; it returns nothing "
                "(None), or what no array holds"
            )
        return dtypes

    def _kernel(self, signature: Signature, outputs: tuple[np.dtype[Any], ...]) -> tuple[int, Any]:
        def driver() -> Any:
            from numba.np.numpy_support import from_dtype

            from shmarray.engine.elementwise import make_driver

            inputs = [(from_dtype(dtype), constant) for dtype, constant in signature]
            return make_driver(self._compiled(), inputs, [from_dtype(dtype) for dtype in outputs])

        return self._code("elementwise", (signature, outputs), driver)


def elementwise(
    function: Callable[..., Any] | None = None, *, jit: bool = True, precise: bool = False, debug: bool = False
) -> Any:
    """Make a kernel of a function of scalars.

    The kernel broadcasts its arguments as a ufunc does, applies the function to each item, and writes one array, or as
    many as the function returns values. All of it is one loop: no temporary array is made.

    Parameters
    ----------
    function : callable
        Takes and returns scalars. numba must be able to compile it: arithmetic, `math` and NumPy functions, branches,
        loops, other functions, jitted or not.
    jit : bool
        False: run the function as plain Python in the workers, item by item.
    precise : bool
        True: keep the C library's `exp`, `sin`, ... instead of this package's vectorised ones.
    debug : bool
        True: check the bounds of arrays that the function indexes.

    Returns
    -------
    Kernel
        Called as `kernel(*arrays, out=None, **keywords)`; see `help(shmarray.Kernel)` for the keywords and the errors.
        Plain arrays are copied in; scalars are one value for all items. `out` may be an argument itself (in place).
        The dtype of a result is what numba makes of the function: a constant beside a float32 gives a float64 (see
        docs/kernels.md). Of scalars and arrays without dimensions alone it gives scalars, as NumPy's ufuncs do.

    Raises
    ------
    TypeError
        When it is no function of a fixed number of arguments.

    Examples
    --------
    >>> import numpy as np, shmarray as sa
    >>> @sa.elementwise
    ... def axpy(a, x, y):
    ...     return a * x + y
    >>> axpy(2.0, sa.array([1.0, 2.0]), sa.array([10.0, 20.0]))
    SharedArray([12., 24.])
    """
    if function is None:
        return lambda function: Elementwise(function, jit=jit, precise=precise, debug=debug)
    return Elementwise(function, jit=jit, precise=precise, debug=debug)
