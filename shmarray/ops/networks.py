"""Sorting networks that bring one rank to its place: Batcher's odd-even merge sort, without what the rank does not
need."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["selection_network"]


@functools.lru_cache(maxsize=64)
def selection_network(count: int, rank: int) -> np.ndarray[Any, Any]:
    """Exchanges after which place `rank` of `count` values holds the value of that rank.

    Returns
    -------
    ndarray of int64, of shape (exchanges, 2)
        Places to be put in order, the lesser value first; to be done one after another.

    Examples
    --------
    >>> selection_network(3, 1).tolist()
    [[0, 2], [0, 1], [1, 2]]
    """
    needed, kept = {rank}, []
    for low, high in reversed(list(_exchanges(count))):
        if low in needed or high in needed:
            needed |= {low, high}
            kept.append((low, high))
    return np.array(kept[::-1], np.int64).reshape(-1, 2)


def _exchanges(count: int) -> Iterator[tuple[int, int]]:
    """Batcher's network (Knuth, The Art of Computer Programming 3, algorithm 5.2.2M) for any number of values."""
    if count < 2:
        return
    top = 1 << ((count - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            for i in range(count - d):
                if i & p == r:
                    yield i, i + d
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2
