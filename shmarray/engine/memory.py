"""Typed memory at addresses, as seen from compiled code: words, items, and views as ordinary arrays.

Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

__all__ = ["read_word", "view", "write_word"]

_i64 = ir.IntType(64)


def _word_pointer(builder: Any, address: Any, index: Any) -> Any:
    return builder.gep(builder.inttoptr(address, _i64.as_pointer()), [index])


@intrinsic
def read_word(typingctx, address, index):  # type: ignore[no-untyped-def]
    """The int64 number `index` from `address` on."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load(_word_pointer(builder, *args))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def write_word(typingctx, address, index, value):  # type: ignore[no-untyped-def]
    """Set the int64 number `index` from `address` on."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.store(args[2], _word_pointer(builder, *args[:2]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def view(item: types.Type, ndim: int, layout: str, readonly: bool) -> Any:
    """A compiled function (address, shape, strides) -> array of that type, which owns nothing.

    `shape` and `strides` are tuples of `ndim` int64, strides in bytes.
    """
    array = types.Array(item, ndim, layout, readonly=readonly)

    @intrinsic
    def make_view(typingctx, address, shape, strides):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            address, shape, strides = args
            made = arrayobj.make_array(array)(context, builder)
            pointer = builder.inttoptr(address, context.get_data_type(item).as_pointer())
            itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(item)))
            arrayobj.populate_array(
                made,
                data=pointer,
                shape=cgutils.unpack_tuple(builder, shape, ndim),
                strides=cgutils.unpack_tuple(builder, strides, ndim),
                itemsize=itemsize,
                meminfo=None,
            )
            return made._getvalue()

        sizes = types.UniTuple(types.int64, ndim)
        return array(types.int64, sizes, sizes), codegen

    return make_view
