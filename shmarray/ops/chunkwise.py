"""`@chunkwise` and `map_chunks`: a function of whole chunks, run on each of them by the workers."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shmarray import jit as compiler
from shmarray import registry
from shmarray.array import SharedArray
from shmarray.chunks import ChunkGrid, normalize_chunks
from shmarray.configuration import config
from shmarray.engine import (
    ChunkInfo,
    Options,
    Plan,
    ProbeJob,
    check_output,
    default_chunks,
    plan_chunkwise,
    plan_function,
    plan_probe,
    run,
    run_crash_safe,
)
from shmarray.engine.operands import overlap, same_elements
from shmarray.errors import KernelCompileError
from shmarray.ops.arguments import (
    as_outputs,
    as_scalar_or_array,
    broadcast_shape,
    by_value,
    chunks_for,
    plain_function,
    reachable,
)
from shmarray.ops.plans import PlanMemory
from shmarray.ops.results import new_shared
from shmarray.pool import new_number

__all__ = ["Chunkwise", "chunkwise", "map_chunks"]

Array = np.ndarray[Any, Any]
_INFO = "chunk_info"


class Chunkwise:
    """A kernel made of a function of whole chunks; made by :func:`chunkwise`."""

    def __init__(
        self, function: Callable[..., Any], *, halo: int | Sequence[int], jit: bool, precise: bool, debug: bool
    ) -> None:
        self.__wrapped__ = plain_function(function, decorator="chunkwise", jit=jit)
        self.__name__ = getattr(function, "__name__", "kernel")
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        parameters = inspect.signature(getattr(function, "py_func", function)).parameters
        self._with_info = _INFO in parameters
        self._parameters = [p for p in parameters.values() if p.name != _INFO]
        if self._with_info and list(parameters)[-1] != _INFO:
            raise TypeError(f"{self.__name__}: {_INFO} must be the last parameter")
        self._halo = halo
        self._jit, self._precise, self._debug = jit, precise, debug
        self._function: Any = None
        self._kernels: dict[Any, tuple[int, Any]] = {}
        self._plans = PlanMemory()

    def __repr__(self) -> str:
        return f"<chunkwise kernel {self.__name__}>"

    def __call__(self, *arrays: Any, out: Any = None, chunks: int | Sequence[int] | None = None, **options: Any) -> Any:
        if not options and chunks is None:
            plan = self._plans.find(arrays if out is None else (*arrays, out))
            if plan is not None:
                run(plan)
                return out
        call = _Call(self, arrays, out, chunks)
        checked = Options.of(self.__name__, options)
        return call.run_compiled(checked) if self._jit else call.run_python(checked)

    def _check_arity(self, given: int) -> None:
        positional = [p for p in self._parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        required = sum(p.default is p.empty for p in positional)
        if any(p.kind is p.VAR_POSITIONAL for p in self._parameters):
            if given < required:
                raise TypeError(f"{self.__name__} takes at least {_arguments(required)}; got {given}")
        elif not required <= given <= len(positional):
            raise TypeError(f"{self.__name__} takes {_arguments(len(positional))}; got {given}")

    # ------------------------------------------------------------------ compilation

    def _key(self) -> Any:
        return (compiler.fingerprint(self.__wrapped__), self._precise, self._debug)

    def _scalar(self) -> Any:
        if self._function is None:
            self._function = compiler.scalar(self.__wrapped__, precise=self._precise, debug=self._debug)
        return self._function

    def _returned(self, specs: tuple[Any, ...], n_dims: int) -> np.dtype[Any] | None:
        """The dtype of the array that the function returns for such arguments; None for nothing."""

        def infer() -> np.dtype[Any] | None:
            from numba import types

            from shmarray.ops.item_types import dtype_of

            result = compiler.return_type(self._scalar(), self._numba_types(specs, n_dims))
            if isinstance(result, types.NoneType):
                return None
            if not isinstance(result, types.Array) or result.ndim != n_dims:
                raise TypeError(
                    f"{self.__name__} must return an array of {n_dims} dimensions for each chunk, or nothing; "
                    f"it returns {result}"
                )
            return dtype_of(result.dtype, name=self.__name__)

        key = ("chunkwise result", self._key(), specs, n_dims, self._with_info)
        return compiler.remember(key, infer)

    def _numba_types(self, specs: tuple[Any, ...], n_dims: int) -> list[Any]:
        """Types of the function's arguments."""
        from numba import types

        from shmarray.ops.item_types import item_type

        kinds: list[Any] = []
        for spec in specs:
            if isinstance(spec, tuple):
                dtype, layout, readonly = spec
                kinds.append(types.Array(item_type(dtype, name=self.__name__), n_dims, layout, readonly=readonly))
            else:
                kinds.append(item_type(spec, name=self.__name__))
        if self._with_info:
            place = types.UniTuple(types.int64, n_dims)
            kinds.append(types.NamedTuple((types.int64, place, place, place, place, place), ChunkInfo))
        return kinds

    def _kernel(self, specs: tuple[Any, ...], output: np.dtype[Any] | None, n_dims: int) -> tuple[int, Any]:
        kernel = self._kernels.get((specs, output, n_dims))
        if kernel is None:

            def driver() -> Any:
                from numba.np.numpy_support import from_dtype

                from shmarray.engine.chunkwise import make_driver

                inputs = [(from_dtype(s[0]), *s[1:]) if isinstance(s, tuple) else from_dtype(s) for s in specs]
                item = None if output is None else from_dtype(output)
                return make_driver(self._scalar(), inputs, item, n_dims, with_info=self._with_info)

            key = ("chunkwise", self._key(), specs, output, n_dims, self._with_info)
            code = compiler.compile(driver, (int,) * 4, key=key, debug=self._debug)
            kernel = self._kernels[specs, output, n_dims] = (new_number(), code)
        return kernel


