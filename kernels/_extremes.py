"""The lesser and the greater of two numbers, as one instruction of a vector.

`a if a < b else b` says the same; but where the result goes back to the place of `a`, LLVM makes a store under a mask
of it, which some processors do an element at a time.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from ._jit import intrinsic

__all__ = ["greater", "greatest_or_nan", "least_or_nan", "lesser"]


def _choose(name: str, comparison: str, flags: tuple[str, ...], kind: Any) -> Any:
    def generate(context, builder, signature, args):
        if isinstance(kind, types.Float):
            form = context.get_value_type(kind)
            suffix = "f32" if kind.bitwidth == 32 else "f64"
            function = builder.module.declare_intrinsic(f"llvm.{name}.{suffix}", (), ir.FunctionType(form, [form] * 2))
            return builder.call(function, args, fastmath=flags)
        compare = builder.icmp_signed if getattr(kind, "signed", False) else builder.icmp_unsigned
        return builder.select(compare(comparison, *args), *args)

    return kind(kind, kind), generate


@intrinsic
def lesser(typing, a, b):
    """The lesser of two numbers of one type; anything if one is nan."""
    return _choose("minnum", "<", ("nnan", "nsz"), a)


@intrinsic
def greater(typing, a, b):
    """The greater of two numbers of one type; anything if one is nan."""
    return _choose("maxnum", ">", ("nnan", "nsz"), a)


@intrinsic
def least_or_nan(typing, a, b):
    """The lesser of two numbers of one type; nan if one is."""
    return _choose("minimum", "<", (), a)


@intrinsic
def greatest_or_nan(typing, a, b):
    """The greater of two numbers of one type; nan if one is."""
    return _choose("maximum", ">", (), a)
