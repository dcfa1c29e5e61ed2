"""Single elements that several processes and threads change at once.

Each function is one atomic instruction (for float64 `add` a short loop around one) on an element of an array,
sequentially consistent: nobody sees it half done, and a process that is killed has done it or not. They are for
compiled code: numba functions of the user's own, and kernels, on arrays that these may write. From plain Python call
`shmarray.atomic`.

The arrays hold integers of any width, booleans excepted, or float64, aligned as NumPy makes them. An index is an
integer or a tuple of one a dimension, negative ones from the end; it is not checked, as in compiled code in general.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import NumbaTypeError

from ._jit import intrinsic

__all__ = [
    "add",
    "compare_exchange",
    "emit_add",
    "emit_compare_exchange",
    "emit_exchange",
    "emit_load",
    "emit_store",
    "exchange",
    "load",
    "store",
]


# ---------------------------------------------------------------------- instructions, while code is made


def emit_load(builder: Any, pointer: Any) -> Any:
    """The word at a pointer; acquires."""
    kind = pointer.type.pointee
    return _from_bits(builder, builder.load_atomic(_bits_at(builder, pointer), "acquire", _nbytes(kind)), kind)


def emit_store(builder: Any, pointer: Any, value: Any) -> None:
    """Set the word at a pointer; releases."""
    bits = _to_bits(builder, value)
    builder.store_atomic(bits, _bits_at(builder, pointer), "release", _nbytes(value.type))


def emit_add(builder: Any, pointer: Any, value: Any) -> Any:
    """Add to the word at a pointer; what was there before."""
    operation = "add" if isinstance(value.type, ir.IntType) else "fadd"
    return builder.atomic_rmw(operation, pointer, value, "seq_cst")


def emit_exchange(builder: Any, pointer: Any, value: Any) -> Any:
    """Set the word at a pointer; what was there before."""
    old = builder.atomic_rmw("xchg", _bits_at(builder, pointer), _to_bits(builder, value), "seq_cst")
    return _from_bits(builder, old, value.type)


def emit_compare_exchange(builder: Any, pointer: Any, expected: Any, value: Any) -> Any:
    """Set the word at a pointer if it has the bits of `expected`; what was there before."""
    found = builder.cmpxchg(
        _bits_at(builder, pointer), _to_bits(builder, expected), _to_bits(builder, value), "seq_cst", "seq_cst"
    )
    return _from_bits(builder, builder.extract_value(found, 0), value.type)


def _nbytes(kind: Any) -> int:
    return kind.width // 8 if isinstance(kind, ir.IntType) else 8


def _bits_at(builder: Any, pointer: Any) -> Any:
    kind = pointer.type.pointee
    return pointer if isinstance(kind, ir.IntType) else builder.bitcast(pointer, ir.IntType(64).as_pointer())


def _to_bits(builder: Any, value: Any) -> Any:
    return value if isinstance(value.type, ir.IntType) else builder.bitcast(value, ir.IntType(64))


def _from_bits(builder: Any, bits: Any, kind: Any) -> Any:
    return bits if isinstance(kind, ir.IntType) else builder.bitcast(bits, kind)


# ---------------------------------------------------------------------- elements of arrays


def _item(name: str, array: Any, index: Any, *, writes: bool) -> types.Type:
    """The type of an array's elements; a TypingError where they cannot be reached so."""
    if not isinstance(array, types.Array):
        raise NumbaTypeError(f"atomics.{name} works on an element of an array; got {array}")
    item = array.dtype
    if not (isinstance(item, types.Integer) or item == types.float64) or not array.aligned:
        raise NumbaTypeError(f"atomics.{name} works on aligned integers and float64; got an array of {item}")
    if writes and not array.mutable:
        raise NumbaTypeError(f"atomics.{name} changes an array that is read-only here: {array}")
    parts = list(index) if isinstance(index, types.BaseTuple) else [index]
    if len(parts) != array.ndim or not all(isinstance(part, types.Integer) for part in parts):
        raise NumbaTypeError(
            f"atomics.{name} takes one integer for each of {array.ndim} dimensions as its index; got {index}"
        )
    return item


