"""Large angles: `x mod pi/2` for any float64, after M. Payne and R. Hanek (1983).

`x = M * 2**e` with an integer `M < 2**53`. Of the binary digits of 2/pi, those that give `M 2**e` a multiple
of 4 change no quadrant and are skipped; the next 192 times `M`, modulo 2**192, are the quadrant (two bits)
and the fraction of it, right to 2**-137. No float64 lies nearer to a multiple of pi/2 than about 2**-62, so
the fraction keeps 75 good bits in the worst case.

The C library could do this; glibc's `cos(5.319372648326541e255)` is 8 ULP off.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .._jit import loop
from . import _coefficients
from ._bits import fma, unsigned
from ._formats import FLOAT64

_LIMBS = 6  # of 32 bits


def _digits() -> tuple[Any, ...]:
    """64 zero bits and the first 1,280 binary digits of 2/pi, in 32-bit limbs, most significant first."""
    value = int(_coefficients.TWO_OVER_PI, 16)
    return (
        np.uint64(0),
        np.uint64(0),
        *(np.uint64(value >> (1248 - 32 * i) & 0xFFFFFFFF) for i in range(40)),
    )


@functools.cache
def far_reduced() -> Callable[..., Any]:
    """`x -> (quadrant, r, low)` with `x = quadrant pi/2 + r + low`, for finite `x >= 2**20`."""
    digits = _digits()
    half_pi, half_pi_low = FLOAT64.parts("half_pi", 2)
    mask, word = np.uint64(0xFFFFFFFF), np.uint64(32)
    low_52_bits, hidden_bit = np.uint64((1 << 52) - 1), np.uint64(1 << 52)

    def limb(position):  # 32 bits of the window's digits, from a bit position
        first, offset = position >> 5, np.uint64(position & 31)
        return ((digits[first] << offset) | (digits[first + 1] >> (word - offset))) & mask

    limb = loop(limb)

    def reduced(x):
        bits = unsigned(x)
        whole = (bits & low_52_bits) | hidden_bit
        low_half, high_half = whole & mask, whole >> word
        exponent = np.int64(bits >> np.uint64(52)) - 1075  # x is positive: no sign above the exponent
        start = exponent - 2 + 64  # the first digit that matters
        # Schoolbook multiplication by columns from the right; each column sums halves of products and cannot
        # overflow.
        fraction, fraction_low = 0.0, 0.0
        carry, scale = np.uint64(0), 2.0 ** (-32 * _LIMBS)
        quadrant = np.int64(0)
        right, right2 = np.uint64(0), np.uint64(0)  # the limbs one and two places to the right
        for i in range(_LIMBS - 1, -1, -1):
            here = limb(start + 32 * i)
            column = carry + ((low_half * here) & mask) + ((low_half * right) >> word)
            column += ((high_half * right) & mask) + ((high_half * right2) >> word)
            right, right2 = here, right
            carry = column >> word
            digit = np.int64(column & mask)
            if i == 0:
                # Two bits of quadrant, rounded to the nearest: what is left is between -1/2 and 1/2 of one.
                quadrant = ((digit >> 29) + 1) >> 1
                digit -= quadrant << 30
            term = np.float64(digit) * scale
            total = fraction + term
            back = total - fraction
            fraction_low += (fraction - (total - back)) + (term - back)
            fraction = total
            scale *= 4294967296.0  # 2**32
        fraction, fraction_low = 4.0 * fraction, 4.0 * fraction_low
        r = fraction * half_pi
        low = fma(fraction, half_pi, -r) + fma(fraction, half_pi_low, fraction_low * half_pi)
        total = r + low
        return quadrant, total, (r - total) + low

    return loop(reduced)
