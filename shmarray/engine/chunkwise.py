"""The driver of whole-chunk functions: cut a view for each array, call the function, store what it returns.

The block of numbers that a driver reads (64-bit words), n being the number of dimensions::

    0                 extent, chunk, count, halo of dimension d at 4 d
    4 n + k (1 + n)   operand k: address, then its stride in each dimension; inputs first, then the output, if any

Inputs get the halo, cut short at the array's edges; the output gets the chunk alone. Importing this module imports
numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
from numba import types
from numba.cpython.unsafe.tuple import tuple_setitem

from shmarray import jit
from shmarray.engine.chunk_info import ChunkInfo
from shmarray.engine.memory import read_word, view
from shmarray.pool.atomics import monotonic_ns
from shmarray.pool.dispatch import claim, finish, over_budget

__all__ = ["make_driver"]

_compiled = numba.njit(**jit.options())


def make_driver(
    function: Any,
    inputs: Sequence[tuple[types.Type, str, bool] | types.Type],
    output: types.Type | None,
    n_dims: int,
    *,
    with_info: bool,
) -> Callable[[int, int, int, int], int]:
    """A driver, to be compiled for four int64 arguments (page, block, lane, budget in nanoseconds).

    Parameters
    ----------
    function : numba dispatcher
        Takes one view (or scalar) an input, and a `ChunkInfo` if `with_info`.
    inputs : sequence
        Of an array: item type, layout ("C" or "A") and whether it must not be written. Of a scalar: its type.
    output : type, optional
        Item type of the array that takes what the function returns; None where it returns nothing.
    n_dims : int
    with_info : bool
    """
    gather = _chain([_argument(k, spec, n_dims) for k, spec in enumerate(inputs)])
    core_slices = _core_slices(n_dims)
    n_inputs = len(inputs)
    zeros = (0,) * n_dims
    output_view: Any = None if output is None else view(output, n_dims, "A", False)
    stores = output is not None

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        started = monotonic_ns()
        while True:
            index = claim(page, lane)
            if index < 0:
                return 0
            position = start = stop = low = shape = before = after = core = out_strides = zeros
            rest = index
            for back in range(n_dims):
                d = n_dims - 1 - back
                extent, chunk = read_word(block, 4 * d), read_word(block, 4 * d + 1)
                count, halo = read_word(block, 4 * d + 2), read_word(block, 4 * d + 3)
                here = rest % count
                rest //= count
                first = here * chunk
                last = min(extent, first + chunk)
                left, right = min(halo, first), min(halo, extent - last)
                position = tuple_setitem(position, d, here)
                start, stop = tuple_setitem(start, d, first), tuple_setitem(stop, d, last)
                before, after = tuple_setitem(before, d, left), tuple_setitem(after, d, right)
                low, shape = tuple_setitem(low, d, first - left), tuple_setitem(shape, d, last - first + left + right)
                core = tuple_setitem(core, d, last - first)
            arguments = gather(block, low, shape)
            if with_info:
                result = function(*arguments, ChunkInfo(index, position, start, stop, before, after))
            else:
                result = function(*arguments)
            if stores:
                operand = 4 * n_dims + n_inputs * (1 + n_dims)
                address = read_word(block, operand)
                for d in range(n_dims):
                    out_strides = tuple_setitem(out_strides, d, read_word(block, operand + 1 + d))
                    address += start[d] * out_strides[d]
                target = output_view(address, core, out_strides)
                if result.shape == shape:
                    target[...] = result[core_slices(before, core)]
                elif result.shape == core:
                    target[...] = result
                else:
                    raise ValueError("the function returned an array of another shape than its chunk")
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


def _argument(k: int, spec: tuple[types.Type, str, bool] | types.Type, n_dims: int) -> Any:
    """A compiled function (block, low, shape) -> argument number k of the user's function."""
    operand = 4 * n_dims + k * (1 + n_dims)
    if isinstance(spec, types.Type):
        one = view(spec, 1, "C", True)

        @_compiled
        def value(block, low, shape):  # type: ignore[no-untyped-def]
            return one(read_word(block, operand), (1,), (0,))[0]

        return value
    item, layout, readonly = spec
    make_view = view(item, n_dims, layout, readonly)
    zeros = (0,) * n_dims

    @_compiled
    def array(block, low, shape):  # type: ignore[no-untyped-def]
        address = read_word(block, operand)
        strides = zeros
        for d in range(n_dims):
            strides = tuple_setitem(strides, d, read_word(block, operand + 1 + d))
            address += low[d] * strides[d]
        return make_view(address, shape, strides)

    return array


def _chain(makers: Sequence[Any]) -> Any:
    """A compiled function that calls several with the same arguments and gives the tuple of their results.

    The tuple's items have different types, so it is put together one by one.
    """
    first = makers[0]
    if len(makers) == 1:

        @_compiled
        def only(block, low, shape):  # type: ignore[no-untyped-def]
            return (first(block, low, shape),)

        return only
    rest = _chain(makers[1:])

    @_compiled
    def several(block, low, shape):  # type: ignore[no-untyped-def]
        return (first(block, low, shape), *rest(block, low, shape))

    return several


def _core_slices(n_dims: int, d: int = 0) -> Any:
    """A compiled function (before, core) -> slices that take the chunk out of the chunk with its halo."""
    if d == n_dims - 1:

        @_compiled
        def last(before, core):  # type: ignore[no-untyped-def]
            return (slice(before[d], before[d] + core[d]),)

        return last
    rest = _core_slices(n_dims, d + 1)

    @_compiled
    def one(before, core):  # type: ignore[no-untyped-def]
        return (slice(before[d], before[d] + core[d]), *rest(before, core))

    return one
