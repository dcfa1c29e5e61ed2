"""Parts of arrays, and arrays on the stack, for compiled loops: what slices and `np.empty` give, for less.

A slice in compiled code puts its bounds right (negative ones, those beyond the end) and counts references; in loops
full of slices that is much of what there is to compile. A stretch is an address and a length.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.np import arrayobj

from ._jit import intrinsic

__all__ = ["kept_apart", "stack_array", "stretch"]


def _array(context: Any, builder: Any, kind: Any, data: Any, count: Any) -> Any:
    """An array of `count` items at an address that owns nothing."""
    made = arrayobj.make_array(kind)(context, builder)
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    arrayobj.populate_array(
        made,
        data=data,
        shape=cgutils.pack_array(builder, [count]),
        strides=cgutils.pack_array(builder, [size]),
        itemsize=size,
        meminfo=None,
    )
    return made._getvalue()


@intrinsic
def stretch(typing, x, start, count):
    """`x[start : start + count]` of a contiguous one-dimensional array: bounds must be right, and `x` live as long.

    Contiguous is for the caller to know: of other arrays it would be other items.
    """
    if not isinstance(x, types.Array) or x.ndim != 1:
        return None
    kind = types.Array(x.dtype, 1, "C")

    def generate(context, builder, signature, args):
        given = arrayobj.make_array(x)(context, builder, args[0])
        start, count = (context.cast(builder, args[n], signature.args[n], types.intp) for n in (1, 2))
        return _array(context, builder, kind, builder.gep(given.data, [start]), count)

    return kind(x, start, count), generate


@intrinsic
def stack_array(typing, value, count):
    """An array of `count` (a literal) items of the type of `value`, not filled; it lasts until the function returns."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    item = types.unliteral(value)
    kind = types.Array(item, 1, "C")

    def generate(context, builder, signature, args):
        form = context.get_data_type(item)
        # In the entry block: in a loop the stack would grow with every turn.
        with builder.goto_entry_block():
            memory = builder.alloca(ir.ArrayType(form, count.literal_value))
            memory.align = 64
        items = context.get_constant(types.intp, count.literal_value)
        return _array(context, builder, kind, builder.bitcast(memory, form.as_pointer()), items)

    return kind(value, count), generate


@intrinsic
def kept_apart(typing):
    """Have the compiled function in whose body this stands called, never inlined: its code is optimised once, not once
    a place that uses it. It emits no code."""

    def generate(context, builder, signature, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate
