"""How a formula becomes a function that users call and that kernels get in place of NumPy's.

A public function is an ordinary Python function; called from plain Python it is NumPy's. Inside compiled code
numba asks the overload registered here, which answers by type:

- float32 and float64: the formula for that format;
- integers and booleans: converted first, to the type that numba's own version of the replaced function gives
  (float64;
  for NumPy's functions float32 where 16 bits or fewer make it exact);
- anything else (arrays, complex numbers): NumPy's function, unchanged; where NumPy has none, a typing error.

`math.exp` and its kin differ from NumPy's in the second point alone, so each gets an entry of its own in the
table.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba import types

from .._jit import inlined, overload
from ._formats import FLOAT32, FLOAT64, Format

F = TypeVar("F", bound=Callable[..., Any])
Formula = Callable[[Format], Callable[..., Any]]

#: What to call instead of a function of NumPy or of the `math` module, in compiled code.
SUBSTITUTES: dict[Any, Callable[..., Any]] = {}


def formula(build: Formula) -> Formula:
    """Make a builder of scalar functions give one dispatcher a format, to be inlined in its callers."""

    @functools.cache
    def built(fmt: Format) -> Callable[..., Any]:
        return inlined(build(fmt))

    return functools.wraps(build)(built)


def _is_whole(kind: Any) -> bool:
    return isinstance(kind, types.Integer | types.Boolean)


def _fits_single(kind: Any) -> bool:
    return isinstance(kind, types.Boolean) or (_is_whole(kind) and kind.bitwidth <= 16)


def _common_format(arguments: tuple[Any, ...], *, narrow: bool, widen: bool) -> Format | None:
    """The format to compute in, None where NumPy's function is to be called."""
    if not all(_is_whole(kind) or kind in (types.float32, types.float64) for kind in arguments):
        return None
    if widen or types.float64 in arguments:
        return FLOAT64
    # An integer beside a float32 (`arctan2(x, 1)`) does not widen it, in numba as in NumPy.
    if types.float32 in arguments or (narrow and all(_fits_single(kind) for kind in arguments)):
        return FLOAT32
    return FLOAT64


def _answer(
    arguments: tuple[Any, ...], build: Formula, fallback: Any, *, narrow: bool, integers: bool, widen: bool
) -> Callable[..., Any] | None:
    """The implementation for these argument types."""
    fmt = _common_format(arguments, narrow=narrow, widen=widen)
    if fmt is None or (integers and all(_is_whole(kind) for kind in arguments)):
        if fallback is None:
            return None
        if len(arguments) == 1:
            return lambda x: fallback(x)
        return lambda x, y: fallback(x, y)
    compute = build(fmt)
    own = numba.float32 if fmt is FLOAT32 else numba.float64
    if all(argument == own for argument in arguments):
        return compute.py_func  # type: ignore[attr-defined, no-any-return]
    real = fmt.real
    if len(arguments) == 1:
        return lambda x: compute(real(x))
    if integers and fmt is FLOAT32 and _is_whole(arguments[1]):
        # A float32 would round a large exponent, and forget whether it is odd.
        wide = FLOAT64.real
        return lambda x, y: compute(real(x), wide(y))
    return lambda x, y: compute(real(x), real(y))


def _register(
    target: Callable[..., Any],
    build: Formula,
    fallback: Any,
    *,
    arity: int,
    narrow: bool = True,
    integers: bool = False,
    widen: bool = False,
) -> None:
    # numba binds arguments by name, so the chooser's signature must be the formula's. Each arity has a
    # chooser of its own: NumPy's functions of arrays take an output, too.
    if arity == 1:

        @overload(target)
        def choose_one(x: Any) -> Callable[..., Any] | None:
            return _answer((x,), build, fallback, narrow=narrow, integers=integers, widen=widen)

        @overload(target)
        def choose_one_out(x: Any, out: Any) -> Callable[..., Any] | None:
            return (lambda x, out: fallback(x, out)) if fallback and isinstance(out, types.Array) else None

    else:

        @overload(target)
        def choose_two(x: Any, y: Any) -> Callable[..., Any] | None:
            return _answer((x, y), build, fallback, narrow=narrow, integers=integers, widen=widen)

        @overload(target)
        def choose_two_out(x: Any, y: Any, out: Any) -> Callable[..., Any] | None:
            return (lambda x, y, out: fallback(x, y, out)) if isinstance(out, types.Array) else None


def publish(
    build: Formula, *replaced: Any, standard: Any = None, arity: int = 1, integers: bool = False
) -> Callable[[F], F]:
    """Give a public function its compiled form, and put it in the table of substitutes.

    Parameters
    ----------
    build : formula
        From a format to the scalar function.
    *replaced : ufunc
        NumPy's functions it stands in for; the first one answers for arrays and complex numbers. None where NumPy
        has no such function.
    standard : builtin, optional
        Its counterpart in the `math` module.
    arity : {1, 2}
        Number of arguments.
    integers : bool
        True where NumPy's function of integers is not a float function of them (`power`).
    """

    def decorate(public: F) -> F:
        fallback = replaced[0] if replaced else None
        _register(public, build, fallback, arity=arity, integers=integers)
        for function in replaced:
            SUBSTITUTES[function] = public
        if standard is not None:
            if arity == 1:

                def counterpart(x: Any) -> Any:
                    return standard(x)

            else:

                def counterpart(x: Any, y: Any) -> Any:  # type: ignore[misc]
                    return standard(x, y)

            counterpart.__name__ = counterpart.__qualname__ = f"math_{public.__name__}"
            _register(counterpart, build, standard, arity=arity, narrow=False)
            SUBSTITUTES[standard] = counterpart
        return public

    return decorate


def publish_wide(build: Formula, replaced: Any) -> None:
    """Put a formula of two arguments in the table for a function of NumPy's that computes in float64 always."""

    def counterpart(x: Any, y: Any) -> Any:
        return replaced(x, y)

    counterpart.__name__ = counterpart.__qualname__ = f"wide_{replaced.__name__}"
    _register(counterpart, build, replaced, arity=2, widen=True)
    SUBSTITUTES[replaced] = counterpart