class _Call:
    """One call of a chunkwise kernel: arguments checked, and a grid over them."""

    def __init__(self, kernel: Chunkwise, args: tuple[Any, ...], out: Any, chunks: int | Sequence[int] | None) -> None:
        self.kernel, self.name, self.out = kernel, kernel.__name__, out
        kernel._check_arity(len(args))
        self.args = args
        self.regular = chunks is None
        self.inputs = as_scalar_or_array(args, name=self.name)
        self.arrays = [value for value in self.inputs if isinstance(value, np.ndarray)]
        if not self.arrays:
            raise TypeError(f"{self.name} needs at least one array with dimensions")
        shape = broadcast_shape([array.shape for array in self.arrays], name=self.name)
        self.grid = ChunkGrid(shape, self._chunk_shape(shape, chunks))
        self.halo = _halo_of(kernel._halo, len(shape), name=self.name)

    def _chunk_shape(self, shape: tuple[int, ...], chunks: int | Sequence[int] | None) -> tuple[int, ...]:
        if chunks is not None:
            return normalize_chunks(chunks, shape, 1, 1)
        given = chunks_for(shape, [*self.args, self.out])
        if given is not None:
            return given
        for array in self.arrays:
            if array.shape == shape:
                return default_chunks(array)
        return normalize_chunks(None, shape, self.arrays[0].itemsize, config.chunk_nbytes)

    # ------------------------------------------------------------------ compiled

    def run_compiled(self, options: Options) -> Any:
        kernel, n_dims = self.kernel, len(self.grid.shape)
        # A function that compiles with read-only views cannot change its arguments: it may be retried.
        specs = self._specs(writable=False)
        pure = True
        try:
            result = kernel._returned(specs, n_dims)
        except (KernelCompileError, TypeError) as error:
            specs = self._specs(writable=True)
            result = kernel._returned(specs, n_dims)  # its error is the one that has nothing to do with writing
            if any(self.halo):
                raise TypeError(
                    f"{self.name} changes its chunk in place, which with a halo would show its neighbours new values "
                    "beside old ones; let it return the new chunk"
                ) from error
            pure = False
        if result is None and self.out is not None:
            raise TypeError(f"{self.name} returns nothing, so there is nothing to put into out; call it without")
        if not pure:
            self._check_changeable()
        output, returned = self._output(result)
        code = kernel._kernel(specs, None if output is None else output.dtype, n_dims)
        in_place = not pure or self._in_place(output, options)

        def make_plan(inputs: Sequence[Any], target: Array | None) -> Plan:
            return plan_chunkwise(self.name, code, inputs, target, self.grid, self.halo, in_place=in_place)

        if options.crash_safe and (in_place or self.out is not None):
            self._run_crash_safe(make_plan, options, [] if pure else self._changed_by(specs), output)
        else:
            inputs = reachable(self.inputs)
            target = None if output is None else reachable([output])[0]
            self._run(make_plan(inputs, target), options, inputs, [(output, target)])
        return returned

    def _changed_by(self, specs: tuple[Any, ...]) -> list[int]:
        """Which arguments the function changes: it does not compile with a read-only view of one of these."""
        writable = [k for k, spec in enumerate(specs) if isinstance(spec, tuple) and not spec[2]]
        if len(writable) == 1:
            return writable
        changed = []
        for k in writable:
            frozen = (*specs[:k], (*specs[k][:2], True), *specs[k + 1 :])
            try:
                self.kernel._returned(frozen, len(self.grid.shape))
            except (KernelCompileError, TypeError):
                changed.append(k)
        return changed

    def _specs(self, *, writable: bool) -> tuple[Any, ...]:
        """Of each argument what its compiled type depends on: a dtype, or (dtype, layout, readonly)."""
        whole = all(chunk >= extent for chunk, extent in zip(self.grid.chunks[1:], self.grid.shape[1:], strict=True))
        specs: list[Any] = []
        for value in self.inputs:
            if isinstance(value, np.ndarray):
                packed = whole and value.flags.c_contiguous and value.shape == self.grid.shape
                readonly = not (writable and value.flags.writeable and value.shape == self.grid.shape)
                specs.append((value.dtype, "C" if packed else "A", readonly))
            else:
                specs.append(value.dtype)
        return tuple(specs)

    # ------------------------------------------------------------------ plain Python

    def run_python(self, options: Options) -> Any:
        kernel = self.kernel
        function = by_value(kernel.__wrapped__)
        inputs = reachable(self.inputs)
        facts: dict[str, Any] = {"with_info": kernel._with_info}
        if self.out is None and len(self.grid):
            return self._run_probed(function, inputs, options, facts)
        output, returned = self._output(self.arrays[0].dtype)
        in_place = self._in_place(output, options)

        def make_plan(inputs: Sequence[Any], target: Array | None) -> Plan:
            return plan_function(self.name, function, inputs, target, self.grid, self.halo, in_place=in_place, **facts)

        if options.crash_safe and (in_place or self.out is not None):
            self._run_crash_safe(make_plan, options, [], output)
        else:
            target = None if output is None else reachable([output])[0]
            self._run(make_plan(inputs, target), options, [], [(output, target)])
        return returned

    def _run_probed(self, function: bytes, inputs: list[Any], options: Options, facts: dict[str, Any]) -> Any:
        scratch = np.asarray(registry.create((ProbeJob.scratch_nbytes(self.grid, inputs),), np.dtype(np.uint8)))
        ProbeJob.clear(scratch)
        keeps = not options.crash_safe
        try:
            run(plan_probe(self.name, function, inputs, scratch, self.grid, self.halo, keeps=keeps, **facts), options)
        except BaseException:
            ProbeJob.settle(scratch, self.grid, inputs)
            raise
        first, changed = ProbeJob.read(scratch, self.grid)
        if changed and (any(self.halo) or first is not None):
            raise TypeError(
                f"{self.name} has a halo, so it must return its result: chunks that are changed in place would be "
                "read by their neighbours"
                if any(self.halo)
                else f"{self.name} changed its chunk and returned an array; do one of the two (begin with chunk.copy())"
            )
        if first is None:
            self._check_changeable()

            def make_plan(inputs: Sequence[Any], target: Array | None) -> Plan:
                return plan_function(self.name, function, inputs, None, self.grid, self.halo, in_place=True, **facts)

            if options.crash_safe:
                shape = self.grid.shape
                writable = [k for k, value in enumerate(self.inputs) if _is_writable(value) and value.shape == shape]
                self._run_crash_safe(make_plan, options, writable, None)
            else:
                self._run(make_plan(inputs, None), options, inputs, [], start=1)
            return None
        output, returned = self._output(first.dtype)
        assert output is not None
        output[self.grid.slices(0)] = first
        plan = plan_function(self.name, function, inputs, output, self.grid, self.halo, in_place=False, **facts)
        self._run(plan, options, [], [], start=1)
        return returned

    # ------------------------------------------------------------------ both

    def _check_changeable(self) -> None:
        """An in-place function must get something that it can change for the caller to see."""
        if not any(isinstance(arg, SharedArray) for arg in self.args):
            raise TypeError(
                f"{self.name} returns nothing, so it works in place, which needs a SharedArray; got "
                f"{', '.join(type(arg).__name__ for arg in self.args)}. Use shmarray.array(...) first"
            )

    def _output(self, dtype: np.dtype[Any] | None) -> tuple[Array | None, Any]:
        """The array that results go to as a plain view, and as what the call returns."""
        if dtype is None:
            return None, None
        if self.out is None:
            result = new_shared(self.grid.shape, dtype)
            return result.view(np.ndarray), result
        (output,) = as_outputs(
            self.out, 1, self.grid.shape, (dtype if self.kernel._jit else self.out.dtype,), name=self.name
        )
        check_output(output, self.arrays, name=self.name)
        return output, self.out

    def _in_place(self, output: Array | None, options: Options) -> bool:
        if output is None:
            return True
        in_place = check_output(output, self.arrays, name=self.name)
        if in_place and any(self.halo) and not options.crash_safe:
            raise ValueError(
                f"{self.name} has a halo, so out must not be one of its arguments: a chunk would be overwritten while "
                "its neighbours still read it; give another out, or crash_safe=True, by which all chunks are computed "
                "before any is overwritten"
            )
        return in_place

    def _run_crash_safe(
        self,
        make_plan: Callable[[Sequence[Any], Array | None], Plan],
        options: Options,
        changed: Sequence[int],
        output: Array | None,
    ) -> None:
        """Run a plan that changes some of the arguments, or an output, or both, each chunk once or not at all."""
        inputs = reachable(self.inputs)
        arrays = [inputs[k] for k in changed]
        self._check_apart(changed)
        target, same = None, []
        if output is not None and self.out is not None:
            # In place, the argument that the output is must be copied to shared memory once, if at all.
            same = [k for k, value in enumerate(self.inputs) if _is_same(value, output)]
            target = inputs[same[0]] if same else reachable([output])[0]
            arrays.append(target)
        given = output if target is None else target

        def replaced(scratch: Sequence[Array]) -> Plan:
            values = list(inputs)
            for k, array in zip(changed, scratch, strict=False):  # an output's comes behind them
                values[k] = array
            return make_plan(values, scratch[-1] if target is not None else given)

        whole = any(self.halo) and bool(same)
        run_crash_safe(self.name, self.grid, arrays, replaced, options, whole=whole, filled=bool(changed))
        originals = [*(self.inputs[k] for k in changed), *([] if target is None else [output])]
        for original, array in zip(originals, arrays, strict=True):
            if array is not original:
                assert isinstance(original, np.ndarray)
                original[...] = array

    def _check_apart(self, changed: Sequence[int]) -> None:
        arrays = [(k, value) for k, value in enumerate(self.inputs) if isinstance(value, np.ndarray)]
        for k, one in arrays:
            for position, other in arrays:
                if k in changed and position != k and overlap(one, other):
                    raise ValueError(
                        f"{self.name}: arguments {k} and {position} share memory, and a crash-safe call changes each "
                        "of its arrays by itself; give one of them, or a copy"
                    )

    def _run(
        self,
        plan: Plan,
        options: Options,
        changed: Sequence[Any],
        copied: Sequence[tuple[Any, Any]],
        *,
        start: int = 0,
    ) -> None:
        run(plan, options, start=start)
        shared = all(one is other for one, other in (*copied, *zip(self.inputs, changed, strict=False)))
        if shared and self.regular and self.kernel._jit and (self.out is not None or plan.in_place):
            self.kernel._plans.keep(self.args if self.out is None else (*self.args, self.out), plan)
        for output, target in copied:
            if target is not output:
                output[...] = target
        if plan.in_place and changed:
            for value, shared in zip(self.inputs, changed, strict=True):
                if shared is not value and isinstance(value, np.ndarray) and value.flags.writeable:
                    value[...] = shared


