"""Filters on plain C-contiguous arrays: weighted sums along one or two axes, over any footprint, and ranks.

All of them see the array as `(before, rows, columns)` or as rows of its last dimension, work on units of some rows
(`first` to `last`), and read what lies beyond the edges by `shmarray.kernels.boundaries`. Their inner loops run along
the rows, so that they vectorise: one step adds some taps to a block of a row that stays in the first-level cache.

Sums are taken in the order of scipy.ndimage's line filters, so that float64 results have the same bits as far as the
compilers agree: symmetric weights from the outermost pair inwards on top of the middle, others in order on top of
the last one.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from ._extremes import greater, lesser
from ._jit import loop, part
from .boundaries import source_index

__all__ = ["footprint_rows", "rank_rows", "separable_rows"]

_BLOCK = 1024  # columns worked on at a time


@part
def _part(flat, offset, start, stop, beyond):
    """Columns `start` to `stop` of the row at `offset`; a row beyond the edges is the constant's."""
    if offset < 0:
        return beyond[start:stop]
    return flat[offset + start : offset + stop]


@part
def _copy(out, row):
    for j in range(row.size):
        out[j] = row[j]


@part
def _add_one(out, a, weight):
    for j in range(out.size):
        out[j] += a[j] * weight


@part
def _add_four(out, a, b, c, d, first, second, third, fourth):
    for j in range(out.size):
        out[j] = (((out[j] + a[j] * first) + b[j] * second) + c[j] * third) + d[j] * fourth


@part
def _add_pair(out, a, z, weight):
    for j in range(out.size):
        out[j] += (a[j] + z[j]) * weight


@part
def _add_four_pairs(out, a, z, b, y, c, x, d, w, first, second, third, fourth):
    for j in range(out.size):
        out[j] = (((out[j] + (a[j] + z[j]) * first) + (b[j] + y[j]) * second) + (c[j] + x[j]) * third) + (
            d[j] + w[j]
        ) * fourth


@part
def _weigh(total, flat, offsets, weights, symmetric, beyond):
    """Set `total` to the weighted sum of the rows at `offsets` of `flat`; an offset of -1 is the row `beyond`."""
    size = weights.size
    for start in range(0, total.size, _BLOCK):
        stop = min(total.size, start + _BLOCK)
        out = total[start:stop]
        middle = size // 2 if symmetric else size - 1
        row, weight = _part(flat, offsets[middle], start, stop, beyond), weights[middle]
        for j in range(out.size):
            out[j] = row[j] * weight
        k = 0
        while k + 4 <= middle:
            a = _part(flat, offsets[k], start, stop, beyond)
            b = _part(flat, offsets[k + 1], start, stop, beyond)
            c = _part(flat, offsets[k + 2], start, stop, beyond)
            d = _part(flat, offsets[k + 3], start, stop, beyond)
            if symmetric:
                z = _part(flat, offsets[size - 1 - k], start, stop, beyond)
                y = _part(flat, offsets[size - 2 - k], start, stop, beyond)
                x = _part(flat, offsets[size - 3 - k], start, stop, beyond)
                w = _part(flat, offsets[size - 4 - k], start, stop, beyond)
                _add_four_pairs(out, a, z, b, y, c, x, d, w, weights[k], weights[k + 1], weights[k + 2], weights[k + 3])
            else:
                _add_four(out, a, b, c, d, weights[k], weights[k + 1], weights[k + 2], weights[k + 3])
            k += 4
        while k < middle:
            a = _part(flat, offsets[k], start, stop, beyond)
            if symmetric:
                _add_pair(out, a, _part(flat, offsets[size - 1 - k], start, stop, beyond), weights[k])
            else:
                _add_one(out, a, weights[k])
            k += 1


@loop
def separable_rows(
    first,
    last,
    source,
    rows,
    columns,
    down,
    down_left,
    down_symmetric,
    down_mode,
    along,
    along_left,
    along_symmetric,
    along_mode,
    cval,
    whole,
    width,
    target,
):
    """Correlate with weights along the second axis, then along the last, a row at a time.

    What stands between the two is one row: it never leaves the cache.

    Parameters
    ----------
    first, last : int
        Units to do. A unit is `width` columns of a row; rows of all planes are counted through.
    source, target : 1-D array
        The elements of an array of shape (planes, rows, columns) in C order; float32 or float64, not the same memory.
    rows, columns : int
    down, along : 1-D array
        Weights, of the arrays' dtype; of size 0 for an axis that is left alone.
    down_left, along_left : int
        Which weight meets the element at hand, counted from the first.
    down_symmetric, along_symmetric : bool
        The weights are symmetric and odd in number.
    down_mode, along_mode : int
        See `shmarray.kernels.boundaries`.
    cval : scalar of the arrays' dtype
    whole : bool
        Cut what stands between the two to whole numbers, as integer arrays do.
    width : int
        All columns, if there are weights for both axes.
    """
    blocks = (columns + width - 1) // width
    line = np.empty(width + max(1, along.size) - 1, source.dtype)
    beyond = np.full(width if down.size else 1, cval)
    offsets = np.empty(max(down.size, along.size), np.int64)
    for unit in range(first, last):
        start = unit % blocks * width
        stop = min(columns, start + width)
        row = unit // blocks
        begin, within = row * columns, row % rows
        result = target[begin + start : begin + stop]
        if down.size:
            for k in range(down.size):
                here = source_index(within + k - down_left, rows, down_mode)
                offsets[k] = -1 if here < 0 else begin + (here - within) * columns + start
            if along.size == 0:
                _weigh(result, source, offsets, down, down_symmetric, beyond)
                continue
            middle = line[along_left : along_left + columns]
            _weigh(middle, source, offsets, down, down_symmetric, beyond)
            if whole:
                for j in range(columns):
                    middle[j] = np.trunc(middle[j])
        else:
            middle = source[begin : begin + columns]
            low, high = max(0, start - along_left), min(columns, stop - along_left + along.size - 1)
            _copy(line[low - start + along_left :], middle[low:high])
        for t in range(max(0, along_left - start)):
            here = source_index(start - along_left + t, columns, along_mode)
            line[t] = cval if here < 0 else middle[here]
        length = stop - start + along.size - 1
        for t in range(max(0, columns - start + along_left), length):
            here = source_index(start - along_left + t, columns, along_mode)
            line[t] = cval if here < 0 else middle[here]
        for k in range(along.size):
            offsets[k] = k
        _weigh(result, line, offsets, along, along_symmetric, beyond)


