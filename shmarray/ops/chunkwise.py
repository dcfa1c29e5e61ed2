"""`@chunkwise` and `map_chunks`: a function of whole chunks, run on each of them by the workers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shmarray import jit as compiler
from shmarray.engine import ChunkInfo, run
from shmarray.errors import ShmArrayError
from shmarray.ops.chunkwise_call import ChunkwiseCall
from shmarray.ops.kernel import Kernel, count_arguments
from shmarray.ops.plans import PlanMemory

__all__ = ["Chunkwise", "chunkwise", "map_chunks"]

_INFO = "chunk_info"


class Chunkwise(Kernel):
    """A kernel made of a function of whole chunks; made by :func:`chunkwise`."""

    _keywords = ("out", "chunks")

    def __init__(
        self, function: Callable[..., Any], *, halo: int | Sequence[int], jit: bool, precise: bool, debug: bool
    ) -> None:
        super().__init__(function, "chunkwise", jit=jit, precise=precise, debug=debug)
        parameters = inspect.signature(getattr(function, "py_func", function)).parameters
        self._with_info = _INFO in parameters
        self._parameters = [p for p in parameters.values() if p.name != _INFO]
        if self._with_info and list(parameters)[-1] != _INFO:
            raise TypeError(f"{self.__name__}: {_INFO} must be the last parameter")
        self._halo = halo
        self._plans = PlanMemory()

    def __call__(self, *arrays: Any, out: Any = None, chunks: int | Sequence[int] | None = None, **options: Any) -> Any:
        try:
            if not options and chunks is None:
                plan = self._plans.find(arrays if out is None else (*arrays, out))
                if plan is not None:
                    run(plan)
                    return out
            checked = self._options(options)
            call = ChunkwiseCall(self, arrays, out, chunks)
            return call.run_compiled(checked) if self._jit else call.run_python(checked)
        except ShmArrayError as error:
            error.__traceback__ = None  # what lies between the call and here tells its author nothing
            raise error

    def _check_count(self, given: int) -> None:
        positional = [p for p in self._parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        required = sum(p.default is p.empty for p in positional)
        if any(p.kind is p.VAR_POSITIONAL for p in self._parameters):
            if given < required:
                raise TypeError(f"{self.__name__} takes at least {count_arguments(required)}; got {given}")
        elif not required <= given <= len(positional):
            raise TypeError(f"{self.__name__} takes {count_arguments(len(positional))}; got {given}")

    # ------------------------------------------------------------------ compilation

    def _returned(self, specs: tuple[Any, ...], n_dims: int) -> np.dtype[Any] | None:
        """The dtype of the array that the function returns for such arguments; None for nothing."""

        def infer() -> np.dtype[Any] | None:
            from numba import types

            from shmarray.ops.item_types import dtype_of, wrong_result

            result = compiler.return_type(self._compiled(), self._numba_types(specs, n_dims))
            if isinstance(result, types.NoneType):
                return None
            if not isinstance(result, types.Array) or result.ndim != n_dims:
                expected = f"an array of {n_dims} dimensions for each chunk, or nothing"
                raise wrong_result(result, name=self.__name__, expected=expected)
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
        def driver() -> Any:
            from numba.np.numpy_support import from_dtype

            from shmarray.engine.chunkwise import make_driver

            inputs = [(from_dtype(s[0]), *s[1:]) if isinstance(s, tuple) else from_dtype(s) for s in specs]
            item = None if output is None else from_dtype(output)
            return make_driver(self._compiled(), inputs, item, n_dims, with_info=self._with_info)

        return self._code("chunkwise", (specs, output, n_dims, self._with_info), driver)


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
    place and returns nothing, or it changes nothing and returns an array: of the chunk's shape, or of the shape of the
    chunk with its halo, which is then cut off. One that does both is refused, compiled or not: whether its chunk counts
    is left open. It runs in the workers alone.

    Parameters
    ----------
    function : callable
        May have a last parameter `chunk_info` (see `shmarray.ChunkInfo`).
    halo : int or sequence of int
        Neighbouring elements that the views show around the chunk, by dimension; fewer at the edges of the array. A
        function with a halo returns its result.
    jit : bool
        False: run it as plain Python; then it may do anything.
    precise : bool
        True: keep the C library's `exp`, `sin`, ... instead of this package's vectorised ones.
    debug : bool
        True: check the bounds of arrays that the function indexes. Without it an index out of range reads or overwrites
        what lies there, or ends the worker.

    Returns
    -------
    Kernel
        Called as `kernel(*arrays, out=None, chunks=None, **keywords)`; see `help(shmarray.Kernel)` for the keywords and
        the errors. It gives the array of the results, or None where the function works in place. With `crash_safe=True`
        a function with a halo may write over its own argument.

    Raises
    ------
    TypeError
        When it is no function, or `chunk_info` is not its last parameter.

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

    Parameters
    ----------
    func : callable
        As for :func:`chunkwise`; also `halo`, `jit`, `precise` and `debug`.
    *arrays : array_like
        Of shapes that broadcast; scalars go to the function as they are.
    out : SharedArray, optional
        Takes what the function returns.
    chunks : int or tuple of int, optional
        The shape of a chunk.
    **options
        `pool`, `progress`, `timeout`, `retries` and `crash_safe`; see `help(shmarray.Kernel)`, also for the errors.

    Returns
    -------
    SharedArray or None
        What the function returned, chunk by chunk; None where it works in place.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.map_chunks(lambda chunk: chunk + 1, sa.array([1, 2, 3]), chunks=2)
    SharedArray([2, 3, 4])
    """
    kernel = Chunkwise(func, halo=halo, jit=jit, precise=precise, debug=debug)
    return kernel(*arrays, out=out, chunks=chunks, **options)
