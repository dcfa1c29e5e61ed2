"""Which numba function stands for the user's function, and what does it return?"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from numba import types

from shmarray.interrupts import raised_by_handler
from shmarray.jit import registries, store
from shmarray.jit.environment import code_key
from shmarray.jit.failures import compile_error
from shmarray.jit.substitution import Family, KernelDispatcher

__all__ = ["compiled_return_type", "return_type", "scalar"]


def scalar(function: Callable[..., Any], *, precise: bool = False, debug: bool = False) -> KernelDispatcher:
    """Return the numba dispatcher that stands for `function` inside drivers. Compiles nothing yet.

    Parameters
    ----------
    function
        A Python function, or one that the user has put under `numba.njit`. It may call others of either kind,
        and itself.
    precise
        Keep libm's elementary functions. Otherwise `np.exp`, `math.exp` and so on, here and in everything it
        calls, become `shmarray.kernels.math`'s, which vectorise.
    debug
        Check array bounds.

    Notes ----- Globals and closure cells are constants: numba freezes them when it compiles. Division by zero
    and domain errors follow NumPy (`error_model="numpy"`): inf or nan, also for `math.log` and its kin, and
    no exception.
    """
    return Family(precise=precise, debug=debug).member(function)


_types: dict[Any, Any] = {}


def return_type(dispatcher: KernelDispatcher, argtypes: Sequence[Any]) -> Any:
    """Return the numba type that the function has for arguments of these numba types.

    Raises
    ------
    KernelCompileError
        numba cannot compile it for these types. The facts name file and line in the user's code.
    """
    arguments = tuple(argtypes)
    prints = dispatcher.fingerprint
    key = code_key(("return type", prints, tuple(str(argument) for argument in arguments)))
    found = _types.get(key)
    if found is not None:
        return found[0]
    data = store.read(key) if prints.stable else None
    result: Any
    if data is not None:
        result = pickle.loads(data)
    else:
        result = compiled_return_type(dispatcher, arguments)
        if prints.stable and _is_plain(result):
            store.write(key, pickle.dumps(result))
    _types[key] = result, prints
    return result


def compiled_return_type(dispatcher: KernelDispatcher, argtypes: Sequence[Any]) -> Any:
    """The same, asked of the compiler and not of the cache: for types that note what they see of the function.

    The caller remembers the answer.
    """
    arguments = tuple(argtypes)
    try:
        registries.fill()
        dispatcher.compile(arguments)
    except Exception as error:
        own = raised_by_handler(error)
        if own is not None:
            raise own from None
        raise compile_error(error, dispatcher) from error.with_traceback(None)
    return dispatcher.overloads[arguments].signature.return_type


def _is_plain(kind: Any) -> bool:
    """Whether a type says all about itself (a function's type, say, holds the function)."""
    if isinstance(kind, types.BaseTuple):
        return all(_is_plain(item) for item in kind)
    return isinstance(
        kind,
        types.Number | types.Boolean | types.NPDatetime | types.NPTimedelta | types.NoneType | types.Array,
    )
