"""Words of memory that several processes read and write at once, as seen from compiled code.

Each function takes an address as an integer and compiles to one instruction or one system call. Loads acquire,
stores release, read-modify-write operations and `fence` are sequentially consistent. Importing this module
imports numba; nothing is compiled until a caller is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from shmarray.kernels.atomics import (
    emit_add,
    emit_compare_exchange,
    emit_exchange,
    emit_load,
    emit_store,
)

__all__ = [
    "ELEMENT_ARITY",
    "add_i64",
    "add_u32",
    "await_readable",
    "copy_bytes",
    "exit_process",
    "fence",
    "fill_bytes",
    "futex_wait",
    "futex_wake",
    "load_i64",
    "load_u8",
    "load_u32",
    "make_element_driver",
    "monotonic_ns",
    "pause",
    "store_i64",
    "store_u8",
]

_FUTEX_WAIT = 0  # not FUTEX_PRIVATE_FLAG: the word is shared between processes
_FUTEX_WAKE = 1
_CLOCK_MONOTONIC = 1

# Numbers of the system calls by machine; the C library's syscall() takes them from any language.
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98}
_SYS_PPOLL = {"x86_64": 271, "aarch64": 73}
_SYS_EXIT_GROUP = {"x86_64": 231, "aarch64": 94}
_POLLIN = 1

_i8, _i32, _i64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


def _pointer(builder: Any, address: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(kind: ir.Type) -> Any:
    @intrinsic
    def load(typingctx, address):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            value = emit_load(builder, _pointer(builder, args[0], kind))
            return value if kind is _i64 else builder.zext(value, _i64)

        return types.int64(types.int64), codegen

    return load


def _store(kind: ir.Type) -> Any:
    @intrinsic
    def store(typingctx, address, value):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            narrow = args[1] if kind is _i64 else builder.trunc(args[1], kind)
            emit_store(builder, _pointer(builder, args[0], kind), narrow)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return store


def _add(kind: ir.Type) -> Any:
    @intrinsic
    def add(typingctx, address, value):  # type: ignore[no-untyped-def]
        """Add and give what was there before."""

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            narrow = args[1] if kind is _i64 else builder.trunc(args[1], kind)
            old = emit_add(builder, _pointer(builder, args[0], kind), narrow)
            return old if kind is _i64 else builder.zext(old, _i64)

        return types.int64(types.int64, types.int64), codegen

    return add


load_i64, load_u32, load_u8 = _load(_i64), _load(_i32), _load(_i8)
store_i64, store_u8 = _store(_i64), _store(_i8)
add_i64, add_u32 = _add(_i64), _add(_i32)


@intrinsic
def fence(typingctx):  # type: ignore[no-untyped-def]
    """Order everything before against everything after, on all processors."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def pause(typingctx):  # type: ignore[no-untyped-def]
    """Tell the processor that this is a spin loop."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        # By intrinsic, not by assembly text: numba's LLVM has no assembler set up.
        if _machine() == "x86_64":
            builder.call(_function(builder, "llvm.x86.sse2.pause", ir.VoidType()), [])
        elif _machine() == "aarch64":
            builder.call(_function(builder, "llvm.aarch64.hint", ir.VoidType(), _i32), [_i32(1)])  # yield
        return context.get_dummy_value()

    return types.void(), codegen


def _machine() -> str:
    return os.uname().machine


def _function(builder: Any, name: str, result: ir.Type, *arguments: ir.Type) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _syscall(builder: Any, *arguments: Any) -> Any:
    # The C library's syscall() is variadic; with integer arguments alone a call by its fixed form is the same.
    function = _function(builder, "syscall", _i64, *[_i64] * 7)
    padded = [*arguments, *[_i64(0)] * (7 - len(arguments))]
    return builder.call(function, padded)


@intrinsic
def futex_wait(typingctx, address, expected, timeout_ns):  # type: ignore[no-untyped-def]
    """Sleep while the 32-bit word holds `expected`, at most `timeout_ns`; negative: for ever.

    Gives the system call's result: 0 when woken, -1 on a time-out, a signal or another value.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address, expected, timeout_ns = args
        spec = cgutils.alloca_once(builder, ir.ArrayType(_i64, 2))  # in the entry block: a loop would grow the stack
        giga = _i64(1_000_000_000)
        seconds = builder.gep(spec, [_i32(0), _i32(0)])
        nanoseconds = builder.gep(spec, [_i32(0), _i32(1)])
        builder.store(builder.sdiv(timeout_ns, giga), seconds)
        builder.store(builder.srem(timeout_ns, giga), nanoseconds)
        forever = builder.icmp_signed("<", timeout_ns, _i64(0))
        pointer = builder.select(forever, _i64(0), builder.ptrtoint(spec, _i64))
        call = _i64(_SYS_FUTEX[_machine()])
        return _syscall(builder, call, address, _i64(_FUTEX_WAIT), expected, pointer)

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def futex_wake(typingctx, address):  # type: ignore[no-untyped-def]
    """Wake all who sleep on the 32-bit word."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        call = _i64(_SYS_FUTEX[_machine()])
        return _syscall(builder, call, args[0], _i64(_FUTEX_WAKE), _i64(0x7FFFFFFF))

    return types.int64(types.int64), codegen


@intrinsic
def await_readable(typingctx, fd):  # type: ignore[no-untyped-def]
    """Sleep until a descriptor is readable: 1; -1 when a signal came first."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        # struct pollfd {int fd; short events; short revents;}, little-endian, as one word
        entry = cgutils.alloca_once(builder, _i64)
        builder.store(builder.or_(builder.and_(args[0], _i64(0xFFFFFFFF)), _i64(_POLLIN << 32)), entry)
        pointer = builder.ptrtoint(entry, _i64)
        return _syscall(builder, _i64(_SYS_PPOLL[_machine()]), pointer, _i64(1), _i64(0), _i64(0), _i64(0))

    return types.int64(types.int64), codegen


