"""`@stencil`: a function of an element's neighbours becomes a chunked kernel, with scipy.ndimage's boundary modes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from shmarray import jit as compiler
from shmarray.chunks import ChunkGrid
from shmarray.engine import (
    Options,
    Plan,
    check_output,
    default_chunks,
    item_dtypes,
    plan_stencil,
    run,
    run_crash_safe,
    shared_copy,
)
from shmarray.errors import ShmArrayError
from shmarray.ops.arguments import (
    as_outputs,
    as_scalar_or_array,
    broadcast_shape,
    chunks_for,
    positional_arity,
    reachable,
    reachable_if_large,
)
from shmarray.ops.borders import boundary_modes, constant_of, halo_of
from shmarray.ops.kernel import Kernel
from shmarray.ops.plans import PlanMemory
from shmarray.ops.questions import ask, first_item
from shmarray.ops.results import new_result

__all__ = ["Stencil", "stencil"]

Array = np.ndarray[Any, Any]
#: Of each argument: dtype, and whether it is one value for all.
Signature = tuple[tuple[np.dtype[Any], bool], ...]


class Stencil(Kernel):
    """A kernel made of a function of windows; made by :func:`stencil`."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        halo: int | Sequence[int],
        mode: str | Sequence[str],
        cval: Any,
        jit: bool,
        precise: bool,
        debug: bool,
    ) -> None:
        super().__init__(function, "stencil", jit=jit, precise=precise, debug=debug)
        self._arity = positional_arity(function)
        # What can be checked without knowing the number of dimensions is checked now.
        halo_of(halo, None, name=self.__name__)
        boundary_modes(mode, None, name=self.__name__)
        self._halo, self._mode, self._cval = halo, mode, cval
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
        if not arrays:
            raise TypeError(f"{name} needs at least one array with dimensions")
        shape = broadcast_shape([array.shape for array in arrays], name=name)
        halo = halo_of(self._halo, len(shape), name=name)
        modes = boundary_modes(self._mode, len(shape), name=name)
        cvals = [constant_of(self._cval, array.dtype, name=name) for array in arrays]
        signature = tuple((value.dtype, not isinstance(value, np.ndarray)) for value in inputs)
        if self._jit:
            dtype, is_safe = self._facts(signature, halo)
        else:
            dtype, is_safe = self._try_out(inputs, options), False
        outputs = as_outputs(out, 1, shape, (dtype,), name=name)
        result = new_result(shape, dtype) if out is None else None
        output = outputs[0] if result is None else result.view(np.ndarray)
        in_place = check_output(output, arrays, name=name)
        if output.size == 0:
            return result if out is None else out
        chunks = chunks_for(shape, [out, *args])
        joins = is_safe and not options.workers_alone
        reach = reachable_if_large if joins else reachable
        is_packed = output.strides[-1] == output.itemsize or shape[-1] == 1
        crash_safe = options.crash_safe and out is not None
        if crash_safe and not is_packed:
            raise ValueError(f"{name}: with crash_safe=True, out must be contiguous along its last dimension")
        # Rows of the output must be contiguous.
        (target,) = reach([output if is_packed else new_result(shape, output.dtype).view(np.ndarray)])
        seen = reach(inputs)
        if in_place and not crash_safe:
            # The old values are what windows show, so an input that is the output is read from a copy of it.
            overlapping = [isinstance(value, np.ndarray) and np.shares_memory(value, target) for value in seen]
            seen = [shared_copy(v).array if overlaps else v for v, overlaps in zip(seen, overlapping, strict=True)]
        grid = ChunkGrid(shape, default_chunks(target) if chunks is None else chunks)
        copies: list[Any] = []  # what a plan for plain Python has copied must live until it has run

        def make_plan(target: Array) -> Plan:
            if self._jit:
                kernel = self._kernel(signature, target.dtype, halo)
                return plan_stencil(name, kernel, seen, target, grid, halo, modes, cvals, caller_joins=joins)
            from shmarray.ops.python_stencil import plan_python_stencil

            plan, copied = plan_python_stencil(name, self.__wrapped__, seen, target, grid, halo, modes, cvals)
            copies.append(copied)
            return plan

        if crash_safe:
            # Results go to a scratch until all are there, if they go to what windows show.
            run_crash_safe(name, grid, [target], lambda scratch: make_plan(scratch[0]), options, whole=in_place)
        else:
            plan = make_plan(target)
            run(plan, options)
            if self._jit and all(map(operator.is_, (*seen, target), (*inputs, output))) and out is not None:
                self._plans.keep((*args, out), plan)
        if target is not output:
            output[...] = target
        return result if out is None else out

    # ------------------------------------------------------------------ compilation

    def _numba_types(self, signature: Signature, halo: tuple[int, ...]) -> list[Any]:
        from shmarray.engine.windows import WindowType
        from shmarray.ops.item_types import item_type

        items = [item_type(dtype, name=self.__name__) for dtype, _ in signature]
        return [
            item if is_scalar else WindowType(item, halo, debug=self._debug)
            for item, (_, is_scalar) in zip(items, signature, strict=True)
        ]

    def _facts(self, signature: Signature, halo: tuple[int, ...]) -> tuple[np.dtype[Any], bool]:
        """The result's dtype, and whether all indices are known to be within the halo."""

        def infer() -> tuple[np.dtype[Any], bool]:
            from numba import types

            from shmarray.jit.forks import compiling
            from shmarray.ops.item_types import dtype_of, wrong_result

            kinds = self._numba_types(signature, halo)
            windows = [kind for kind in kinds if hasattr(kind, "free")]
            # A window's type takes notes while the function is compiled. The compiler's lock, which forks wait for.
            with compiling:
                for window in windows:
                    window.free = False
                result = compiler.compiled_return_type(self._compiled(), kinds)
                is_safe = not self._debug and not any(window.free for window in windows)
            expected = "one number for each element"
            if isinstance(result, types.BaseTuple):
                raise wrong_result(result, name=self.__name__, expected=expected)
            return dtype_of(result, name=self.__name__, expected=expected), is_safe

        return compiler.remember(("stencil facts", self._key(), signature, halo), infer)

    def _kernel(self, signature: Signature, output: np.dtype[Any], halo: tuple[int, ...]) -> tuple[int, Any]:
        def driver() -> Any:
            from numba.np.numpy_support import from_dtype

            from shmarray.engine.stencil import make_driver

            kinds = self._numba_types(signature, halo)
            n_arrays = sum(not is_scalar for _, is_scalar in signature)
            return make_driver(self._compiled(), kinds, n_arrays, from_dtype(output), len(halo))

        return self._code("stencil", (signature, output, halo), driver)

    # ------------------------------------------------------------------ plain Python

    def _try_out(self, inputs: Sequence[Any], options: Options) -> np.dtype[Any]:
        """The dtype of plain Python's results, from the first element of each array, continued in all directions."""
        from shmarray.ops.python_stencil import SameEverywhere

        first = [
            SameEverywhere(first_item(value)) if isinstance(value, np.ndarray) else first_item(value)
            for value in inputs
        ]
        dtypes = ask(self.__name__, self.__wrapped__, partial(item_dtypes, self.__wrapped__, first), options)
        if len(dtypes) != 1 or dtypes[0].hasobject:
            raise TypeError(
                f"{self.__name__} must return one number for each element; it returns "
                + ("nothing (None), or no number" if len(dtypes) == 1 else f"a tuple of {len(dtypes)} values")
            )
        dtype: np.dtype[Any] = dtypes[0]
        return dtype


