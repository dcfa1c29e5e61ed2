"""Calling the user's function from code that is written instruction by instruction.

Inside an intrinsic a call costs the compiler nothing but itself: no type inference of names, tuples and casts around
it. Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import types

__all__ = ["emit_call", "resolve"]


def resolve(typing_context: Any, function: Any, arguments: Sequence[types.Type]) -> Any:
    """The signature of a dispatcher for arguments of these types; it is compiled for them."""
    return typing_context.resolve_function_type(types.Dispatcher(function), tuple(arguments), {})


def emit_call(context: Any, builder: Any, function: Any, signature: Any, values: Sequence[Any]) -> Any:
    """The value of a call; what the function raises goes through to the caller of the code being made."""
    callee = context.get_function(types.Dispatcher(function), signature)
    for library in getattr(callee, "libs", ()):
        context.active_code_library.add_linking_library(library)
    return callee(builder, list(values))
