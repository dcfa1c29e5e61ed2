"""The driver of whole-chunk functions: cut a view for each array, call the function, store what it returns.

The block of numbers that a driver reads (64-bit words), n being the number of dimensions::

    0                 extent, chunk, count, halo of dimension d at 4 d
    4 n + k (1 + n)   operand k: address, then its stride in each dimension; inputs first, then the output, if any

    behind            the extents of a returned array that fits no chunk; the driver puts them there (`ChunkwiseJob`)

Inputs get the halo, cut short at the array's edges; the output gets the chunk alone.

What a driver works out about the chunk at hand stands in a second block, of n words each: position, start, stop, before
and after (a `ChunkInfo`); where the views start; their extents; the chunk's extents; extents and strides of the array
that the function returned; the output's strides. Behind these stands what is to be copied where (`_SOURCE` and
following). Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from shmarray import jit
from shmarray.engine.calls import emit_call, resolve
from shmarray.engine.chunk_info import ChunkInfo
from shmarray.engine.memory import (
    allocate,
    array_view,
    item_pointer,
    load_word,
    plain_integer,
    read_word,
    release,
    reserve_words,
    write_word,
)
from shmarray.pool.atomics import copy_bytes, monotonic_ns
from shmarray.pool.dispatch import claim, finish, over_budget

__all__ = ["make_driver"]

_i8, _i64 = ir.IntType(8), ir.IntType(64)
_compiled = numba.njit(**jit.options())

_POSITION, _START, _STOP, _BEFORE, _AFTER, _LOW, _SHAPE, _CORE, _RETURNED, _STEPS, _OUT_STEPS, _SOURCE = range(12)
# Words behind the source's: where the copying ends up, how many leading dimensions it walks, its rows' number and
# length, and where the row at hand is.
_TARGET, _WALKED, _ROWS, _LENGTH, _ROW_SOURCE, _ROW_TARGET = range(1, 7)


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
    reserve = reserve_words(_SOURCE * n_dims + 7)
    call = _make_call(function, inputs, n_dims, with_info=with_info)
    store = None if output is None else _make_store(output, n_dims)
    output_block = 8 * (4 * n_dims + len(inputs) * (1 + n_dims))

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        started = monotonic_ns()
        place, n = reserve(), plain_integer(n_dims)
        while True:
            index = claim(page, lane)
            if index < 0:
                return 0
            _locate(block, place, n, index)
            if store is None:
                call(block, place, index)
            else:
                store(call(block, place, index), block + output_block, place)
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


@_compiled
def _locate(block, place, n, index):  # type: ignore[no-untyped-def]
    """Work out where chunk number `index` is and what its views show."""
    rest = index
    for back in range(n):
        d = n - 1 - back
        extent, chunk = read_word(block, 4 * d), read_word(block, 4 * d + 1)
        count, halo = read_word(block, 4 * d + 2), read_word(block, 4 * d + 3)
        start = rest % count * chunk
        stop = min(extent, start + chunk)
        before, after = min(halo, start), min(halo, extent - stop)
        write_word(place, _POSITION * n + d, rest % count)
        write_word(place, _START * n + d, start)
        write_word(place, _STOP * n + d, stop)
        write_word(place, _BEFORE * n + d, before)
        write_word(place, _AFTER * n + d, after)
        write_word(place, _LOW * n + d, start - before)
        write_word(place, _SHAPE * n + d, stop - start + before + after)
        write_word(place, _CORE * n + d, stop - start)
        rest //= count


def _make_call(
    function: Any, inputs: Sequence[tuple[types.Type, str, bool] | types.Type], n: int, *, with_info: bool
) -> Any:
    """A compiled function (block, place, index) -> what the user's function returns for that chunk."""
    arguments: list[types.Type] = [
        spec if isinstance(spec, types.Type) else types.Array(spec[0], n, spec[1], readonly=spec[2]) for spec in inputs
    ]
    sizes = types.UniTuple(types.int64, n)
    info = types.NamedTuple((types.int64, *[sizes] * 5), ChunkInfo)
    if with_info:
        arguments.append(info)

    @intrinsic
    def call(typingctx, block, place, index):  # type: ignore[no-untyped-def]
        resolved = resolve(typingctx, function, arguments)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            block, place, index = args

            def words(address: Any, first: int, count: int) -> list[Any]:
                return [load_word(builder, address, first + d) for d in range(count)]

            values = []
            for k, kind in enumerate(arguments[: len(inputs)]):
                operand = 4 * n + k * (1 + n)
                address = load_word(builder, block, operand)
                if isinstance(kind, types.Array):
                    steps = words(block, operand + 1, n)
                    for low, step in zip(words(place, _LOW * n, n), steps, strict=True):
                        address = builder.add(address, builder.mul(low, step))
                    shape = words(place, _SHAPE * n, n)
                    values.append(array_view(context, builder, kind, address, shape, steps))
                else:
                    values.append(context.unpack_value(builder, kind, item_pointer(context, builder, kind, address)))
            if with_info:
                fields = [
                    context.make_tuple(builder, sizes, words(place, field * n, n))
                    for field in (_POSITION, _START, _STOP, _BEFORE, _AFTER)
                ]
                values.append(context.make_tuple(builder, info, [index, *fields]))
            return emit_call(context, builder, function, resolved, values)

        return resolved.return_type(types.int64, types.int64, types.int64), codegen

    return call


