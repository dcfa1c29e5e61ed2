"""What the formulas need below the level of Python's arithmetic, one LLVM instruction or a few at a time.

Every function here is an intrinsic for float32 and float64 that emits straight-line code, so that a formula
made of them has no branch and LLVM turns a loop over it into vector code. Integers stay inside: numba would
widen 32-bit integer arithmetic to 64 bits and halve the lanes.

*Shifted* numbers: adding 1.5 * 2**52 (2**23 for float32) to a small `x` rounds it to the nearest integer `k`,
whose two's complement then lies in the low bits of the sum. The sum less the shift is `k` as a float. That
one addition replaces the conversion to integer that AVX2 lacks for float64.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from .._jit import intrinsic

_MANTISSA_BITS = {32: 23, 64: 52}
_BIAS = {32: 127, 64: 1023}
_ONE = {32: 0x3F800000, 64: 0x3FF0000000000000}
_ROOT_HALF = {32: 0x3F3504F3, 64: 0x3FE6A09E667F3BCD}


def _width(value: ir.Value) -> int:
    return 32 if isinstance(value.type, ir.FloatType) else 64


def _as_bits(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.bitcast(value, ir.IntType(_width(value)))


def _as_float(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    return builder.bitcast(bits, ir.FloatType() if bits.type.width == 32 else ir.DoubleType())


def _floats(*arguments: Any) -> bool:
    return arguments[0] in (types.float32, types.float64) and all(a == arguments[0] for a in arguments)


def _call(context: Any, builder: ir.IRBuilder, name: str, args: Any) -> ir.Value:
    function = builder.module.declare_intrinsic(
        name, [args[0].type], ir.FunctionType(args[0].type, [args[0].type] * len(args))
    )
    return builder.call(function, args)


@intrinsic
def fma(typing, a, b, c):
    """`a * b + c`, rounded once."""
    if not _floats(a, b, c):
        return None

    def generate(context, builder, signature, args):
        return _call(context, builder, "llvm.fma", args)

    return a(a, b, c), generate


@intrinsic
def absolute(typing, x):
    """`|x|`: the sign bit cleared."""
    if not _floats(x):
        return None

    def generate(context, builder, signature, args):
        return _call(context, builder, "llvm.fabs", args)

    return x(x), generate


@intrinsic
def root(typing, x):
    """The square root, correctly rounded; nan below zero."""
    if not _floats(x):
        return None

    def generate(context, builder, signature, args):
        return _call(context, builder, "llvm.sqrt", args)

    return x(x), generate


@intrinsic
def nearest(typing, x):
    """The nearest whole number, ties to even."""
    if not _floats(x):
        return None

    def generate(context, builder, signature, args):
        return _call(context, builder, "llvm.rint", args)

    return x(x), generate


@intrinsic
def copy_sign(typing, x, y):
    """`|x|` with the sign of `y`."""
    if not _floats(x, y):
        return None

    def generate(context, builder, signature, args):
        return _call(context, builder, "llvm.copysign", args)

    return x(x, y), generate


@intrinsic
def select(typing, condition, a, b):
    """`a if condition else b`, both computed: an instruction where Python's conditional is a branch."""
    if condition != types.boolean or a != b:
        return None

    def generate(context, builder, signature, args):
        return builder.select(*args)

    return a(condition, a, b), generate


@intrinsic
def polynomial(typing, x, coefficients):
    """`c[0] + c[1] x + c[2] x**2 + ...`; long ones as two interleaved Horner chains in `x**2`.

    One chain would make each step wait four cycles for the last; two halve the wait for one multiplication
    more.
    """
    if not isinstance(coefficients, types.UniTuple) or not _floats(x, coefficients.dtype):
        return None

    def generate(context, builder, signature, args):
        point, packed = args
        terms = [builder.extract_value(packed, i) for i in range(coefficients.count)]

        def horner(at, chain):
            total = chain[-1]
            for term in reversed(chain[:-1]):
                total = _call(context, builder, "llvm.fma", [total, at, term])
            return total

        if len(terms) < 5:
            return horner(point, terms)
        square = builder.fmul(point, point)
        return _call(context, builder, "llvm.fma", [horner(square, terms[1::2]), point, horner(square, terms[0::2])])

    return x(x, coefficients), generate


