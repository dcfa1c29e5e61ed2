"""What does a kernel call when it says `np.exp`?

numba from PyPI has no vector math library: `np.exp` in a loop is one call of libm an element.
`shmarray.kernels.math` has functions that vectorise, and a kernel gets them wherever type inference finds one
of NumPy's or of `math`: by the object that is called, so that aliases, closure cells, `from numpy import exp`
and other names for the module count, and by the types of the call, so that arrays and complex numbers keep
NumPy's meaning. Nothing is patched and no source is rewritten: two passes in the compiler pipeline of these
kernels alone do it.

Invariant: a substitution never changes a type. A substitute that would give another result type is not used.
"""

from __future__ import annotations

import math
import operator
import sys
import types as python_types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numba import types
from numba.core import errors, ir, ir_utils
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import NopythonTypeInference
from numba.core.untyped_passes import InlineInlinables

from shmarray.jit.identity import KEPT_OPTIONS, Fingerprint, fingerprint
from shmarray.jit.policy import naming_indices, options

__all__ = ["Family", "KernelDispatcher", "libraries", "substitutes"]


def substitutes() -> Mapping[Any, Any]:
    """Return the table: NumPy's or `math`'s function -> what numba is to call instead."""
    # By name and late: the table's functions import the numba that this module is part of loading.
    from shmarray.kernels.math import SUBSTITUTES

    return SUBSTITUTES


_families: weakref.WeakSet[Family] = weakref.WeakSet()


def libraries() -> Iterator[Any]:
    """Yield numba's code libraries of all members of all families."""
    for family in list(_families):
        for member in list(family._members.values()):
            for compiled in list(member.overloads.values()):
                yield compiled.library


class Family:
    """A user's function and everything it calls, compiled alike.

    A user's own `@njit` function is compiled again for each family that calls it: under our options (its
    exceptions, its divisions and its bounds are then the kernel's) and with substitution.
    """

    __slots__ = ("__weakref__", "_members", "debug", "pipeline", "precise")

    def __init__(self, *, precise: bool, debug: bool) -> None:
        self.precise = precise
        self.debug = debug
        # numba makes a pipeline from its class alone, so what a pipeline must know is on a class.
        self.pipeline = type("FamilyPipeline", (_Pipeline,), {"family": self})
        self._members: dict[Any, KernelDispatcher] = {}
        _families.add(self)

    @property
    def key(self) -> tuple[bool, bool]:
        """What tells this family's code from another's."""
        return self.precise, self.debug

    def __reduce__(self) -> tuple[Any, ...]:
        # Without its members: each one joins as it arrives.
        return _create_family, self.key

    def member(self, function: Any) -> KernelDispatcher:
        """Return the dispatcher that stands for a function or dispatcher in this family."""
        python, kept, local_types = _parts(function)
        found = self._members.get((python, repr(kept)))
        if found is None:
            targetoptions = {"nopython": True, **options(debug=self.debug, inlined=True), **kept}
            found = KernelDispatcher(python, dict(local_types), targetoptions, self.pipeline)
            self.admit(found)
        return found

    def admit(self, dispatcher: KernelDispatcher) -> None:
        """Let a dispatcher stand for its function in this family."""
        dispatcher.family = self
        python, kept, _ = _parts(dispatcher)
        self._members.setdefault((python, repr(kept)), dispatcher)


def _create_family(precise: bool, debug: bool) -> Family:
    return Family(precise=precise, debug=debug)


class KernelDispatcher(CPUDispatcher):  # type: ignore[misc]
    """A numba dispatcher that belongs to a :class:`Family`."""

    family: Family
    _fingerprint: Fingerprint | None = None

    @property
    def fingerprint(self) -> Fingerprint:
        # Taken once, when the dispatcher is new: the values that numba is about to freeze.
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self)
        return self._fingerprint

    def compile(self, signature: Any) -> Any:
        with naming_indices(bool(self.targetoptions.get("boundscheck"))):
            return super().compile(signature)