def _make_store(output: types.Type, n: int) -> Any:
    """A compiled function (result, output's words, place) that copies the chunk in a returned array to its place."""
    source_word = _SOURCE * n

    @_compiled
    def store(result, out, place):  # type: ignore[no-untyped-def]
        itemsize, n_dims = _describe(result, place), plain_integer(n)
        buffer = _fit(out, place, n_dims, itemsize)
        for row in range(read_word(place, source_word + _ROWS)):
            _locate_row(place, n_dims, row)
            copy_row(result, place)
        if buffer != 0:
            release(buffer)

    @intrinsic
    def _describe(typingctx, result, place):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            array = arrayobj.make_array(signature.args[0])(context, builder, args[0])
            words = builder.inttoptr(args[1], _i64.as_pointer())
            values = {source_word: builder.ptrtoint(array.data, _i64)}
            for d in range(n):
                values[_RETURNED * n + d] = builder.extract_value(array.shape, d)
                values[_STEPS * n + d] = builder.extract_value(array.strides, d)
            for word, value in values.items():
                builder.store(value, builder.gep(words, [_i64(word)]))
            return array.itemsize

        return types.int64(result, types.int64), codegen

    @intrinsic
    def copy_row(typingctx, result, place):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            item = signature.args[0].dtype
            place = args[1]
            length, source, target = (
                load_word(builder, place, source_word + word) for word in (_LENGTH, _ROW_SOURCE, _ROW_TARGET)
            )
            steps = [load_word(builder, place, first * n + n - 1) for first in (_OUT_STEPS, _STEPS)]
            sizes = [_i64(context.get_abi_sizeof(context.get_data_type(kind))) for kind in (output, item)]
            packed = builder.and_(
                *(builder.icmp_signed("==", step, size) for step, size in zip(steps, sizes, strict=True))
            )

            def loop(steps: Sequence[Any]) -> None:
                with cgutils.for_range(builder, length) as turn:
                    to, start = (
                        builder.add(base, builder.mul(turn.index, step))
                        for base, step in zip((target, source), steps, strict=True)
                    )
                    if item == output:
                        pointers = (builder.inttoptr(address, _i8.as_pointer()) for address in (to, start))
                        cgutils.raw_memcpy(builder, *pointers, sizes[0], 1)
                    else:
                        value = context.unpack_value(builder, item, item_pointer(context, builder, item, start))
                        value = context.cast(builder, value, item, output)
                        context.pack_value(builder, output, value, item_pointer(context, builder, output, to))

            with builder.if_else(packed) as (then, otherwise):
                with then:
                    if item == output:
                        # Where they are the same memory this moves nothing; otherwise they are apart.
                        pointers = (builder.inttoptr(address, _i8.as_pointer()) for address in (target, source))
                        cgutils.raw_memmove(builder, *pointers, builder.mul(length, sizes[0]), 1)
                    else:
                        loop(sizes)  # a step that the compiler knows, so that it vectorises
                with otherwise:
                    loop(steps)
            return context.get_dummy_value()

        return types.void(result, types.int64), codegen

    return store