def stencil(
    function: Callable[..., Any] | None = None,
    *,
    halo: int | Sequence[int] = 1,
    mode: str | Sequence[str] = "reflect",
    cval: Any = 0.0,
    jit: bool = True,
    precise: bool = False,
    debug: bool = False,
) -> Any:
    """Make a kernel of a function of an element's neighbours.

    The function is called once for each element, with a window for each array: `u[0, 0]` is the element at hand,
    `u[-1, 0]` the one before it along the first dimension. What it returns is the element of the result.

    Parameters
    ----------
    function : callable
        Takes windows, and scalars where the call has scalars; returns a number. Indices are integers, one for each
        dimension, and may be computed. Jitted functions may be handed a window.
    halo : int or sequence of int
        How far indices reach, in all dimensions or by dimension. A constant index that reaches further is an error when
        the function is compiled. A computed one must not: what it reads is undefined, with `debug` it is an IndexError.
    mode : str or sequence of str
        What lies beyond the array's edges, as in scipy.ndimage: "reflect", "constant", "nearest", "mirror" or "wrap";
        in all dimensions or by dimension.
    cval : number
        The value beyond the edges for "constant", converted to the dtype of each array.
    jit : bool
        False: run the function as plain Python in the workers, element by element.
    precise : bool
        True: keep the C library's `exp`, `sin`, ... instead of this package's vectorised ones.
    debug : bool
        True: check each index against the halo.

    Returns
    -------
    Kernel
        Called as `kernel(*arrays, out=None, **keywords)`; see `help(shmarray.Kernel)` for the keywords and the errors.
        Arrays broadcast. `out` may be an argument itself: the old values are then read from a copy of it.

    Raises
    ------
    TypeError, ValueError
        When it is no function of a fixed number of arguments, or `halo` or `mode` cannot be.

    Examples
    --------
    >>> import shmarray as sa
    >>> @sa.stencil(halo=1, mode="nearest")
    ... def slope(u):
    ...     return (u[1] - u[-1]) / 2
    >>> slope(sa.array([0.0, 1.0, 4.0, 9.0]))
    SharedArray([0.5, 2. , 4. , 2.5])
    """
    settings: dict[str, Any] = {
        "halo": halo, "mode": mode, "cval": cval, "jit": jit, "precise": precise, "debug": debug
    }  # fmt: skip
    if function is None:
        return lambda function: Stencil(function, **settings)
    return Stencil(function, **settings)