@intrinsic
def exit_process(typingctx, status):  # type: ignore[no-untyped-def]
    """End this process, all threads of it, whoever holds the interpreter lock."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _syscall(builder, _i64(_SYS_EXIT_GROUP[_machine()]), args[0])

    return types.int64(types.int64), codegen


@intrinsic
def monotonic_ns(typingctx):  # type: ignore[no-untyped-def]
    """CLOCK_MONOTONIC in nanoseconds (through the vDSO: some 25 ns, no system call)."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        spec = cgutils.alloca_once(builder, ir.ArrayType(_i64, 2))
        function = _function(builder, "clock_gettime", _i32, _i32, _i64)
        builder.call(function, [_i32(_CLOCK_MONOTONIC), builder.ptrtoint(spec, _i64)])
        seconds = builder.load(builder.gep(spec, [_i32(0), _i32(0)]))
        nanoseconds = builder.load(builder.gep(spec, [_i32(0), _i32(1)]))
        return builder.add(builder.mul(seconds, _i64(1_000_000_000)), nanoseconds)

    return types.int64(), codegen


@intrinsic
def copy_bytes(typingctx, target, source, nbytes):  # type: ignore[no-untyped-def]
    """Copy between two places that do not overlap."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, source, nbytes = args
        cgutils.raw_memcpy(builder, _pointer(builder, target, _i8), _pointer(builder, source, _i8), nbytes, 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def fill_bytes(typingctx, target, value, nbytes):  # type: ignore[no-untyped-def]
    """Set `nbytes` bytes to the low byte of `value`."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target, value, nbytes = args
        cgutils.memset(builder, _pointer(builder, target, _i8), nbytes, builder.trunc(value, _i8))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


#: How many integers the driver of each operation takes: an address, and the bits of values.
ELEMENT_ARITY = {"load": 1, "store": 2, "add": 2, "exchange": 2, "compare_exchange": 3}
_EMIT: dict[str, Any] = {
    "load": emit_load,
    "store": emit_store,
    "add": emit_add,
    "exchange": emit_exchange,
    "compare_exchange": emit_compare_exchange,
}


def make_element_driver(name: str, dtype: str) -> Callable[..., int]:
    """A function of (address, bits of values) that does an atomic operation on an element of that dtype there.

    It gives the bits of the result, sign-extended or not: the lowest bytes count.
    """
    size = np.dtype(dtype).itemsize
    kind = ir.DoubleType() if np.dtype(dtype).kind == "f" else ir.IntType(8 * size)

    def operate(typingctx, address, *values):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            pointer = _pointer(builder, args[0], kind)
            result = _EMIT[name](builder, pointer, *(_as_kind(builder, bits, kind) for bits in args[1:]))
            if result is None:
                return _i64(0)
            bits = builder.bitcast(result, _i64) if kind == ir.DoubleType() else result
            return bits if bits.type == _i64 else builder.zext(bits, _i64)

        return types.int64(*[types.int64] * ELEMENT_ARITY[name]), codegen

    make: Any = operate
    if ELEMENT_ARITY[name] == 1:
        one: Any = intrinsic(lambda typingctx, address: make(typingctx, address))
        return lambda address: one(address)
    if ELEMENT_ARITY[name] == 2:
        two: Any = intrinsic(lambda typingctx, address, value: make(typingctx, address, value))
        return lambda address, value: two(address, value)
    three: Any = intrinsic(lambda typingctx, address, expected, value: make(typingctx, address, expected, value))
    return lambda address, expected, value: three(address, expected, value)


def _as_kind(builder: Any, bits: Any, kind: ir.Type) -> Any:
    if kind == ir.DoubleType():
        return builder.bitcast(bits, kind)
    return bits if kind == _i64 else builder.trunc(bits, kind)