@_compiled
def _fit(out, place, n, itemsize):  # type: ignore[no-untyped-def]
    """Work out what to copy of a returned array, and where to.

    Returns
    -------
    int
        0, or the address of a copy of the chunk, to be released: what was returned overlaps the output without being
        it (a reversed view of the chunk, say, that goes where the chunk was).
    """
    is_core = is_whole = True
    for d in range(n):
        extent = read_word(place, _RETURNED * n + d)
        is_core = is_core and extent == read_word(place, _CORE * n + d)
        is_whole = is_whole and extent == read_word(place, _SHAPE * n + d)
    if not (is_core or is_whole):
        for d in range(n):
            write_word(out, 1 + n + d, read_word(place, _RETURNED * n + d))
        raise ValueError("the function returned an array of another shape than its chunk")
    source, target = read_word(place, _SOURCE * n), read_word(out, 0)
    n_items = 1
    aligned = True
    source_low = source_high = target_low = target_high = 0
    for d in range(n):
        step, out_step = read_word(place, _STEPS * n + d), read_word(out, 1 + d)
        extent = read_word(place, _CORE * n + d)
        write_word(place, _OUT_STEPS * n + d, out_step)
        target += read_word(place, _START * n + d) * out_step
        if not is_core:
            source += read_word(place, _BEFORE * n + d) * step
        n_items *= extent
        aligned = aligned and step == out_step
        source_low, source_high = (
            source_low + min(0, (extent - 1) * step),
            source_high + max(0, (extent - 1) * step),
        )
        target_low, target_high = (
            target_low + min(0, (extent - 1) * out_step),
            target_high + max(0, (extent - 1) * out_step),
        )
    apart = (
        source + source_high + itemsize <= target + target_low or target + target_high + itemsize <= source + source_low
    )
    buffer = 0
    if not (apart or (aligned and source == target)):
        buffer = allocate(n_items * itemsize)
        if buffer == 0:
            raise MemoryError("no memory for a copy of the chunk")
        for item in range(n_items):
            address = source
            rest = item
            for back in range(n):
                d = n - 1 - back
                extent = read_word(place, _CORE * n + d)
                address += rest % extent * read_word(place, _STEPS * n + d)
                rest //= extent
            copy_bytes(buffer + item * itemsize, address, itemsize)
        source = buffer
        step = itemsize
        for back in range(n):
            d = n - 1 - back
            write_word(place, _STEPS * n + d, step)
            step *= read_word(place, _CORE * n + d)
    # Dimensions that run on in both are one row.
    walked = n - 1
    length = read_word(place, _CORE * n + walked)
    step, out_step = read_word(place, _STEPS * n + walked), read_word(place, _OUT_STEPS * n + walked)
    while walked > 0:
        outer, out_outer = (
            read_word(place, _STEPS * n + walked - 1),
            read_word(place, _OUT_STEPS * n + walked - 1),
        )
        if outer != length * step or out_outer != length * out_step:
            break
        walked -= 1
        length *= read_word(place, _CORE * n + walked)
    n_rows = 1
    for d in range(walked):
        n_rows *= read_word(place, _CORE * n + d)
    write_word(place, _SOURCE * n, source)
    write_word(place, _SOURCE * n + _TARGET, target)
    write_word(place, _SOURCE * n + _WALKED, walked)
    write_word(place, _SOURCE * n + _ROWS, n_rows)
    write_word(place, _SOURCE * n + _LENGTH, length)
    return buffer


@_compiled
def _locate_row(place, n, row):  # type: ignore[no-untyped-def]
    """Put down where row number `row` of the copying is."""
    source, target = read_word(place, _SOURCE * n), read_word(place, _SOURCE * n + _TARGET)
    walked = read_word(place, _SOURCE * n + _WALKED)
    for back in range(walked):
        d = walked - 1 - back
        extent = read_word(place, _CORE * n + d)
        source += row % extent * read_word(place, _STEPS * n + d)
        target += row % extent * read_word(place, _OUT_STEPS * n + d)
        row //= extent
    write_word(place, _SOURCE * n + _ROW_SOURCE, source)
    write_word(place, _SOURCE * n + _ROW_TARGET, target)
