"""Which numba function stands for the user's function?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba

from shmarray.jit.policy import options

__all__ = ["return_type", "scalar"]


def scalar(function: Callable[..., Any], *, precise: bool = False, debug: bool = False) -> Any:
    """Return the numba dispatcher that stands for `function` inside drivers."""
    python = getattr(function, "py_func", function)
    return numba.njit(**options(debug=debug))(python)


def return_type(dispatcher: Any, argtypes: Sequence[Any]) -> Any:
    """Return the numba type that the function has for arguments of these numba types."""
    arguments = tuple(argtypes)
    dispatcher.compile(arguments)
    return dispatcher.overloads[arguments].signature.return_type
