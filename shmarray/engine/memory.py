"""Typed memory at addresses, as seen from compiled code: words and items.

Drivers keep what they work out in words of memory rather than in tuples and arrays: each step is then one instruction
to compile, where numba's tuples and array indexing take most of a second. Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

__all__ = [
    "allocate",
    "array_view",
    "item_loader",
    "item_pointer",
    "item_storer",
    "kept_apart",
    "load_word",
    "plain_integer",
    "read_word",
    "release",
    "reserve_words",
    "write_word",
]

_i8, _i64 = ir.IntType(8), ir.IntType(64)


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


@intrinsic
def plain_integer(typingctx, value):  # type: ignore[no-untyped-def]
    """The same int64, but no constant to numba, which would compile what takes it anew for each value."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return args[0]

    return types.int64(types.int64), codegen


@intrinsic
def kept_apart(typingctx):  # type: ignore[no-untyped-def]
    """Have the compiled function in whose body this stands called, never inlined: its code is optimised once, not once
    a place that uses it. It emits no code."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


def reserve_words(count: int) -> Any:
    """A compiled function () -> address of `count` words, which last until the driver returns."""

    @intrinsic
    def reserve(typingctx):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            # In the entry block: in a loop the stack would grow with every turn. Not by numba's `alloca_once`, which
            # stores zeros: the compiler takes such a store apart, word by word, and minutes over it.
            with builder.goto_entry_block():
                words = builder.alloca(ir.ArrayType(_i64, max(1, count)))
            return builder.ptrtoint(words, _i64)

        return types.int64(), codegen

    return reserve


@intrinsic
def allocate(typingctx, nbytes):  # type: ignore[no-untyped-def]
    """Memory of the C library's; 0 when there is none."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(_i8.as_pointer(), [_i64])
        memory = builder.call(cgutils.get_or_insert_function(builder.module, kind, "malloc"), args)
        return builder.ptrtoint(memory, _i64)

    return types.int64(types.int64), codegen


@intrinsic
def release(typingctx, address):  # type: ignore[no-untyped-def]
    """Give back what `allocate` gave."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(ir.VoidType(), [_i8.as_pointer()])
        free = cgutils.get_or_insert_function(builder.module, kind, "free")
        builder.call(free, [builder.inttoptr(args[0], _i8.as_pointer())])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def item_pointer(context: Any, builder: Any, item: types.Type, address: Any) -> Any:
    """While code is made: an address as a pointer to an item as it lies in an array."""
    return builder.inttoptr(address, context.data_model_manager[item].get_data_type().as_pointer())


def load_word(builder: Any, address: Any, index: int) -> Any:
    """While code is made: the int64 number `index` from `address` on."""
    return builder.load(builder.gep(builder.inttoptr(address, _i64.as_pointer()), [_i64(index)]))


def array_view(
    context: Any, builder: Any, kind: types.Array, address: Any, shape: Sequence[Any], steps: Sequence[Any]
) -> Any:
    """While code is made: an array that owns nothing."""
    made = arrayobj.make_array(kind)(context, builder)
    item = context.get_data_type(kind.dtype)
    arrayobj.populate_array(
        made,
        data=builder.inttoptr(address, item.as_pointer()),
        shape=shape,
        strides=steps,
        itemsize=context.get_constant(types.intp, context.get_abi_sizeof(item)),
        meminfo=None,
    )
    return made._getvalue()


def item_loader(item: types.Type) -> Any:
    """A compiled function (address) -> the item that lies there."""

    @intrinsic
    def load(typingctx, address):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return context.unpack_value(builder, item, item_pointer(context, builder, item, args[0]))

        return item(types.int64), codegen

    return load


def item_storer(item: types.Type) -> Any:
    """A compiled function (address, value) that casts the value to the item's type and puts it there."""

    @intrinsic
    def store(typingctx, address, value):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            stored = context.cast(builder, args[1], signature.args[1], item)
            context.pack_value(builder, item, stored, item_pointer(context, builder, item, args[0]))
            return context.get_dummy_value()

        return types.void(types.int64, value), codegen

    return store
