"""The driver of stencils: cut each chunk into its inside and its borders, and apply the function row by row.

The inside needs no test of where it is: windows look into the arrays themselves. A border's surroundings are put
together in a buffer first, continued by the boundary mode, and windows look into that; so the function is compiled once
and modes are data. An array whose last dimension is not contiguous is looked at through the buffer everywhere.

The block of numbers that a driver reads (64-bit words), n being the number of dimensions, m of arrays::

    5 d                  extent, chunk, count, halo, boundary mode of dimension d
    5 n + k (4 + n)      array k: address, item size, address of its cval, whether it is packed along the last
                         dimension; then its stride in each dimension. The output is the last (k = m).
    behind these         one address for each scalar

What a driver works out stands in a second block, see `_CHUNK` and following. Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from shmarray import jit
from shmarray.engine.calls import emit_call, resolve
from shmarray.engine.memory import (
    allocate,
    item_pointer,
    plain_integer,
    read_word,
    release,
    reserve_words,
    write_word,
)
from shmarray.engine.windows import WindowType, emit_window, mark_output
from shmarray.kernels.boundaries import source_index
from shmarray.kernels.vectors import wide_vectors
from shmarray.pool.atomics import copy_bytes, monotonic_ns
from shmarray.pool.dispatch import claim, finish, over_budget

__all__ = ["make_driver"]

_i8, _i64 = ir.IntType(8), ir.IntType(64)
_compiled = numba.njit(**jit.options())

# Places in the second block, in units of n words: first and last index of the chunk, of what of it is still to be done,
# of the box at hand (a border or the inside), and of the tile of it at hand; a tile's greatest extents; where a row is
# in its tile; extents of the tile with its halo.
_CHUNK, _LEFT, _BOX, _TILE, _TILING, _ROW, _WIDE, _AREAS = 0, 2, 4, 6, 8, 9, 10, 11
# Behind these: the buffer's address, and the length of a row; then of each array k where its tile begins, where its row
# begins, and its strides in the tile.
_BUFFER, _LENGTH, _OPERANDS = 0, 1, 2

#: Items of a tile with its halo, over all arrays: what is put together in a buffer stays in the second-level cache.
_TILE_ITEMS = 1 << 15
_NONE = -(1 << 62)  # among offsets: the constant


def make_driver(
    function: Any, inputs: Sequence[types.Type], n_arrays: int, output: types.Type, n_dims: int
) -> Callable[[int, int, int, int], int]:
    """A driver, to be compiled for four int64 arguments (page, block, lane, budget in nanoseconds).

    Parameters
    ----------
    function : numba dispatcher
        Takes windows and scalars, gives one value.
    inputs : sequence of type
        A window's type for each array, the scalar's for each scalar.
    n_arrays : int
    output : type
        The items' type of the output; values are cast to it.
    n_dims : int
    """
    reserve = reserve_words(_AREAS * n_dims + _OPERANDS + (n_arrays + 1) * (2 + n_dims))
    apply_row = _make_row(function, inputs, n_arrays, output, n_dims)

    def driver(page, block, lane, budget_ns):  # type: ignore[no-untyped-def]
        wide_vectors()
        started = monotonic_ns()
        place = reserve()
        n, m = plain_integer(n_dims), plain_integer(n_arrays)
        while True:
            index = claim(page, lane)
            if index < 0:
                return 0
            _first_box(block, place, n, index)
            for part in range(2 * n + 1):
                more = _cut_box(block, place, n, m, part)
                while more:
                    rows = _prepare_tile(block, place, n, m, part == 2 * n)
                    for row in range(rows):
                        _to_row(place, n, m, row)
                        apply_row(block, place)
                    more = _next_tile(place, n)
                    if read_word(place, _AREAS * n + _BUFFER) != 0:
                        release(read_word(place, _AREAS * n + _BUFFER))
            finish(page, lane, index)
            if over_budget(started, budget_ns):
                return 1

    return driver


# These are functions by themselves, of integers alone, so that a process compiles them once for all kernels.


@_compiled
def _first_box(block, place, n, index):  # type: ignore[no-untyped-def]
    """Put down where chunk number `index` is; all of it is left to be done."""
    rest = index
    for back in range(n):
        d = n - 1 - back
        extent, chunk, count = read_word(block, 5 * d), read_word(block, 5 * d + 1), read_word(block, 5 * d + 2)
        start = rest % count * chunk
        rest //= count
        for area in (_CHUNK, _LEFT):
            write_word(place, area * n + d, start)
            write_word(place, (area + 1) * n + d, min(extent, start + chunk))


@_compiled
def _cut_box(block, place, n, m, part):  # type: ignore[no-untyped-def]
    """Take box number `part` off what is left: two borders for each dimension, and then the inside.

    Returns
    -------
    bool
        Whether there is anything in it.
    """
    for d in range(n):
        write_word(place, _BOX * n + d, read_word(place, _LEFT * n + d))
        write_word(place, (_BOX + 1) * n + d, read_word(place, (_LEFT + 1) * n + d))
    if part < 2 * n:
        d = part // 2
        extent, halo = read_word(block, 5 * d), read_word(block, 5 * d + 3)
        start, stop = read_word(place, _LEFT * n + d), read_word(place, (_LEFT + 1) * n + d)
        if part % 2 == 0:
            edge = max(start, min(stop, min(halo, extent)))
            write_word(place, (_BOX + 1) * n + d, edge)
            write_word(place, _LEFT * n + d, edge)
        else:
            edge = max(start, min(stop, extent - halo))
            write_word(place, _BOX * n + d, edge)
            write_word(place, (_LEFT + 1) * n + d, edge)
    packed = True
    for k in range(m):
        packed = packed and read_word(block, 5 * n + k * (4 + n) + 3) != 0
    items = m
    for d in range(n):
        extent = read_word(place, (_BOX + 1) * n + d) - read_word(place, _BOX * n + d)
        if extent <= 0:
            return False
        write_word(place, _TILING * n + d, extent)
        items *= extent + 2 * read_word(block, 5 * d + 3)
    if part < 2 * n or not packed:
        # Halve it until a buffer of it is small. The last dimension is the row: it is kept eight times longer.
        while items > _TILE_ITEMS:
            longest, most = 0, 0
            for d in range(n):
                extent = read_word(place, _TILING * n + d)
                weight = extent // 8 if d == n - 1 and extent > 8 else extent
                if weight > most:
                    longest, most = d, weight
            extent = read_word(place, _TILING * n + longest)
            if extent < 2:
                break
            halo = read_word(block, 5 * longest + 3)
            items = items // (extent + 2 * halo) * ((extent + 1) // 2 + 2 * halo)
            write_word(place, _TILING * n + longest, (extent + 1) // 2)
    for d in range(n):
        start = read_word(place, _BOX * n + d)
        write_word(place, _TILE * n + d, start)
        stop = min(read_word(place, (_BOX + 1) * n + d), start + read_word(place, _TILING * n + d))
        write_word(place, (_TILE + 1) * n + d, stop)
    return True


@_compiled
def _next_tile(place, n):  # type: ignore[no-untyped-def]
    """Go to the next tile of the box; False after the last."""
    for back in range(n):
        d = n - 1 - back
        end, extent = read_word(place, (_BOX + 1) * n + d), read_word(place, _TILING * n + d)
        start = read_word(place, (_TILE + 1) * n + d)
        more = start < end
        if not more:
            start = read_word(place, _BOX * n + d)
        write_word(place, _TILE * n + d, start)
        write_word(place, (_TILE + 1) * n + d, min(end, start + extent))
        if more:
            return True
    return False


@_compiled
def _prepare_tile(block, place, n, m, is_inside):  # type: ignore[no-untyped-def]
    """Put down where the tile's windows begin, having filled a buffer where they cannot look into an array itself.

    Returns
    -------
    int
        How many rows the tile has.
    """
    numbers = place + 8 * (_AREAS * n)
    operands = numbers + 8 * _OPERANDS
    rows, items, tables = 1, 1, 0
    for d in range(n):
        extent = read_word(place, (_TILE + 1) * n + d) - read_word(place, _TILE * n + d)
        wide = extent + 2 * read_word(block, 5 * d + 3)
        write_word(place, _WIDE * n + d, wide)
        items *= wide
        tables += wide
        if d < n - 1:
            rows *= extent
        else:
            write_word(numbers, _LENGTH, extent)
    nbytes = 0
    for k in range(m):
        if not is_inside or read_word(block, 5 * n + k * (4 + n) + 3) == 0:
            nbytes += (items * read_word(block, 5 * n + k * (4 + n) + 1) + 63) // 64 * 64
    buffer = 0
    if nbytes != 0:
        buffer = allocate(nbytes + 8 * tables)
        if buffer == 0:
            raise MemoryError("no memory for the surroundings of a border")
    write_word(numbers, _BUFFER, buffer)
    here = buffer + 8 * tables
    for k in range(m + 1):
        words, operand = block + 8 * (5 * n + k * (4 + n)), operands + 8 * k * (2 + n)
        itemsize = read_word(words, 1)
        if k == m or (is_inside and read_word(words, 3) != 0):
            address = read_word(words, 0)
            for d in range(n):
                step = read_word(words, 4 + d)
                write_word(operand, 2 + d, step)
                address += read_word(place, _TILE * n + d) * step
        else:
            address, step = here, itemsize
            for back in range(n):
                d = n - 1 - back
                write_word(operand, 2 + d, step)
                address += read_word(block, 5 * d + 3) * step
                step *= read_word(place, _WIDE * n + d)
            _fill(block, place, words, n, buffer, here)
            here += (items * itemsize + 63) // 64 * 64
        write_word(operand, 0, address)
    return rows


@_compiled
def _fill(block, place, words, n, tables, target):  # type: ignore[no-untyped-def]
    """Put the tile at hand of an array, with its halo, at `target`; `tables` is room for one word an index."""
    itemsize, constant, step = read_word(words, 1), read_word(words, 2), read_word(words, 4 + n - 1)
    rows, word = 1, 0
    for d in range(n):
        extent, halo, mode = read_word(block, 5 * d), read_word(block, 5 * d + 3), read_word(block, 5 * d + 4)
        first, wide = read_word(place, _TILE * n + d) - halo, read_word(place, _WIDE * n + d)
        for i in range(wide):
            source = source_index(first + i, extent, mode)
            write_word(tables, word, _NONE if source < 0 else source * read_word(words, 4 + d))
            word += 1
        if d < n - 1:
            rows *= wide
    # What of a row lies within the array, and is one run of memory there.
    extent, length = read_word(block, 5 * (n - 1)), read_word(place, _WIDE * n + n - 1)
    first = read_word(place, _TILE * n + n - 1) - read_word(block, 5 * (n - 1) + 3)
    low, high = max(0, -first), min(length, extent - first)
    if step != itemsize or low > high:
        low = high = length
    last = tables + 8 * (word - length)
    for row in range(rows):
        source, rest, end = read_word(words, 0), row, word - length
        for back in range(n - 1):
            d = n - 2 - back
            wide = read_word(place, _WIDE * n + d)
            end -= wide
            offset = read_word(tables, end + rest % wide)
            rest //= wide
            if offset == _NONE or source == _NONE:
                source = _NONE
            else:
                source += offset
        if source == _NONE:
            for i in range(length):
                _copy_item(target + i * itemsize, constant, itemsize)
        else:
            for i in range(low):
                offset = read_word(last, i)
                _copy_item(target + i * itemsize, constant if offset == _NONE else source + offset, itemsize)
            if low < high:
                copy_bytes(target + low * itemsize, source + read_word(last, low), (high - low) * itemsize)
            for i in range(high, length):
                offset = read_word(last, i)
                _copy_item(target + i * itemsize, constant if offset == _NONE else source + offset, itemsize)
        target += length * itemsize


@intrinsic
def _copy_item(typingctx, target, source, itemsize):  # type: ignore[no-untyped-def]
    """Copy one item, by one load and store where it has the size of a number."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, source, itemsize = args
        done = builder.append_basic_block("copied")
        other = builder.append_basic_block("other")
        switch = builder.switch(itemsize, other)
        for nbytes in (1, 2, 4, 8, 16):
            with builder.goto_block(builder.append_basic_block(f"copy{nbytes}")):
                switch.add_case(_i64(nbytes), builder.block)
                number = ir.IntType(8 * nbytes).as_pointer()
                value = builder.load(builder.inttoptr(source, number), align=1)
                builder.store(value, builder.inttoptr(target, number), align=1)
                builder.branch(done)
        builder.position_at_end(other)
        pointers = (builder.inttoptr(address, _i8.as_pointer()) for address in (target, source))
        cgutils.raw_memcpy(builder, *pointers, itemsize, 1)
        builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@_compiled
