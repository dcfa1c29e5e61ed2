"""Moving windows: sum, least, greatest, and spread of every run of `k` neighbours along an axis.

By doubling: windows of 1, 2, 4, ... elements are joined from two of half their length, and a window of `k` is put
together from those that make up `k` in binary::

    k = 13 = 1 + 4 + 8      | x | x x x x | x x x x x x x x |

That is some `2 log2(k)` steps an element, each a loop along memory that vectorises. What a window gives depends on what
it holds and on nothing else, so the bits are the same wherever an array is cut; sums have the accuracy of pairwise
summation and never subtract, as running sums do.

An array of any rank is seen as `(planes, positions, columns)`, the window moving along the second axis, and given by
its elements in C order. A tile of positions and columns is copied, converted and continued beyond its edges, and lies
flat: one position further is `columns` elements further, so windows along rows and along columns are one and the same
loop.
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
def _copy(out, to, source, start, count):
    target, part = out[to : to + count], source[start : start + count]
    for j in range(count):
        target[j] = part[j]


@part
def _gather(tile, source, base, extent, columns, start, positions, column, width, mode, cval):
    """Copy some columns of positions `start` to `start + positions`, some of them beyond the edges, into a tile.

    `base` is where the plane begins in `source`; it has `extent` positions of `columns` columns.
    """
    low, high = min(positions, max(0, -start)), max(0, min(positions, extent - start))
    if width == columns and low < high:  # one run of memory
        _copy(tile, low * width, source, base + (start + low) * columns, (high - low) * width)
    for t in range(positions):
        if width == columns and low <= t < high:
            continue
        here = source_index(start + t, extent, mode)
        if here < 0:
            tile[t * width : (t + 1) * width] = cval
        else:
            _copy(tile, t * width, source, base + here * columns + column, width)


def _moving(join: Callable[..., Any], finish: Callable[..., Any]) -> Callable[..., Any]:
    joined, finished = inlined(join), inlined(finish)

    @part
    def combine(out, a, b, shift, count):
        """Windows that are put together from one, and another that begins `shift` elements further."""
        further = b[shift : shift + count]
        for j in range(count):
            out[j] = joined(a[j], further[j])

    @part
    def store(out, to, total, start, count, k, whole):
        target, part = out[to : to + count], total[start : start + count]
        for j in range(count):
            target[j] = finished(part[j], k, whole)

    def moving(
        first, last, source, extent, out_extent, columns, k, left, mode, cval, tile_positions, tile_columns, whole,
        target,
    ):  # fmt: skip
        """Join each window of `k` positions.

        Parameters
        ----------
        first, last : int
            Units to do: tiles of the target, counted through planes, then positions, then columns.
        source : 1-D array
        extent, out_extent : int
            Positions of the source, and of the target.
        columns : int
            Of both.
        k : int
            Length of the window.
        left : int
            How far before a position of the target its window begins in the source.
        mode : int
            What lies beyond the edges, see `shmarray.kernels.boundaries`.
        cval : scalar
            Of the type to compute in.
        tile_positions, tile_columns : int
            Extents of a tile of the target.
        whole : bool
            Cut means to whole numbers, as integer arrays do.
        target : 1-D array
        """
        across = (columns + tile_columns - 1) // tile_columns
        along = (out_extent + tile_positions - 1) // tile_positions
        room = (tile_positions + k - 1) * tile_columns
        narrow, wide = np.full(room, cval), np.empty(room, type(cval))
        total, spare = np.empty(room, type(cval)), np.empty(room, type(cval))
        for unit in range(first, last):
            plane, rest = unit // (along * across), unit % (along * across)
            start, column = rest // across * tile_positions, rest % across * tile_columns
            stop, width = min(out_extent, start + tile_positions), min(tile_columns, columns - column)
            positions = stop - start + k - 1
            base = plane * extent * columns
            _gather(narrow, source, base, extent, columns, start - left, positions, column, width, mode, cval)
            have, covered, count = 1, 0, (stop - start) * width
            while True:
                if k & have:
                    if covered == 0:
                        _copy(total, 0, narrow, 0, count)
                    else:
                        combine(spare, total, narrow, covered * width, count)
                        total, spare = spare, total
                    covered += have
                if covered == k:
                    break
                combine(wide, narrow, narrow, have * width, (positions - 2 * have + 1) * width)
                narrow, wide = wide, narrow
                have *= 2
            to = (plane * out_extent + start) * columns + column
            if width == columns:
                store(target, to, total, 0, count, k, whole)
            else:
                for t in range(stop - start):
                    store(target, to + t * columns, total, t * width, width, k, whole)

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
def _join_spreads(out, a, b, room, shift, ratio, weight, count):
    """Means and squared distances from them of windows side by side: Chan, Golub and LeVeque (1979).

    In each array the means stand first and the distances `room` further; `ratio` is b's share of the elements, `weight`
    is `n_a n_b / n`.
    """
    mean, mean_a, mean_b = out[:count], a[:count], b[shift : shift + count]
    spread, spread_a, spread_b = out[room:], a[room:], b[room + shift :]
    for j in range(count):
        apart = mean_b[j] - mean_a[j]
        spread[j] = spread_a[j] + spread_b[j] + apart * apart * weight
        mean[j] = mean_a[j] + apart * ratio


@part
def _store_spreads(out, to, spread, start, count, freedom, root):
    target, part = out[to : to + count], spread[start : start + count]
    for j in range(count):
        value = part[j] / freedom
        target[j] = np.sqrt(value) if root else value


@loop
def moving_spread(
    first, last, source, extent, out_extent, columns, k, ddof, root, tile_positions, tile_columns, target
):
    """Variance of each window of `k` positions, `ddof` degrees of freedom less; its square root if `root`.

    Other parameters are as above; windows lie within the source, and the computation is in float64.
    """
    across = (columns + tile_columns - 1) // tile_columns
    along = (out_extent + tile_positions - 1) // tile_positions
    room = (tile_positions + k - 1) * tile_columns
    narrow, wide, total, spare = np.empty(2 * room), np.empty(2 * room), np.empty(2 * room), np.empty(2 * room)
    for unit in range(first, last):
        plane, rest = unit // (along * across), unit % (along * across)
        start, column = rest // across * tile_positions, rest % across * tile_columns
        stop, width = min(out_extent, start + tile_positions), min(tile_columns, columns - column)
        positions = stop - start + k - 1
        _gather(narrow, source, plane * extent * columns, extent, columns, start, positions, column, width, 0, 0.0)
        narrow[room : room + positions * width] = 0.0
        have, covered, count = 1, 0, (stop - start) * width
        while True:
            if k & have:
                if covered == 0:
                    _copy(total, 0, narrow, 0, count)
                    _copy(total, room, narrow, room, count)
                else:
                    n = covered + have
                    _join_spreads(spare, total, narrow, room, covered * width, have / n, covered * (have / n), count)
                    total, spare = spare, total
                covered += have
            if covered == k:
                break
            _join_spreads(wide, narrow, narrow, room, have * width, 0.5, have / 2, (positions - 2 * have + 1) * width)
            narrow, wide = wide, narrow
            have *= 2
        to = (plane * out_extent + start) * columns + column
        if width == columns:
            _store_spreads(target, to, total, room, count, k - ddof, root)
        else:
            for t in range(stop - start):
                _store_spreads(target, to + t * columns, total, room + t * width, width, k - ddof, root)
