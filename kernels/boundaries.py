"""What lies beyond the edges of an array: the five boundary modes of scipy.ndimage, as indices.

============  ===================================  ==================================================
mode          an array a b c d is continued as     index
============  ===================================  ==================================================
reflect       d c b a | a b c d | d c b a          period 2 n, the edge is repeated
constant      k k k k | a b c d | k k k k          none: the value is `cval`
nearest       a a a a | a b c d | d d d d          the nearest edge's
mirror        d c b | a b c d | c b a              period 2 n - 2, the edge is not repeated
wrap          a b c d | a b c d | a b c d          period n
============  ===================================  ==================================================

Distances may be any: an array shorter than a filter is continued again and again.
"""

from __future__ import annotations

from ._jit import loop

__all__ = ["CONSTANT", "MIRROR", "NEAREST", "REFLECT", "WRAP", "source_index"]

REFLECT, CONSTANT, NEAREST, MIRROR, WRAP = range(5)


@loop
def source_index(i: int, n: int, mode: int) -> int:
    """Where the element at index `i` of an array of `n` elements comes from.

    Parameters
    ----------
    i : int
        Any index; below 0 and from `n` on are beyond the edges.
    n : int
        At least 1.
    mode : int
        One of this module's.

    Returns
    -------
    int
        From 0 to `n - 1`; -1 for the constant.

    Examples
    --------
    >>> [source_index(i, 3, REFLECT) for i in range(-3, 6)]
    [2, 1, 0, 0, 1, 2, 2, 1, 0]
    >>> [source_index(i, 3, MIRROR) for i in range(-3, 6)]
    [1, 2, 1, 0, 1, 2, 1, 0, 1]
    """
    if 0 <= i < n:
        return i
    if mode == CONSTANT:
        return -1
    if mode == NEAREST:
        return 0 if i < 0 else n - 1
    if mode == WRAP:
        return i % n
    if mode == REFLECT:
        i %= 2 * n
        return i if i < n else 2 * n - 1 - i
    if n == 1:
        return 0
    i %= 2 * n - 2
    return i if i < n else 2 * n - 2 - i
