"""Running ready-made kernels over arrays: compiled once for their types, kept on disk, spread over the lanes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shmarray import jit as compiler
from shmarray.configuration import config
from shmarray.engine import DEFAULT, Options, kind_of, plan_step, run
from shmarray.ops.arguments import reachable
from shmarray.pool import new_number

__all__ = ["options_of", "packed", "run_units"]

Array = np.ndarray[Any, Any]

_kernels: dict[Any, tuple[int, Any]] = {}


def options_of(name: str, keywords: dict[str, Any]) -> Options:
    """The keywords of a call of a ready-made function, which have no need of `crash_safe`: they never work in place."""
    options = Options.of(name, keywords)
    if options.crash_safe:
        raise ValueError(
            f"{name} does not take crash_safe=True: it may be called again, since what it reads is left as it is; give "
            "another out"
        )
    return options


def packed(array: Any) -> Array:
    """The array as a plain C-contiguous one in native byte order; a copy where it is none."""
    plain = np.asarray(array)
    return np.ascontiguousarray(plain, dtype=plain.dtype.newbyteorder("="))


def run_units(
    name: str,
    home: tuple[str, str],
    inputs: Sequence[Array | np.generic],
    outputs: Sequence[Array],
    units: int,
    *,
    unit_nbytes: int,
    options: Options = DEFAULT,
) -> None:
    """Run a kernel `kernel(first, last, *inputs, *outputs)` over units of work.

    Parameters
    ----------
    name : str
        What errors call it.
    home : (str, str)
        Module of `shmarray.kernels` and function in it; imported only when it must be compiled.
    inputs : sequence of ndarray or NumPy scalar
        C-contiguous arrays.
    outputs : sequence of ndarray
        C-contiguous; they share no memory with inputs.
    units : int
    unit_nbytes : int
        How many bytes a unit is about: a chunk is as many units as `config.chunk_nbytes` holds.
    """
    if units == 0:
        return
    kinds = tuple(kind_of(value) for value in (*inputs, *outputs))
    kernel = _kernels.get((home, kinds))
    if kernel is None:

        def driver() -> Any:
            from importlib import import_module

            from shmarray.engine.step_driver import make_driver
            from shmarray.kernels._jit import part

            # Anew, as a part of the driver alone: the code by which Python would call it is a third of the compiling.
            function = part(getattr(import_module(f"shmarray.kernels.{home[0]}"), home[1]).py_func)
            return make_driver(function, kinds, by_units=True)

        code = compiler.compile(driver, (int,) * 4, key=("units", home, kinds))
        kernel = _kernels[home, kinds] = (new_number(), code)
    largest = max(value.nbytes for value in (*inputs, *outputs))
    is_large = largest >= config.parallel_nbytes
    # The sizes of all count together: where one is large, workers must see every one of them.
    seen = reachable([*inputs, *outputs]) if is_large or options.workers_alone else [*inputs, *outputs]
    step = max(1, min(config.chunk_nbytes // max(1, unit_nbytes), -(-units // 8) if is_large else units))
    run(plan_step(name, kernel, seen, -(-units // step), units=(units, step)), options)
    for output, target in zip(outputs, seen[len(inputs) :], strict=True):
        if target is not output:
            output[...] = target
