"""`@elementwise`: a scalar function becomes a broadcasting, chunked, fused kernel over arrays."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shmarray import jit as compiler
from shmarray import registry
from shmarray.array import SharedArray
from shmarray.chunks import ChunkGrid
from shmarray.engine import (
    FirstItemJob,
    Options,
    Plan,
    check_output,
    default_chunks,
    plan_elementwise,
    plan_first_item,
    plan_items,
    run,
    run_crash_safe,
)
from shmarray.ops.arguments import (
    as_outputs,
    as_scalar_or_array,
    broadcast_shape,
    by_value,
    chunks_for,
    plain_function,
    positional_arity,
    reachable,
    reachable_if_large,
)
from shmarray.ops.plans import PlanMemory
from shmarray.ops.results import new_result
from shmarray.pool import new_number

__all__ = ["Elementwise", "elementwise"]

Array = np.ndarray[Any, Any]
#: Of each argument: dtype, and whether it is one value for all.
Signature = tuple[tuple[np.dtype[Any], bool], ...]


class Elementwise:
    """A kernel made of a scalar function; made by :func:`elementwise`."""

    def __init__(self, function: Callable[..., Any], *, jit: bool, precise: bool, debug: bool) -> None:
        self.__wrapped__ = plain_function(function, decorator="elementwise", jit=jit)
        self.__name__ = getattr(function, "__name__", "kernel")
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self._arity = positional_arity(function)
        self._jit, self._precise, self._debug = jit, precise, debug
        self._scalar: Any = None
        self._results: dict[Signature, tuple[np.dtype[Any], ...]] = {}
        self._kernels: dict[Any, tuple[int, Any]] = {}
        self._plans = PlanMemory()

    def __repr__(self) -> str:
        return f"<elementwise kernel {self.__name__}>"

    def __call__(self, *args: Any, out: Any = None, **options: Any) -> Any:
        if not options:
            plan = self._plans.find((*args, out))
            if plan is not None:
                run(plan)
                return out
        return self._call(args, out, Options.of(self.__name__, options))

    def _call(self, args: tuple[Any, ...], out: Any, options: Options) -> Any:
        name = self.__name__
        if len(args) != self._arity:
            raise TypeError(f"{name} takes {self._arity} arguments; got {len(args)}")
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
        return results[0] if len(results) == 1 else tuple(results)

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

        from shmarray.ops.item_types import dtype_of, item_type

        name = self.__name__
        result = compiler.return_type(self._function(), [item_type(dtype, name=name) for dtype, _ in signature])
        kinds = tuple(result) if isinstance(result, types.BaseTuple) else (result,)
        if not kinds or any(isinstance(kind, types.NoneType) for kind in kinds):
            raise TypeError(f"{name} must return a value, or a tuple of values, for each item; it returns {result}")
        return tuple(dtype_of(kind, name=name) for kind in kinds)

    def _try_out(self, inputs: Sequence[Any], options: Options) -> tuple[np.dtype[Any], ...]:
        """The dtypes of plain Python's results, from the first items (ones where there is none)."""
        items = [
            np.array([value.flat[0]] if isinstance(value, np.ndarray) and value.size else [value.dtype.type(1)])
            if isinstance(value, np.ndarray)
            else np.array([value])
            for value in inputs
        ]
        scratch = np.asarray(registry.create(FirstItemJob.scratch_nbytes, np.dtype(np.uint8)))
        run(plan_first_item(self.__name__, by_value(self.__wrapped__), items, scratch, 1), options)
        return FirstItemJob.read(scratch)

    def _kernel(self, signature: Signature, outputs: tuple[np.dtype[Any], ...]) -> tuple[int, Any]:
        kernel = self._kernels.get((signature, outputs))
        if kernel is None:

            def driver() -> Any:
                from numba.np.numpy_support import from_dtype

                from shmarray.engine.elementwise import make_driver

                inputs = [(from_dtype(dtype), constant) for dtype, constant in signature]
                return make_driver(self._function(), inputs, [from_dtype(dtype) for dtype in outputs])

            key = ("elementwise", self._key(), signature, outputs)
            code = compiler.compile(driver, (int,) * 4, key=key, debug=self._debug)
            kernel = self._kernels[signature, outputs] = (new_number(), code)
        return kernel

    def _key(self) -> Any:
        return (compiler.fingerprint(self.__wrapped__), self._precise, self._debug)

    def _function(self) -> Any:
        if self._scalar is None:
            self._scalar = compiler.scalar(self.__wrapped__, precise=self._precise, debug=self._debug)
        return self._scalar


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
    callable
        `kernel(*arrays, out=None, pool=None, progress=False, timeout=None, retries=2, crash_safe=False)`. `out` is a
        SharedArray (a tuple of them for several results); it may be an argument itself (in place) but must not overlap
        one otherwise. With `crash_safe=True` each chunk of `out` is computed once or not at all, whatever dies
        (docs/reliability_exactly_once.md).

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