def _parts(function: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    python = getattr(function, "py_func", None)
    if python is None:
        return function, {}, {}
    kept = {name: value for name, value in function.targetoptions.items() if name in KEPT_OPTIONS}
    return python, kept, function.locals


class _Pipeline(CompilerBase):  # type: ignore[misc]
    family: Family

    def define_pipelines(self) -> list[Any]:
        for block in self.state.lifted:
            # A `with numba.objmode` block holds the GIL, and numba would warn that our nogil cannot be had.
            block.flags.release_gil = False
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_AdoptCallees, InlineInlinables)
        if not self.family.precise:
            passes.add_pass_after(_SubstituteMath, NopythonTypeInference)
        passes.finalize()
        return [passes]


@register_pass(mutates_CFG=False, analysis_only=False)
class _AdoptCallees(FunctionPass):  # type: ignore[misc]
    """Let the user's own functions, wherever the kernel finds them, be members of the family."""

    _name = "shmarray_adopt_callees"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        function_ir, family = state.func_ir, state.pipeline.family
        changed = False
        for block in function_ir.blocks.values():
            for statement in block.body:
                if not isinstance(statement, ir.Assign):
                    continue
                found, value = _constant(function_ir, statement.value)
                if not found:
                    continue
                adopted = _adopt(value, family, state.typingctx)
                if adopted is not value:
                    name = getattr(value, "__name__", "callees")
                    statement.value = ir.Global(name, adopted, statement.value.loc)
                    changed = True
        if changed:
            function_ir._definitions = ir_utils.build_definitions(function_ir.blocks)
        return changed


def _constant(function_ir: Any, value: Any) -> tuple[bool, Any]:
    """The Python object that an expression of the IR stands for: a global, a cell, or one of a module."""
    if isinstance(value, ir.Global | ir.FreeVar):
        return True, value.value
    if isinstance(value, ir.Expr) and value.op == "getattr":
        definition = ir_utils.guard(ir_utils.get_definition, function_ir, value.value)
        if definition is None:
            return False, None
        found, module = _constant(function_ir, definition)
        if found and isinstance(module, python_types.ModuleType) and hasattr(module, value.attr):
            return True, getattr(module, value.attr)
    return False, None


def _adopt(value: Any, family: Family, typing_context: Any) -> Any:
    if isinstance(value, CPUDispatcher):
        return family.member(value)
    if type(value) is tuple and any(isinstance(item, CPUDispatcher) for item in value):
        return tuple(_adopt(item, family, typing_context) for item in value)
    if not callable(value) or isinstance(value, type):
        return value
    wrapped = value if isinstance(value, python_types.FunctionType) else getattr(value, "__wrapped__", None)
    if not isinstance(wrapped, python_types.FunctionType) or _is_others(wrapped):
        return value
    try:
        typing_context.resolve_value_type(value)
    except (ValueError, errors.NumbaError):
        # Plain Python, or one of our decorators over it: nothing that numba knows. (It knows what `overload`
        # and `register_jitable` registered, and NumPy's own functions.)
        return family.member(wrapped)
    return value


def _is_others(function: python_types.FunctionType) -> bool:
    """Whether it is Python's or NumPy's: numba says better what it does not know than their insides do."""
    package = function.__module__.partition(".")[0] if function.__module__ else ""
    return package != "__main__" and (package in ("numpy", "numba") or package in sys.stdlib_module_names)


@register_pass(mutates_CFG=False, analysis_only=False)
class _SubstituteMath(FunctionPass):  # type: ignore[misc]
    """Replace calls of functions in the table, type by type."""

    _name = "shmarray_substitute_math"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        table: Mapping[Any, Any] | None = None
        changed = False
        for block in state.func_ir.blocks.values():
            body: list[Any] = []
            for statement in block.body:
                call = statement.value if isinstance(statement, ir.Assign) else None
                called = _called(call, state.typemap) if isinstance(call, ir.Expr) else None
                if called is not None:
                    if table is None:
                        table = substitutes()
                        # Its import, here for the first time perhaps, registers overloads.
                        state.typingctx.refresh()
                        state.targetctx.refresh()
                    replaced = None
                    for substitute, kinds in _candidates(table, *called, state):
                        replaced = _replace(call, substitute, called[1], kinds, block.scope, state)
                        if replaced is not None:
                            break
                    if replaced is not None:
                        body.append(replaced[0])
                        statement.value = replaced[1]
                        changed = True
                body.append(statement)
            block.body = body
        if changed:
            state.func_ir._definitions = ir_utils.build_definitions(state.func_ir.blocks)
        return changed