@intrinsic
def unsigned(typing, x):
    """The bits of a float64 as an unsigned integer."""
    if x != types.float64:
        return None

    def generate(context, builder, signature, args):
        return _as_bits(builder, args[0])

    return types.uint64(x), generate


@intrinsic
def power_of_two(typing, shifted):
    """`2**k` of a shifted `k`, which must be the exponent of a normal number."""
    if not _floats(shifted):
        return None

    def generate(context, builder, signature, args):
        width = _width(args[0])
        moved = builder.shl(_as_bits(builder, args[0]), ir.Constant(ir.IntType(width), _MANTISSA_BITS[width]))
        return _as_float(builder, builder.add(moved, ir.Constant(ir.IntType(width), _ONE[width])))

    return shifted(shifted), generate


@intrinsic
def is_odd(typing, shifted):
    """Whether a shifted `k` is odd."""
    if not _floats(shifted):
        return None

    def generate(context, builder, signature, args):
        integer = ir.IntType(_width(args[0]))
        low = builder.and_(_as_bits(builder, args[0]), ir.Constant(integer, 1))
        return builder.icmp_unsigned("!=", low, ir.Constant(integer, 0))

    return types.boolean(shifted), generate


@intrinsic
def negate_by_bit(typing, x, shifted, bit):
    """`-x` where the given bit (a literal) of a shifted `k` is set, `x` where it is not."""
    if not _floats(x, shifted) or not isinstance(bit, types.IntegerLiteral):
        return None

    def generate(context, builder, signature, args):
        width = _width(args[0])
        integer = ir.IntType(width)
        top = builder.shl(_as_bits(builder, args[1]), ir.Constant(integer, width - 1 - bit.literal_value))
        sign = builder.and_(top, ir.Constant(integer, 1 << (width - 1)))
        return _as_float(builder, builder.xor(_as_bits(builder, args[0]), sign))

    return x(x, shifted, bit), generate


def _normalised(builder: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, int]:
    """The bits of a positive normal `x`, moved so that the exponent field steps at sqrt(1/2) and not at 1."""
    width = _width(x)
    return builder.add(_as_bits(builder, x), ir.Constant(ir.IntType(width), _ONE[width] - _ROOT_HALF[width])), width


@intrinsic
def exponent(typing, x):
    """`k`, as a float, of a positive normal `x = m * 2**k` with `m` in [sqrt(1/2), sqrt(2))."""
    if not _floats(x):
        return None

    def generate(context, builder, signature, args):
        moved, width = _normalised(builder, args[0])
        field = builder.lshr(moved, ir.Constant(ir.IntType(width), _MANTISSA_BITS[width]))
        if width == 32:
            return builder.sitofp(builder.sub(field, ir.Constant(ir.IntType(32), _BIAS[32])), ir.FloatType())
        # The field put under the exponent of 2**52 is 2**52 + field: no conversion, which AVX2 lacks.
        packed = builder.or_(field, ir.Constant(ir.IntType(64), 0x4330000000000000))
        return builder.fsub(_as_float(builder, packed), ir.Constant(ir.DoubleType(), 2.0**52 + _BIAS[64]))

    return x(x), generate


@intrinsic
def mantissa(typing, x):
    """`m` in [sqrt(1/2), sqrt(2)) of a positive normal `x = m * 2**k`."""
    if not _floats(x):
        return None

    def generate(context, builder, signature, args):
        moved, width = _normalised(builder, args[0])
        integer = ir.IntType(width)
        low = builder.and_(moved, ir.Constant(integer, (1 << _MANTISSA_BITS[width]) - 1))
        return _as_float(builder, builder.add(low, ir.Constant(integer, _ROOT_HALF[width])))

    return x(x), generate