def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Where the element of an array at an index is; the first two arguments of each function."""
    kind, index_type = signature.args[:2]
    array = context.make_array(kind)(context, builder, args[0])
    if isinstance(index_type, types.BaseTuple):
        kinds, parts = list(index_type), cgutils.unpack_tuple(builder, args[1], len(index_type))
    else:
        kinds, parts = [index_type], [args[1]]
    indices = [context.cast(builder, part, kind, types.intp) for part, kind in zip(parts, kinds, strict=True)]
    return cgutils.get_item_pointer(context, builder, kind, array, indices, wraparound=True)


def _code(emit: Callable[..., Any], n_values: int) -> Any:
    """The code of a function whose values are cast to the array's elements."""

    def generate(context, builder, signature, args):
        item = signature.args[0].dtype
        values = [
            context.cast(builder, value, kind, item) for value, kind in zip(args[2:], signature.args[2:], strict=True)
        ]
        assert len(values) == n_values
        result = emit(builder, _pointer(context, builder, signature, args), *values)
        return context.get_dummy_value() if result is None else result

    return generate


@intrinsic
def load(typing, array, index):
    """The element as it is now.

    Examples
    --------
    >>> import numba, numpy as np
    >>> from shmarray.kernels import atomics
    >>> @numba.njit
    ... def last(a):
    ...     return atomics.load(a, -1)
    >>> int(last(np.array([1, 2, 3])))
    3
    """
    return _item("load", array, index, writes=False)(array, index), _code(emit_load, 0)


@intrinsic
def store(typing, array, index, value):
    """Set the element, in one piece: nobody sees half of the new and half of the old value.

    Examples
    --------
    >>> import numba, numpy as np
    >>> from shmarray.kernels import atomics
    >>> @numba.njit
    ... def clear(a):
    ...     atomics.store(a, 0, 0)
    >>> a = np.array([1, 2, 3])
    >>> clear(a)
    >>> a
    array([0, 2, 3])
    """
    _item("store", array, index, writes=True)
    return types.void(array, index, value), _code(emit_store, 1)


@intrinsic
def add(typing, array, index, value):
    """Add to the element. Integers wrap around.

    Returns
    -------
    scalar
        What was there before.

    Examples
    --------
    >>> import numba, numpy as np
    >>> from shmarray.kernels import atomics
    >>> @numba.njit
    ... def count(values, counts):
    ...     for value in values:
    ...         atomics.add(counts, value, 1)
    >>> counts = np.zeros(3, dtype=np.int64)
    >>> count(np.array([0, 2, 2]), counts)
    >>> counts
    array([1, 0, 2])
    """
    return _item("add", array, index, writes=True)(array, index, value), _code(emit_add, 1)


@intrinsic
def exchange(typing, array, index, value):
    """Set the element.

    Returns
    -------
    scalar
        What was there before.

    Examples
    --------
    >>> import numba, numpy as np
    >>> from shmarray.kernels import atomics
    >>> @numba.njit
    ... def take(a, index):
    ...     return atomics.exchange(a, index, 0)
    >>> int(take(np.array([5, 6]), 1))
    6
    """
    return _item("exchange", array, index, writes=True)(array, index, value), _code(emit_exchange, 1)


@intrinsic
def compare_exchange(typing, array, index, expected, value):
    """Set the element if it is `expected`, bit for bit (so 0.0 is not -0.0, and a nan can be found).

    Returns
    -------
    scalar
        What was there before: the element was set if this is `expected`.

    Examples
    --------
    >>> import numba, numpy as np
    >>> from shmarray.kernels import atomics
    >>> @numba.njit
    ... def claim(owners, index, me):
    ...     return atomics.compare_exchange(owners, index, 0, me) == 0
    >>> owners = np.zeros(2, dtype=np.int32)
    >>> claim(owners, 1, 7), claim(owners, 1, 8)
    (True, False)
    """
    item = _item("compare_exchange", array, index, writes=True)
    return item(array, index, expected, value), _code(emit_compare_exchange, 2)