def _called(call: Any, typemap: Mapping[str, Any]) -> tuple[Any, list[Any]] | None:
    """The function that an expression calls and its arguments, where all of them are real scalars."""
    if call.op == "call" and not call.kws and call.vararg is None:
        function = typemap[call.func.name]
        if not isinstance(function, types.Function):
            return None
        key, arguments = function.typing_key, list(call.args)
    elif call.op == "binop" and call.fn is operator.pow:
        key, arguments = call.fn, [call.lhs, call.rhs]
    elif call.op == "inplace_binop" and call.immutable_fn is operator.pow:
        key, arguments = call.immutable_fn, [call.lhs, call.rhs]
    else:
        return None
    kinds = [types.unliteral(typemap[argument.name]) for argument in arguments]
    real = all(isinstance(kind, types.Integer | types.Boolean) or kind in _REAL for kind in kinds)
    if key in _POWERS:
        # A power of two integers is an integer: numba's own (exact) business.
        real = real and any(kind in _REAL for kind in kinds)
    return (key, arguments) if real and arguments else None


def _candidates(
    table: Mapping[Any, Any], key: Any, arguments: list[Any], state: Any
) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """What may stand in for a call, the best first, each with the types of its arguments."""
    substitute = _lookup(table, key)
    if substitute is None:
        return
    kinds = [state.typemap[argument.name] for argument in arguments]
    if key in _POWERS or key in (np.power, np.float_power, math.pow):
        exponent = _exponent(arguments[1], kinds[1], state.func_ir)
        if exponent in _EXACT_POWERS:
            return
        if isinstance(kinds[1], types.IntegerLiteral) and types.unliteral(kinds[0]) in _REAL:
            from shmarray.kernels.math import LONGEST, whole_power

            if abs(kinds[1].literal_value) <= LONGEST:
                yield whole_power, (types.unliteral(kinds[0]), kinds[1])
    yield substitute, tuple(types.unliteral(kind) for kind in kinds)


def _exponent(argument: Any, kind: Any, function_ir: Any) -> Any:
    """The value of an exponent that the code names, else None."""
    if isinstance(kind, types.IntegerLiteral):
        return kind.literal_value
    return ir_utils.guard(ir_utils.find_const, function_ir, argument)


_POWERS = (operator.pow, pow)

#: Exponents for which LLVM puts one correctly rounded instruction: a product, a quotient, a root.
_EXACT_POWERS = (0, 1, 2, -1, 0.5)

_REAL = (types.float32, types.float64)


def _lookup(table: Mapping[Any, Any], key: Any) -> Any:
    try:
        return table.get(key)
    except TypeError:  # not hashable: not a function we know
        return None


def _replace(
    call: Any, substitute: Any, arguments: list[Any], kinds: tuple[Any, ...], scope: Any, state: Any
) -> tuple[Any, Any] | None:
    """The assignment that names the substitute, and the call of it; None to leave the call as it is."""
    before = state.calltypes[call]
    if before.return_type not in _REAL:
        return None
    function = state.typingctx.resolve_value_type(substitute)
    after = state.typingctx.resolve_function_type(function, kinds, {})
    if after is None or after.return_type != before.return_type:
        return None
    variable = ir.Var(scope, ir_utils.mk_unique_var("$substitute"), call.loc)
    state.typemap[variable.name] = function
    name = getattr(substitute, "__name__", "substitute")
    replacement = ir.Expr.call(variable, arguments, (), call.loc)
    del state.calltypes[call]
    state.calltypes[replacement] = after
    return ir.Assign(ir.Global(name, substitute, call.loc), variable, call.loc), replacement
