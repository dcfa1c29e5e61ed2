"""One skeleton for all reductions: fold a 1-D block in a fixed order that vectorises.

LLVM may not reorder floating-point additions by itself, so a plain `total += x[i]` waits for every addition. Here the
block is laid out in rows of 256 lanes, and lane `j` folds column `j`; at the end the lanes are joined in halves::

    x:  | 0 ... 255 | 256 ... 511 | 512 ... 767 |  ...
    lanes[j] = step(lanes[j], x[j + 256 * row])          row after row
    lanes[0:128] with lanes[128:256], then [0:64] with [64:128], ... down to one

Each step is an element-wise loop. A block shorter than a row has as many lanes as the next power of two. The order
depends on the length of the block alone: the same bits on every CPU. For sums the tree also keeps the rounding error
as low as NumPy's pairwise summation does.

The lanes are 2 KiB on the stack, and the loop is as plain as it can be: both are what makes it quick to compile.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from ._jit import inlined, intrinsic, overload, part
from ._views import stack_array

LANES = 256

#: Elements folded at a time where a reduction works piece by piece: 128 KiB of float64, which the L2 cache holds.
PIECE = 64 * LANES


@intrinsic
def as_type_of(typing, value, like):
    """`value` converted to the type of `like`."""
    like = types.unliteral(like)

    def generate(context, builder, signature, args):
        return context.cast(builder, args[0], signature.args[0], like)

    return like(value, like), generate


@inlined
def lanes_for(size):
    """How many lanes a block of `size` items takes: all, or the first power of two that holds the block."""
    width = np.uint64(LANES)
    while (width >> np.uint64(1)) >= np.uint64(size) and width > np.uint64(1):
        width = width >> np.uint64(1)
    return width


@functools.cache
def folding(step: Callable[..., Any], join: Callable[..., Any]) -> Callable[..., Any]:
    """The loop `fold(x, start)`: `start` with all elements taken into it by `step(accumulator, element)`.

    `join` makes one of two accumulators. `start` is where every lane begins, so it must be an identity of `join`; its
    type is that of the accumulators.
    """
    taken, joined = inlined(step), inlined(join)

    # Indices are unsigned: a signed one may be negative for all that the compiler knows, and is wrapped around.
    def fold(x, start):
        lanes = stack_array(start, LANES)
        size = np.uint64(x.size)
        width = lanes_for(size)
        for j in range(width):
            lanes[j] = start
        i = np.uint64(0)
        while i < size:
            count = width if size - i > width else size - i
            for j in range(count):
                lanes[j] = taken(lanes[j], x[i + j])
            i += width
        while width > np.uint64(1):
            width = width >> np.uint64(1)
            for j in range(width):
                lanes[j] = joined(lanes[j], lanes[j + width])
        return lanes[0]

    return part(fold)


def accumulator_zero(x: Any) -> Any:
    """A zero of the type that sums over `x` are kept in; for compiled code.

    int64 for booleans and signed integers, uint64 for unsigned ones (NumPy's rule); float64 for float32 and
    float64, complex128 for both complex types: at least the digits that NumPy keeps.
    """
    raise NotImplementedError("accumulator_zero is for compiled code")


@overload(accumulator_zero)
def _choose_accumulator(x: Any) -> Callable[..., Any] | None:
    if not isinstance(x, types.Array):
        return None
    kind: Any = x.dtype
    if isinstance(kind, types.Boolean) or kind in types.signed_domain:
        return lambda x: np.int64(0)
    if kind in types.unsigned_domain:
        return lambda x: np.uint64(0)
    if isinstance(kind, types.Float):
        return lambda x: -0.0  # the identity of floating-point addition: 0.0 + -0.0 would lose the sign
    if isinstance(kind, types.Complex):
        return lambda x: complex(-0.0, -0.0)
    return None