@part
def _lines(row, source, shape, steps, modes, cval, line, left):
    """Fill `line` with the row of `source` that lies `steps` from row number `row`, continued beyond its ends.

    `steps` counts in the dimensions before the last; the first element of `line` is `left` before the row's.
    """
    n = shape.size
    columns = shape[n - 1]
    offset, weight, rest = 0, columns, row
    for back in range(n - 1):
        d = n - 2 - back
        here = source_index(rest % shape[d] + steps[d], shape[d], modes[d])
        if here < 0:
            line[:] = cval
            return
        offset += here * weight
        weight *= shape[d]
        rest //= shape[d]
    low, high = max(0, left), min(line.size, left + columns)
    for t in range(low, high):
        line[t] = source[offset + t - left]
    for t in range(low):
        here = source_index(t - left, columns, modes[n - 1])
        line[t] = cval if here < 0 else source[offset + here]
    for t in range(max(low, high), line.size):
        here = source_index(t - left, columns, modes[n - 1])
        line[t] = cval if here < 0 else source[offset + here]


@loop
def footprint_rows(first, last, source, shape, taps, weights, modes, cval, target):
    """Correlate with any number of taps, wherever they are.

    Parameters
    ----------
    first, last : int
        Rows to do.
    source, target : 1-D array
        The arrays' elements in C order; float32 or float64, not the same memory.
    shape : 1-D array of int64
        Of the array, at least one dimension.
    taps : array of int64, of shape (taps, dimensions)
        Where each tap is, relative to the element at hand, in C order.
    weights : 1-D array
        Of the taps, of the arrays' dtype.
    modes : 1-D array of int64
        By dimension, see `shmarray.kernels.boundaries`.
    cval : scalar of the arrays' dtype
    """
    n = shape.size
    columns = shape[n - 1]
    left = right = 0
    for k in range(weights.size):
        left, right = max(left, -taps[k, n - 1]), max(right, taps[k, n - 1])
    line = np.empty(left + columns + right, source.dtype)
    for row in range(first, last):
        total = target[row * columns : (row + 1) * columns]
        total[:] = 0
        for k in range(weights.size):
            fresh = k == 0
            for d in range(n - 1):
                fresh = fresh or taps[k, d] != taps[k - 1, d]
            if fresh:
                _lines(row, source, shape, taps[k], modes, cval, line, left)
            shift = left + taps[k, n - 1]
            _add_one(total, line[shift : shift + columns], weights[k])


@loop
def rank_rows(first, last, source, shape, taps, exchanges, rank, modes, cval, target):
    """The element of some rank among those under the taps (0 is the least).

    A block of columns is taken at a time: what lies under each tap is a row of a table, whose columns are sorted all at
    once by a sorting network, as far as the wanted rank needs it.

    Parameters
    ----------
    exchanges : array of int64, of shape (exchanges, 2)
        The network: rows to be compared and put in order, one after another.
    rank : int
        The row of the table that has the result in the end.

    Others are as for `footprint_rows`; the arrays may have any ordered dtype. Where there are nans, the result is not
    defined.
    """
    n = shape.size
    columns = shape[n - 1]
    left = right = 0
    for k in range(taps.shape[0]):
        left, right = max(left, -taps[k, n - 1]), max(right, taps[k, n - 1])
    line = np.empty(left + columns + right, source.dtype)
    width = min(columns, max(16, 8192 // taps.shape[0]))
    table = np.empty((taps.shape[0], columns), source.dtype)
    for row in range(first, last):
        for k in range(taps.shape[0]):
            fresh = k == 0
            for d in range(n - 1):
                fresh = fresh or taps[k, d] != taps[k - 1, d]
            if fresh:
                _lines(row, source, shape, taps[k], modes, cval, line, left)
            shift = left + taps[k, n - 1]
            _copy(table[k], line[shift : shift + columns])
        for start in range(0, columns, width):
            stop = min(columns, start + width)
            for e in range(exchanges.shape[0]):
                _exchange(table[exchanges[e, 0], start:stop], table[exchanges[e, 1], start:stop])
        _copy(target[row * columns : (row + 1) * columns], table[rank])


@part
def _exchange(low, high):
    for j in range(low.size):
        a, b = low[j], high[j]
        low[j] = lesser(a, b)
        high[j] = greater(a, b)