def _to_row(place, n, m, row):  # type: ignore[no-untyped-def]
    """Put down where row number `row` of the tile begins in each array."""
    rest = row
    for back in range(n - 1):
        d = n - 2 - back
        extent = read_word(place, (_TILE + 1) * n + d) - read_word(place, _TILE * n + d)
        write_word(place, _ROW * n + d, rest % extent)
        rest //= extent
    for k in range(m + 1):
        operand = place + 8 * (_AREAS * n + _OPERANDS + k * (2 + n))
        address = read_word(operand, 0)
        for d in range(n - 1):
            address += read_word(place, _ROW * n + d) * read_word(operand, 2 + d)
        write_word(operand, 1, address)


def _make_row(function: Any, inputs: Sequence[types.Type], m: int, output: types.Type, n: int) -> Any:
    """A compiled function (block, place) that applies the user's function to each element of the row at hand."""

    @intrinsic
    def apply_row(typingctx, block, place):  # type: ignore[no-untyped-def]
        result = resolve(typingctx, function, inputs)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            block, place = args

            def load(address: Any, word: int) -> Any:
                return builder.load(builder.gep(builder.inttoptr(address, _i64.as_pointer()), [_i64(word)]))

            values: list[Any] = []
            windows: dict[int, tuple[Any, list[Any], Any]] = {}
            scalar = 5 * n + (m + 1) * (4 + n)
            for position, kind in enumerate(inputs):
                if isinstance(kind, WindowType):
                    operand = _AREAS * n + _OPERANDS + len(windows) * (2 + n)
                    start = builder.inttoptr(load(place, operand + 1), _i8.as_pointer())
                    size = _i64(context.get_abi_sizeof(context.get_data_type(kind.item)))
                    windows[position] = start, [load(place, operand + 2 + d) for d in range(n - 1)], size
                    values.append(None)
                else:
                    pointer = item_pointer(context, builder, kind, load(block, scalar))
                    values.append(context.unpack_value(builder, kind, pointer))
                    scalar += 1
            operand = _AREAS * n + _OPERANDS + m * (2 + n)
            target = item_pointer(context, builder, output, load(place, operand + 1))
            length = load(place, _AREAS * n + _LENGTH)
            with cgutils.for_range(builder, length) as at:
                for position, (start, strides, size) in windows.items():
                    here = builder.gep(start, [builder.mul(at.index, size)], inbounds=True)
                    values[position] = emit_window(context, builder, inputs[position], here, strides)
                value = emit_call(context, builder, function, result, values)
                before = len(builder.block.instructions)
                value = context.cast(builder, value, result.return_type, output)
                context.pack_value(builder, output, value, builder.gep(target, [at.index], inbounds=True))
                mark_output(builder, before)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return apply_row