def _is_writable(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.flags.writeable


def _is_same(value: Any, output: Array) -> bool:
    return isinstance(value, np.ndarray) and same_elements(value, output)


def _arguments(count: int) -> str:
    return "1 argument" if count == 1 else f"{count} arguments"


def _halo_of(halo: int | Sequence[int], n_dims: int, *, name: str) -> tuple[int, ...]:
    widths = tuple(halo) if isinstance(halo, Sequence) else (halo,) * n_dims
    try:
        widths = tuple(operator.index(width) for width in widths)
    except TypeError:
        raise TypeError(f"{name}: halo must be one integer or {n_dims} of them; got {halo!r}") from None
    if len(widths) != n_dims:
        raise ValueError(f"{name}: halo must be one integer or {n_dims} of them; got {halo!r}")
    if any(width < 0 for width in widths):
        raise ValueError(f"{name}: halo must not be negative; got {halo!r}")
    return widths


def chunkwise(
    function: Callable[..., Any] | None = None,
    *,
    halo: int | Sequence[int] = 0,
    jit: bool = True,
    precise: bool = False,
    debug: bool = False,
) -> Any:
    """Make a kernel of a function of whole chunks.

    The function gets plain ndarray views of the same chunk of each array (scalars as they are). It changes them in
    place and returns nothing, or returns an array: of the chunk's shape, or of the shape of the chunk with its halo,
    which is then cut off. It runs in the workers alone.

    Parameters
    ----------
    function : callable
        May have a last parameter `chunk_info` (see `shmarray.ChunkInfo`).
    halo : int or sequence of int
        Neighbouring elements that the views show around the chunk, by dimension; fewer at the edges of the array. A
        function with a halo returns its result.
    jit : bool
        False: run it as plain Python; then it may do anything.
    precise, debug : bool
        As for :func:`shmarray.elementwise`.

    Returns
    -------
    callable
        `kernel(*arrays, out=None, chunks=None, pool=None, progress=False, timeout=None, retries=2, crash_safe=False)`;
        it gives the array of the results, or None where the function works in place. With `crash_safe=True` what is
        changed in place is changed once or not at all, chunk by chunk, whatever dies
        (docs/reliability_exactly_once.md); a function with a halo may then write over its own argument.

    Examples
    --------
    >>> import numpy as np, shmarray as sa
    >>> @sa.chunkwise
    ... def double(chunk):
    ...     chunk *= 2
    >>> a = sa.array([1.0, 2.0, 3.0], chunks=2)
    >>> double(a)
    >>> a
    SharedArray([2., 4., 6.])
    """
    if function is None:
        return lambda function: Chunkwise(function, halo=halo, jit=jit, precise=precise, debug=debug)
    return Chunkwise(function, halo=halo, jit=jit, precise=precise, debug=debug)


def map_chunks(
    func: Callable[..., Any],
    *arrays: Any,
    out: Any = None,
    chunks: int | Sequence[int] | None = None,
    halo: int | Sequence[int] = 0,
    jit: bool = True,
    precise: bool = False,
    debug: bool = False,
    **options: Any,
) -> Any:
    """Run a function on each chunk: :func:`chunkwise` and its call in one.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.map_chunks(lambda chunk: chunk + 1, sa.array([1, 2, 3]), chunks=2)
    SharedArray([2, 3, 4])
    """
    kernel = Chunkwise(func, halo=halo, jit=jit, precise=precise, debug=debug)
    return kernel(*arrays, out=out, chunks=chunks, **options)
