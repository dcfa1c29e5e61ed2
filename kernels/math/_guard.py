"""Another function for the rare argument, without losing the vector loop for the others.

`sin(1e300)` needs a thousand bits of 2/pi; computing with them in every lane and discarding the result would
cost all users for the sake of almost none. A branch in the scalar function costs them even more: LLVM's
vectoriser gives up on a call under a branch. So the choice is a function of its own, `y if low <= x <= high
else far(x)`, which comes with versions for vectors of 2 to 16 lanes. Those test all lanes with one branch, hardly
ever taken. The call says so through LLVM's `vector-function-abi-variant` attribute, and the loop vectoriser
calls the version of its width.

Where LLVM does not take the hint the loop stays scalar and right. Lane by lane the versions agree, so results
do not depend on the width.
"""

# numba types these functions by their arguments.
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from .._jit import intrinsic

_LANES = {64: (2, 4, 8), 32: (4, 8, 16)}


def _define(function: ir.Function, *, inline: bool) -> ir.IRBuilder:
    """Mark a definition as pure and as mergeable with the same one of another module, and open its body."""
    function.linkage = "linkonce_odr"
    for attribute in ("alwaysinline" if inline else "noinline", "nounwind", "readnone"):
        function.attributes.add(attribute)
    return ir.IRBuilder(function.append_basic_block())


def _outside(builder: ir.IRBuilder, x: ir.Value, low: ir.Constant, high: ir.Constant) -> ir.Value:
    return builder.or_(builder.fcmp_ordered(">", x, high), builder.fcmp_ordered("<", x, low))


def _keep(module: ir.Module, functions: list[ir.Function]) -> None:
    """Keep functions that nothing calls yet: the vectoriser looks for them by name."""
    pointer = ir.IntType(8).as_pointer()
    entries = [function.bitcast(pointer) for function in functions]
    name = "llvm.compiler.used"
    if name in module.globals:
        entries = [*module.globals[name].initializer.constant, *entries]
        del module.globals[name]
    kept = ir.GlobalVariable(module, ir.ArrayType(pointer, len(entries)), name)
    kept.linkage = "appending"
    kept.section = "llvm.metadata"
    kept.initializer = ir.Constant(kept.value_type, entries)


def _guard(context: Any, module: ir.Module, real: ir.Type, bounds: tuple[float, float], far: Any) -> ir.Function:
    """`guard(x, y)`: `y` where x is within the bounds or nan, `far(x)` elsewhere (in float64, then rounded)."""
    width = 32 if isinstance(real, ir.FloatType) else 64
    name = f"shmarray_guard_{far.py_func.__name__}{width}"
    if name in module.globals:
        return module.globals[name]
    compiled = far.overloads[(types.float64,)]
    context.active_code_library.add_linking_library(compiled.library)

    guard = ir.Function(module, ir.FunctionType(real, [real, real]), name)
    builder = _define(guard, inline=False)
    x, y = guard.args
    outside = _outside(builder, x, *(ir.Constant(real, bound) for bound in bounds))
    with builder.if_then(outside, likely=False):
        argument = builder.fpext(x, ir.DoubleType()) if width == 32 else x
        # The status is ignored: `far` raises nothing.
        _, value = context.call_internal_no_propagate(builder, compiled.fndesc, compiled.signature, [argument])
        builder.ret(builder.fptrunc(value, real) if width == 32 else value)
    builder.ret(y)

    versions = []
    for lanes in _LANES[width]:
        vector = ir.VectorType(real, lanes)
        version = ir.Function(module, ir.FunctionType(vector, [vector, vector]), f"{name}_{lanes}")
        builder = _define(version, inline=True)
        x, y = version.args
        limits = [ir.Constant(vector, [ir.Constant(real, bound)] * lanes) for bound in bounds]
        mask = builder.bitcast(_outside(builder, x, *limits), ir.IntType(lanes))
        with builder.if_then(builder.icmp_unsigned("!=", mask, ir.Constant(mask.type, 0)), likely=False):
            result = y
            for i in range(lanes):
                lane = ir.Constant(ir.IntType(32), i)
                pair = [builder.extract_element(x, lane), builder.extract_element(y, lane)]
                result = builder.insert_element(result, builder.call(guard, pair), lane)
            builder.ret(result)
        builder.ret(y)
        versions.append(version)
    _keep(module, versions)
    return guard


def outside(low: float, high: float, far: Callable[..., Any]) -> Any:
    """An intrinsic `(x, y) -> y`, or `far(x)` where x is not in [low, high]; `far` has a name of its own."""

    @intrinsic
    def chosen(typing, x, y):
        if x != y or x not in (types.float32, types.float64):
            return None
        dispatcher: Any = far
        dispatcher.compile((types.float64,))

        def generate(context, builder, signature, args):
            real = args[0].type
            guard = _guard(context, builder.module, real, (low, high), dispatcher)
            call = builder.call(guard, args)
            # _ZGV: LLVM's own ABI ("_LLVM_"), unmasked (N), lanes, two vector parameters (vv).
            variants = ",".join(
                f"_ZGV_LLVM_N{lanes}vv_{guard.name}({guard.name}_{lanes})"
                for lanes in _LANES[32 if isinstance(real, ir.FloatType) else 64]
            )
            # llvmlite's set of attributes admits the names it knows and prints whatever is in it.
            set.add(call.attributes, f'"vector-function-abi-variant"="{variants}"')
            return call

        return x(x, y), generate

    return chosen
