"""How do NumPy's functions run the loops of `shmarray.kernels` on SharedArrays?

A loop is named by module and function; its driver is compiled for the kinds of its arguments when it is first needed,
or comes from the cache on disk, and then the loops' module is not even imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shmarray import jit as compiler
from shmarray.array import SharedArray
from shmarray.array.results import allocate
from shmarray.configuration import config
from shmarray.engine import Argument, ReductionShape, block_shape, kind_of, plan_block_reduction, plan_step, run
from shmarray.engine.steps import BLOCK_ITEMS_BY_ROWS
from shmarray.pool import new_number

__all__ = ["Array", "cut", "plain", "reduce_blocks", "run_step", "scratch"]

Array = np.ndarray[Any, Any]

_kernels: dict[Any, tuple[int, Any]] = {}


def plain(array: Any) -> Array:
    """The argument of a NumPy function as a plain ndarray, of the same memory where it is an array."""
    return array.view(np.ndarray) if isinstance(array, SharedArray) else np.asarray(array)


def scratch(shape: int | tuple[int, ...], dtype: Any, *, like: Array) -> Array:
    """Uninitialised memory for intermediate results, where workers see it if they will take part.

    `like` is the array that the work is about: below `config.parallel_nbytes` the caller works alone, and does so too
    where shared memory is short.
    """
    shape = (shape,) if isinstance(shape, int) else shape
    shared = allocate(shape, np.dtype(dtype)) if like.nbytes >= config.parallel_nbytes else None
    return np.empty(shape, dtype) if shared is None else shared


def run_step(
    loop: str, arguments: Sequence[Argument], n_tasks: int, *, in_place: bool = False, wrapper: str | None = None
) -> None:
    """Call a loop `n_tasks` times, across the workers of the default pool.

    Parameters
    ----------
    loop : str
        Module and function in `shmarray.kernels`: "sorting.sort_runs". It takes the task's number, then the arguments.
    arguments : sequence of ndarray, int or float
        Plain views. If one of the arrays is private memory, this process works alone.
    n_tasks : int
    in_place : bool
        A task writes what it reads, so none may be done twice.
    wrapper : str, optional
        A function of the same module that makes of the loop the one to be called.
    """
    kinds = tuple(kind_of(argument) for argument in arguments)
    key = loop, wrapper, kinds
    kernel = _kernels.get(key)
    if kernel is None:

        def driver() -> Any:
            from shmarray.engine.step_driver import make_driver

            return make_driver(_loop(loop, wrapper), kinds)

        code = compiler.compile(driver, (int,) * 4, key=("step", *key))
        kernel = _kernels[key] = (new_number(), code)
    run(plan_step(loop, kernel, arguments, n_tasks, in_place=in_place))


def reduce_blocks(loop: str, array: Array, axes: tuple[int, ...], state: Any, n_words: int) -> Array:
    """Reduce an array by a loop of `shmarray.kernels.accumulators`.

    Parameters
    ----------
    loop : str
        Its name there.
    array : ndarray
        A plain view with at least one item to reduce.
    axes : tuple of int
        Not negative.
    state : dtype
        float64, int64 or uint64.
    n_words : int
        Words of the state.

    Returns
    -------
    (ranges, kept elements, n_words) array
        States of the ranges of a fixed grid, to be joined in their order.
    """
    how = block_shape(array.shape, axes)
    partials = scratch((how.n_ranges, how.n_kept, n_words), np.dtype(state), like=array)
    rows = _as_rows(array, how) if how.by_rows else None
    if rows is not None:
        numbers = [how.n_kept, how.kept_step, how.n_reduced, how.reduced_step, BLOCK_ITEMS_BY_ROWS, n_words]
        run_step(f"accumulators.{loop}", [rows, *numbers, partials.reshape(-1)], how.n_chunks, wrapper="by_rows")
        return partials
    key = loop, array.dtype, partials.dtype
    kernel = _kernels.get(key)
    if kernel is None:

        def driver() -> Any:
            from numba.np.numpy_support import from_dtype

            from shmarray.engine.block_reduction import make_driver

            kinds = from_dtype(array.dtype), from_dtype(partials.dtype)
            return make_driver(_loop(f"accumulators.{loop}"), *kinds, n_words)

        code = compiler.compile(driver, (int,) * 4, key=("blocks", *key, n_words))
        kernel = _kernels[key] = (new_number(), code)
    run(plan_block_reduction(loop, kernel, array, partials, how))
    return partials


def _as_rows(array: Array, how: ReductionShape) -> Array | None:
    """The same items as a flat array in which what is reduced lies side by side; None where it does not in memory.

    Nearly all arrays are so. They spare the engine's general driver, which gathers items from anywhere: that is most of
    what there is to compile.
    """
    rows = array.transpose(*how.kept, *how.reduced)
    return rows.reshape(-1) if rows.flags.c_contiguous else None


def _loop(name: str, wrapper: str | None = None) -> Any:
    from shmarray import kernels
    from shmarray.kernels._jit import part

    module_name, function_name = name.split(".")
    module = getattr(kernels, module_name)
    function = getattr(module, function_name).py_func
    # Anew, as a part of the driver alone: without the code by which Python would call it.
    return part(function if wrapper is None else getattr(module, wrapper)(function))


def cut(n: int, step: int = 1 << 17) -> tuple[int, int]:
    """Items of a task and number of tasks for `n` items: the same on every machine."""
    step = max(step, -(-n // 4096))
    return step, -(-n // step)
