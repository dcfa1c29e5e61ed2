"""Random numbers by counting: Philox4x32-10, and what is made of its words.

Block number `i` of a stream is a function of `i` and of the seed, nothing else: so any part of a stream can be made by
anybody at any time, and an array holds the same numbers however it is cut. The generator is that of Salmon, Moraes,
Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), with the constants of Random123. (NumPy's Philox
is the one of 64-bit multiplications, which no vector unit has.)

A block is four numbers of 32 bits; words of 64 bits are pairs of them, the first the lower half::

    counter:  block number (64 bits) | seed (64 bits)         key:  seed (64 bits)
    block:    word 2 i               | word 2 i + 1

========  =====================================================  ==========================================
fill      element i is made of                                   of range
========  =====================================================  ==========================================
uniform   the upper 52 bits of word i (float32: its upper 24)    [0, 1)
normal    words 2 k and 2 k + 1, for elements 2 k and 2 k + 1    within 8.5 standard deviations
integers  the upper half of word i times the count               bias below count / 2**64
========  =====================================================  ==========================================

Normal numbers are Box and Muller's (1958), without a branch: the radius is of a logarithm, the direction of the series
of sine and cosine within an eighth of a turn, whose remainders are below 2**-54 there. float32 takes them rounded.

Work is counted in blocks of 1024 elements.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types

from ._jit import inlined, intrinsic, loop, part
from .math import log

__all__ = ["BLOCK", "fill_integers", "fill_normal", "fill_uniform", "fill_words", "philox4x32", "shuffle"]

#: Elements made at a time: their words stay in the first-level cache.
BLOCK = 1024

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_ONE = np.uint64(0x3FF0000000000000)  # the bits of 1.0


@intrinsic
def multiply_high(typing, a, b):
    """The upper 64 bits of the product of two uint64."""

    def generate(context, builder, signature, args):
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(arg, wide) for arg in args))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


@inlined
def _round(a, b, c, d, k0, k1):
    # Upper halves of `b` and `d` are left as they come: only lower halves are ever multiplied. So a round is two
    # multiplications of 32 by 32 bits, which vector units have.
    first, second = (a & _LOW) * _M0, (c & _LOW) * _M1
    return (second >> _HALF) ^ b ^ k0, second, (first >> _HALF) ^ d ^ k1, first


@inlined
def philox4x32(c0, c1, c2, c3, k0, k1):
    """The four numbers below 2**32 that ten rounds make of a counter and a key; all are uint64 below 2**32.

    Examples
    --------
    >>> import numpy as np
    >>> zero = np.uint64(0)
    >>> hex(philox4x32(zero, zero, zero, zero, zero, zero)[0])
    '0x6627e8d5'
    """
    # Written out: LLVM vectorises the loop around it only if there is none inside.
    a, b, c, d = _round(c0, c1, c2, c3, k0, k1)
    a, b, c, d = _round(a, b, c, d, (k0 + _W0) & _LOW, (k1 + _W1) & _LOW)
    a, b, c, d = _round(a, b, c, d, (k0 + np.uint64(2) * _W0) & _LOW, (k1 + np.uint64(2) * _W1) & _LOW)
    a, b, c, d = _round(a, b, c, d, (k0 + np.uint64(3) * _W0) & _LOW, (k1 + np.uint64(3) * _W1) & _LOW)
    a, b, c, d = _round(a, b, c, d, (k0 + np.uint64(4) * _W0) & _LOW, (k1 + np.uint64(4) * _W1) & _LOW)
    a, b, c, d = _round(a, b, c, d, (k0 + np.uint64(5) * _W0) & _LOW, (k1 + np.uint64(5) * _W1) & _LOW)
    a, b, c, d = _round(a, b, c, d, (k0 + np.uint64(6) * _W0) & _LOW, (k1 + np.uint64(6) * _W1) & _LOW)
    a, b, c, d = _round(a, b, c, d, (k0 + np.uint64(7) * _W0) & _LOW, (k1 + np.uint64(7) * _W1) & _LOW)
    a, b, c, d = _round(a, b, c, d, (k0 + np.uint64(8) * _W0) & _LOW, (k1 + np.uint64(8) * _W1) & _LOW)
    a, b, c, d = _round(a, b, c, d, (k0 + np.uint64(9) * _W0) & _LOW, (k1 + np.uint64(9) * _W1) & _LOW)
    return a & _LOW, b & _LOW, c & _LOW, d & _LOW


@part
def _make_words(words, block, key, salt):
    """Fill `words`, whose size is even, from block number `block` on."""
    k0, k1, c2, c3 = key & _LOW, key >> _HALF, salt & _LOW, salt >> _HALF
    for i in range(words.size // 2):
        counter = block + np.uint64(i)
        a, b, c, d = philox4x32(counter & _LOW, counter >> _HALF, c2, c3, k0, k1)
        words[2 * i] = a | (b << _HALF)
        words[2 * i + 1] = c | (d << _HALF)


@part
def _block_words(words, first, key, salt):
    """Word number `first` of the stream and those after it, in a part of `words`, which has room for two more."""
    _make_words(words, first // np.uint64(2), key, salt)
    return words[np.int64(first % np.uint64(2)) :]


@loop
def fill_words(first, last, key, salt, start, out):
    """The words themselves.

    Parameters
    ----------
    first, last : int
        Blocks of `BLOCK` elements to do.
    key, salt : uint64
        The seed: both halves of the key, and the upper half of the counter.
    start : uint64
        Which word of the stream belongs to element 0.
    out : 1-D array of uint64
    """
    words = np.empty(BLOCK + 2, np.uint64)
    for block in range(first, last):
        taken = _block_words(words, start + np.uint64(block * BLOCK), key, salt)
        target = out[block * BLOCK : (block + 1) * BLOCK]
        for i in range(target.size):
            target[i] = taken[i]


@loop
def fill_uniform(first, last, key, salt, start, low, width, bits, out):
    """`low + width * u`, u uniform in [0, 1) and a multiple of `2**-bits`; `out` of float64 or float32.

    `bits` is 52 or, for float32, 24, so that 1 is never reached by rounding. Others are as for `fill_words`.
    """
    words = np.empty(BLOCK + 2, np.uint64)
    kept = (np.uint64(1) << np.uint64(bits)) - np.uint64(1) << np.uint64(52 - bits)
    for block in range(first, last):
        taken = _block_words(words, start + np.uint64(block * BLOCK), key, salt)
        _to_fractions(taken, kept)
        fractions, target = taken.view(np.float64), out[block * BLOCK : (block + 1) * BLOCK]
        for i in range(target.size):
            target[i] = low + width * (fractions[i] - 1.0)


@loop
def fill_integers(first, last, key, salt, start, low, count, out):
    """`low` plus a whole number below `count` (0 stands for 2**64), modulo the range of `out`.

    `low` and `count` are uint64, `out` is of unsigned integers. Others are as for `fill_words`.
    """
    words = np.empty(BLOCK + 2, np.uint64)
    for block in range(first, last):
        taken = _block_words(words, start + np.uint64(block * BLOCK), key, salt)
        target = out[block * BLOCK : (block + 1) * BLOCK]
        for i in range(target.size):
            target[i] = low + (taken[i] if count == 0 else multiply_high(taken[i], count))


@loop
def fill_normal(first, last, key, salt, start, mean, deviation, out):
    """Normal numbers; `out` of float64 or float32, `start` even. Others are as for `fill_words`."""
    words = np.empty(BLOCK, np.uint64)
    fractions, normals = words.view(np.float64), np.empty(BLOCK)
    for block in range(first, last):
        _make_words(words, (start + np.uint64(block * BLOCK)) // np.uint64(2), key, salt)
        _to_fractions(words, ~np.uint64(0))
        _box_muller(fractions, normals)
        target = out[block * BLOCK : (block + 1) * BLOCK]
        for i in range(target.size):
            target[i] = mean + deviation * normals[i]


@part
def _to_fractions(words, kept):
    """Make the bits of a float64 from 1 to 2 of each word, with those of its upper 52 bits that `kept` has.

    No conversion, which AVX2 has not got for 64-bit integers.
    """
    for i in range(words.size):
        words[i] = ((words[i] >> np.uint64(12)) & kept) | _ONE


@part
def _box_muller(fractions, normals):
    """Pairs of normal numbers from pairs of numbers in [1, 2)."""
    for k in range(normals.size // 2):
        radius = np.sqrt(-2.0 * log(2.0 - fractions[2 * k]))  # of what lies in (0, 1]
        # A quarter of a turn is 1; all of this is exact.
        turned = 4.0 * (fractions[2 * k + 1] - 1.0)
        quarter = np.floor(turned + 0.5)
        x = (turned - quarter) * 1.5707963267948966
        y = x * x
        sine = -1 / 1307674368000.0
        sine = sine * y + 1 / 6227020800.0
        sine = sine * y - 1 / 39916800.0
        sine = sine * y + 1 / 362880.0
        sine = sine * y - 1 / 5040.0
        sine = sine * y + 1 / 120.0
        sine = sine * y - 1 / 6.0
        sine = x + x * y * sine
        cosine = 1 / 20922789888000.0
        cosine = cosine * y - 1 / 87178291200.0
        cosine = cosine * y + 1 / 479001600.0
        cosine = cosine * y - 1 / 3628800.0
        cosine = cosine * y + 1 / 40320.0
        cosine = cosine * y - 1 / 720.0
        cosine = cosine * y + 1 / 24.0
        cosine = cosine * y - 0.5
        cosine = 1.0 + y * cosine
        is_odd = (quarter == 1.0) | (quarter == 3.0)
        across, up = (sine, cosine) if is_odd else (cosine, sine)
        across = -across if (quarter == 1.0) | (quarter == 2.0) else across
        up = -up if (quarter == 2.0) | (quarter == 3.0) else up
        normals[2 * k] = radius * across
        normals[2 * k + 1] = radius * up


@loop
def shuffle(first, last, key, salt, start, high, low, out):
    """Some steps of Fisher and Yates's shuffle: elements `high - 1` down to `low` change places with one before them.

    The place for element `i` is made of word `i`. `first` and `last` are not used: there is one unit of work, since
    each step depends on those before.
    """
    words = np.empty(BLOCK + 2, np.uint64)
    top = high
    while top > low:
        bottom = max(low, (top - 1) // BLOCK * BLOCK)
        taken = _block_words(words, start + np.uint64(bottom), key, salt)
        for i in range(top - 1, bottom - 1, -1):
            j = np.int64(multiply_high(taken[i - bottom], np.uint64(i + 1)))
            out[i], out[j] = out[j], out[i]
        top = bottom
