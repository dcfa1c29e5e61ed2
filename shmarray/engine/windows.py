"""The window that a stencil's function looks through: `u[-1, 0]` as a numba type of its own.

A window is the address of the element at hand and the strides around it; indexing adds an offset and loads. Nothing of
it is left in the compiled loop: the type is a plain value to LLVM, which sees one load an index. Since it is a type and
no rewriting of source, closures, lambdas and jitted functions that are handed a window work.

Which indices are allowed is known when the function is compiled, if they are constants: one outside the halo is an
error then. Others are taken at their word, or checked as they come (`debug`). Importing this module imports numba.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, errors
from numba.core.typing.templates import AbstractTemplate, infer, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from shmarray.engine.memory import item_pointer

__all__ = ["WindowType", "emit_window", "mark_output"]

_i8, _i64 = ir.IntType(8), ir.IntType(64)


class WindowType(types.Type):  # type: ignore[misc]  # numba is not typed
    """The type of a window onto an array.

    Parameters
    ----------
    item : type
        Of the array's elements.
    halo : tuple of int
        How far indices may reach, by dimension.
    debug : bool
        Check the indices that are not constant.
    """

    def __init__(self, item: types.Type, halo: tuple[int, ...], *, debug: bool) -> None:
        self.item, self.halo, self.debug = item, halo, debug
        self.strides = types.UniTuple(types.int64, max(1, len(halo) - 1))
        #: Whether a function was compiled that computes an index; it may be wrong, so the caller keeps out of its way.
        self.free = False
        super().__init__(name=f"window({item}, halo={halo}, debug={debug})")

    def index_type(self, index: Any) -> types.Type | None:
        """The type that an index is cast to; None where it is none of a window's.

        Raises
        ------
        NumbaTypeError
            A constant index reaches beyond the halo.
        """
        parts = list(index) if isinstance(index, types.BaseTuple) else [index]
        if len(parts) != len(self.halo) or not all(isinstance(part, types.Integer) for part in parts):
            raise errors.NumbaTypeError(
                f"a window onto an array of {len(self.halo)} dimensions is indexed by as many integers, not by {index}"
            )
        if all(isinstance(part, types.IntegerLiteral) for part in parts):
            self.check([part.literal_value for part in parts])
        else:
            self.free = True
        if isinstance(index, types.BaseTuple):
            return types.UniTuple(types.int64, len(parts))
        return types.int64

    def check(self, offsets: Sequence[int]) -> None:
        """Refuse constant offsets outside the halo (with `debug` they are left to the check at run time)."""
        if any(abs(offset) > reach for offset, reach in zip(offsets, self.halo, strict=True)) and not self.debug:
            shown = ", ".join(map(str, offsets))
            raise errors.NumbaTypeError(
                f"index [{shown}] reaches beyond the halo of {_shown(self.halo)}; declare a wider halo"
            )


def _shown(halo: Sequence[int]) -> str:
    return str(halo[0]) if len(set(halo)) == 1 else str(tuple(halo))


@register_model(WindowType)
class _WindowModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: WindowType) -> None:
        # The last dimension's stride is the item's size: so the loop along it vectorises.
        super().__init__(manager, kind, [("place", types.voidptr), ("strides", kind.strides)])


@infer
class _ConstantIndex(AbstractTemplate):  # type: ignore[misc]
    key = "static_getitem"

    def generic(self, args: Any, kws: Any) -> Any:
        window, index = args
        if not isinstance(window, WindowType):
            return None
        offsets = _constant_offsets(index, len(window.halo))
        if offsets is None:
            raise errors.NumbaTypeError(
                f"a window onto an array of {len(window.halo)} dimensions is indexed by as many integers, not by "
                f"[{index!r}]"
            )
        window.check(offsets)
        return signature(window.item, *args)


@infer_global(operator.getitem)
class _ComputedIndex(AbstractTemplate):  # type: ignore[misc]
    prefer_literal = True

    def generic(self, args: Any, kws: Any) -> Any:
        window, index = args
        if not isinstance(window, WindowType):
            return None
        return signature(window.item, window, window.index_type(index))


def _constant_offsets(index: Any, n_dims: int) -> list[int] | None:
    """A constant index as one integer a dimension."""
    parts = index if isinstance(index, tuple) else (index,)
    if len(parts) != n_dims or not all(isinstance(part, int) for part in parts):
        return None
    return [int(part) for part in parts]


@lower_builtin("static_getitem", WindowType, types.Any)  # type: ignore[untyped-decorator]
def _load_constant(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    window, index = args
    offsets = _constant_offsets(index, len(sig.args[0].halo))
    assert offsets is not None
    return _load(context, builder, sig.args[0], window, [_i64(offset) for offset in offsets])


@lower_builtin(operator.getitem, WindowType, types.UniTuple)  # type: ignore[untyped-decorator]
def _load_tuple(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    offsets = cgutils.unpack_tuple(builder, args[1], sig.args[1].count)
    return _load(context, builder, sig.args[0], args[0], offsets)


@lower_builtin(operator.getitem, WindowType, types.Integer)  # type: ignore[untyped-decorator]
def _load_integer(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return _load(context, builder, sig.args[0], args[0], [args[1]])


def _load(context: Any, builder: Any, kind: WindowType, value: Any, offsets: Sequence[Any]) -> Any:
    """The item at an offset from the element at hand."""
    if kind.debug:
        _emit_check(context, builder, kind, offsets)
    window = cgutils.create_struct_proxy(kind)(context, builder, value)
    itemsize = _i64(context.get_abi_sizeof(context.get_data_type(kind.item)))
    steps = [*cgutils.unpack_tuple(builder, window.strides, max(1, len(offsets) - 1))][: len(offsets) - 1]
    place = window.place
    for offset, step in zip(offsets, [*steps, itemsize], strict=True):
        place = builder.gep(place, [builder.mul(offset, step)])
    pointer = item_pointer(context, builder, kind.item, builder.ptrtoint(place, _i64))
    # A pointer that is derived, not made from an integer, so that the loop's accesses are seen to be consecutive.
    pointer = builder.bitcast(place, pointer.type)
    before = len(builder.block.instructions)
    item = context.unpack_value(builder, kind.item, pointer)
    for instruction in builder.block.instructions[before:]:
        if instruction.opname == "load":
            instruction.set_metadata("tbaa", _tag(builder.module, "input"))
    return item


def _emit_check(context: Any, builder: Any, kind: WindowType, offsets: Sequence[Any]) -> None:
    outside = cgutils.false_bit
    for offset, reach in zip(offsets, kind.halo, strict=True):
        outside = builder.or_(outside, builder.icmp_signed("<", offset, _i64(-reach)))
        outside = builder.or_(outside, builder.icmp_signed(">", offset, _i64(reach)))
    with builder.if_then(outside, likely=False):
        text = f"an index reaches beyond the halo of {_shown(kind.halo)}:"
        context.call_conv.return_dynamic_user_exc(
            builder, IndexError, (text, *offsets), (None, *(types.int64 for _ in offsets))
        )


def emit_window(context: Any, builder: Any, kind: WindowType, place: Any, strides: Sequence[Any]) -> Any:
    """A window, from the address of its element (an i8 pointer) and the strides of all dimensions but the last."""
    window = cgutils.create_struct_proxy(kind)(context, builder)
    window.place = place
    window.strides = context.make_tuple(builder, kind.strides, list(strides) or [_i64(0)])
    return window._getvalue()


def mark_output(builder: Any, before: int) -> None:
    """Tell LLVM that what was stored since instruction number `before` of this block is nothing that windows show.

    True since the output shares no memory with an input: where a user wants that, the input is copied first. Without
    it a stencil of nine rows is not vectorised, for want of that many checks at run time.
    """
    for instruction in builder.block.instructions[before:]:
        if instruction.opname == "store":
            instruction.set_metadata("tbaa", _tag(builder.module, "output"))


def _tag(module: Any, role: str) -> Any:
    """A type-based alias tag. Such nodes are one and the same by their names, in all modules that are linked."""
    root = module.add_metadata(["shmarray stencil"])
    kind = module.add_metadata([f"shmarray stencil {role}", root, _i64(0)])
    return module.add_metadata([kind, kind, _i64(0)])
