"""Moving windows: sum, least, greatest, and spread of every run of `k` neighbours along an axis.

By doubling: windows of 1, 2, 4, ... elements are joined from two of half their length, and a window of `k` is put
together from those that make up `k` in binary::

    k = 13 = 1 + 4 + 8      | x | x x x x | x x x x x x x x |

That is some `2 log2(k)` steps an element, each a loop along memory that vectorises. What a window gives depends on what
it holds and on nothing else, so the bits are the same wherever an array is cut; sums have the accuracy of pairwise
summation and never subtract, as running sums do.

Arrays are seen as `(before, positions, columns)`, the window moving along the second axis. A tile of positions and
columns is copied, converted and continued beyond its edges, and lies flat: one position further is `columns` elements
further, so both directions of memory are one loop.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._extremes import greatest_or_nan, least_or_nan
from ._jit import inlined, loop, part
from .boundaries import source_index

__all__ = ["moving_max", "moving_mean", "moving_min", "moving_spread", "moving_sum"]


@part
def _gather(tile, source, plane, start, positions, mode, cval, left_column, columns):
    """Copy positions `start` to `start + positions` (beyond the edges too) of some columns."""
    for t in range(positions):
        here = source_index(start + t, source.shape[1], mode)
        row = tile[t * columns : (t + 1) * columns]
        if here < 0:
            row[:] = cval
        else:
            part = source[plane, here, left_column : left_column + columns]
            for j in range(columns):
                row[j] = part[j]


@part
def _gather_line(tile, source, plane, start, positions, mode, cval):
    """The same of a single column: one run of memory."""
    extent = source.shape[1]
    line = source[plane].reshape(extent)
    low, high = max(0, -start), min(positions, extent - start)
    for t in range(low):
        here = source_index(start + t, extent, mode)
        tile[t] = cval if here < 0 else line[here]
    for t in range(low, high):
        tile[t] = line[start + t]
    for t in range(max(low, high), positions):
        here = source_index(start + t, extent, mode)
        tile[t] = cval if here < 0 else line[here]


def _moving(join: Callable[..., Any], finish: Callable[..., Any]) -> Callable[..., Any]:
    joined, finished = inlined(join), inlined(finish)

    @part
    def double(wide, narrow, shift, count):
        """Windows of twice the length."""
        further = narrow[shift:]
        for j in range(count):
            wide[j] = joined(narrow[j], further[j])

    @part
    def extend(total, part, shift, count):
        """Put a window behind each."""
        further = part[shift:]
        for j in range(count):
            total[j] = joined(total[j], further[j])

    @part
    def store(target, total, k, whole):
        for j in range(target.size):
            target[j] = finished(total[j], k, whole)

    def moving(first, last, source, k, left, mode, cval, like, tile_positions, tile_columns, whole, target):
        """Join each window of `k` positions.

        Parameters
        ----------
        first, last : int
            Units to do: tiles of the target, counted through planes, then positions, then columns.
        source : array of shape (planes, positions, columns)
        k : int
            Length of the window.
        left : int
            How far before a position of the target its window begins in the source.
        mode, cval
            What lies beyond the edges, see `shmarray.kernels.boundaries`.
        like : scalar
            Of the type to compute in.
        tile_positions, tile_columns : int
            Extents of a tile of the target.
        whole : bool
            Cut means to whole numbers, as integer arrays do.
        target : array of shape (planes, any, columns)
        """
        _, out_positions, columns = target.shape
        across = (columns + tile_columns - 1) // tile_columns
        along = (out_positions + tile_positions - 1) // tile_positions
        room = (tile_positions + k - 1) * tile_columns
        narrow, wide = np.empty(room, type(like)), np.empty(room, type(like))
        total = np.empty(tile_positions * tile_columns, type(like))
        for unit in range(first, last):
            plane, rest = unit // (along * across), unit % (along * across)
            start, column = rest // across * tile_positions, rest % across * tile_columns
            stop, width = min(out_positions, start + tile_positions), min(tile_columns, columns - column)
            positions = stop - start + k - 1
            if columns == 1:
                _gather_line(narrow, source, plane, start - left, positions, mode, cval)
            else:
                _gather(narrow, source, plane, start - left, positions, mode, cval, column, width)
            have, covered, count = 1, 0, (stop - start) * width
            while True:
                if k & have:
                    if covered == 0:
                        total[:count] = narrow[:count]
                    else:
                        extend(total, narrow, covered * width, count)
                    covered += have
                if covered == k:
                    break
                double(wide, narrow, have * width, (positions - 2 * have + 1) * width)
                narrow, wide = wide, narrow
                have *= 2
            if columns == 1:
                store(target[plane].reshape(out_positions)[start:stop], total, k, whole)
            else:
                for t in range(stop - start):
                    part = total[t * width : (t + 1) * width]
                    store(target[plane, start + t, column : column + width], part, k, whole)

    return loop(moving)


def _sum(a, b):
    return a + b


def _least(a, b):
    return least_or_nan(a, b)


def _greatest(a, b):
    return greatest_or_nan(a, b)


def _itself(value, k, whole):
    return value


def _mean(value, k, whole):
    return np.trunc(value / k) if whole else value / k


moving_sum = _moving(_sum, _itself)
moving_mean = _moving(_sum, _mean)
moving_min = _moving(_least, _itself)
moving_max = _moving(_greatest, _itself)


@part
def _join_spreads(mean, spread, other_mean, other_spread, a, b, ratio, weight, count):
    """Means and squared distances from them, of windows side by side; `ratio` is b's share, `weight` n_a n_b / n.

    Chan, Golub and LeVeque (1979).
    """
    for j in range(count):
        apart = other_mean[j] - a[j]
        spread[j] = b[j] + other_spread[j] + apart * apart * weight
        mean[j] = a[j] + apart * ratio


@part
def _extend_spreads(mean, spread, other_mean, other_spread, ratio, weight, count):
    """The same in place."""
    for j in range(count):
        apart = other_mean[j] - mean[j]
        spread[j] = spread[j] + other_spread[j] + apart * apart * weight
        mean[j] = mean[j] + apart * ratio


@part
def _store_spreads(target, spread, freedom, root):
    for j in range(target.size):
        value = spread[j] / freedom
        target[j] = np.sqrt(value) if root else value


@loop
def moving_spread(first, last, source, k, ddof, root, tile_positions, tile_columns, target):
    """Variance of each window of `k` positions, `ddof` degrees of freedom less; its square root if `root`.

    Other parameters are as above; windows lie within the source, and the computation is in float64.
    """
    _, out_positions, columns = target.shape
    across = (columns + tile_columns - 1) // tile_columns
    along = (out_positions + tile_positions - 1) // tile_positions
    room = (tile_positions + k - 1) * tile_columns
    tables = np.empty((4, room))
    mean, spread = np.empty(tile_positions * tile_columns), np.empty(tile_positions * tile_columns)
    for unit in range(first, last):
        plane, rest = unit // (along * across), unit % (along * across)
        start, column = rest // across * tile_positions, rest % across * tile_columns
        stop, width = min(out_positions, start + tile_positions), min(tile_columns, columns - column)
        positions = stop - start + k - 1
        now, then = tables[:2], tables[2:]
        if columns == 1:
            _gather_line(now[0], source, plane, start, positions, 0, 0.0)
        else:
            _gather(now[0], source, plane, start, positions, 0, 0.0, column, width)
        now[1, : positions * width] = 0
        have, covered, count = 1, 0, (stop - start) * width
        while True:
            if k & have:
                if covered == 0:
                    mean[:count], spread[:count] = now[0, :count], now[1, :count]
                else:
                    shift, n = covered * width, covered + have
                    _extend_spreads(
                        mean, spread, now[0, shift:], now[1, shift:], have / n, covered * (have / n), count
                    )
                covered += have
            if covered == k:
                break
            shift = have * width
            _join_spreads(
                then[0], then[1], now[0, shift:], now[1, shift:], now[0], now[1], 0.5, have / 2,
                (positions - 2 * have + 1) * width,
            )  # fmt: skip
            now, then = then, now
            have *= 2
        if columns == 1:
            _store_spreads(target[plane].reshape(out_positions)[start:stop], spread, k - ddof, root)
        else:
            for t in range(stop - start):
                part = spread[t * width : (t + 1) * width]
                _store_spreads(target[plane, start + t, column : column + width], part, k - ddof, root)
