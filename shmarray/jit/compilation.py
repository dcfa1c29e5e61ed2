"""Where does the code of a driver come from: memory, disk, or the compiler?"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numba

from shmarray.jit import objectcode
from shmarray.jit.policy import options
from shmarray.jit.counters import count

__all__ = ["Code", "compile", "load"]

_MACHINE = b"shmjit-m"
_SOURCE = b"shmjit-s"


class Code:
    """A compiled driver.

    Attributes
    ----------
    entry : callable
        Takes integers, returns an integer; releases the GIL.
    payload : bytes
        What another process gives to :func:`load`.
    """

    __slots__ = ("_payload", "entry")

    def __init__(self, entry: Callable[..., int], payload: bytes) -> None:
        self.entry = entry
        self._payload = payload

    @property
    def payload(self) -> bytes:
        return self._payload


_memory: dict[Any, Code] = {}


def compile(  # the counterpart of `load`; it shadows the builtin only under this module's name
    driver: Callable[[], Callable[..., int]], argtypes: Sequence[Any], *, key: Any, debug: bool = False
) -> Code:
    """Compile the function that `driver()` returns."""
    key = (key, len(argtypes), debug)
    code = _memory.get(key)
    if code is not None:
        count("loaded_from_memory")
        return code
    compiled = _compile(driver, len(argtypes), debug=debug)
    try:
        payload = _MACHINE + objectcode.extract(compiled).to_bytes()
    except objectcode.UnshippableError:
        import cloudpickle

        payload = _SOURCE + cloudpickle.dumps((driver, len(argtypes), debug))
    code = _memory[key] = Code(compiled.entry_point, payload)
    return code


def load(payload: bytes) -> Callable[..., int]:
    """Make the code of another process callable in this one."""
    kind, body = payload[:8], payload[8:]
    if kind == _MACHINE:
        entry = objectcode.load(objectcode.ObjectCode.from_bytes(body))
        count("received")
        return entry
    driver, arity, debug = pickle.loads(body)
    compiled = _compile(driver, arity, debug=debug)
    entry = compiled.entry_point
    return entry


def _compile(driver: Callable[[], Callable[..., int]], arity: int, *, debug: bool) -> Any:
    dispatcher = numba.njit(**options(debug=debug))(driver())
    arguments = (numba.int64,) * arity
    dispatcher.compile(numba.int64(*arguments))
    count("compiled")
    return dispatcher.overloads[arguments]
