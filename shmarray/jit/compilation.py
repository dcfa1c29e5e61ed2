"""Where does the code of a driver come from: memory, disk, or the compiler?

A *driver* is the loop around the user's function that the engine writes: it takes only int64 (addresses,
counts) and returns one. It is compiled once, in the process that calls the kernel; workers are sent the
machine code, or the driver itself where that cannot leave its process. A payload is eight bytes that say
which, and a pickle. Code that checks bounds names the wrong index where it is loaded so.

Invariant: the factory is called, and numba's compiler started, only when neither memory nor disk has the
code.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import types
from numba.core.registry import CPUDispatcher

from shmarray.errors import KernelCompileError
from shmarray.interrupts import never_lost, raised_by_handler
from shmarray.jit import objectcode, registries, shipping, store
from shmarray.jit.counters import count, debug
from shmarray.jit.environment import code_key
from shmarray.jit.failures import compile_error
from shmarray.jit.forks import compiling
from shmarray.jit.identity import Fingerprint
from shmarray.jit.indices import naming_wrong_index
from shmarray.jit.policy import naming_indices, options
from shmarray.jit.substitution import libraries

__all__ = ["Code", "compile", "load"]

_MACHINE = b"shmjit-m"
_SOURCE = b"shmjit-s"
Driver = Callable[[], Callable[..., int]]


class Code:
    """A compiled driver.

    Attributes
    ----------
    entry : callable
        Takes integers, returns an integer; releases the GIL.
    payload : bytes
        What another process of this machine gives to :func:`load`.
    is_machine_code : bool
        False: the payload is the driver's source, compiled anew by every process that loads it.
    """

    __slots__ = ("_make_payload", "_payload", "entry", "is_machine_code")

    def __init__(self, entry: Callable[..., int], make_payload: Callable[[], bytes], *, is_machine_code: bool) -> None:
        self.entry = entry
        self.is_machine_code = is_machine_code
        self._make_payload: Callable[[], bytes] | None = make_payload
        self._payload = b""

    @property
    def payload(self) -> bytes:
        # Late: a program that runs in one process does not pay for it, and tables are copied only when they
        # travel.
        if self._make_payload is not None:
            self._payload = self._make_payload()
            self._make_payload = None
        return self._payload


_memory: dict[bytes, tuple[Code, Fingerprint]] = {}


def compile(  # the counterpart of `load`
    driver: Driver, argtypes: Sequence[Any], *, key: object, debug: bool = False, kernel: object = None
) -> Code:
    """Return the compiled code of a driver.

    Parameters
    ----------
    driver
        A factory, called only when the code is not to be had otherwise: returns the Python function.
    argtypes
        One int64 a parameter; anything of that length will do.
    key
        What identifies the code: a tuple of strings, numbers, fingerprints and functions, nested as you like.
        jit adds what it knows itself (versions, processor, options). Arrays that the code reads in place are
        found by the fingerprints in it.
    debug
        Check array bounds in the driver itself.
    kernel
        The user's function, to be named when the driver does not compile.

    Raises
    ------
    KernelCompileError
        numba cannot compile it.
    """
    print_ = code_key(("driver", key, len(argtypes), "checks bounds and names indices" if debug else ""))
    found = _memory.get(print_)
    if found is not None:
        count("loaded_from_memory")
        return found[0]
    with compiling, never_lost():
        found = _memory.get(print_)
        if found is not None:
            count("loaded_from_memory")
            return found[0]
        code = _from_disk(print_, check_bounds=debug) or _from_numba(
            driver, len(argtypes), print_, check_bounds=debug, kernel=kernel
        )
        # The fingerprint stays with the code: it keeps alive what it knows by identity alone.
        _memory[print_] = code, print_
        return code


def load(payload: bytes) -> Callable[..., int]:
    """Make the code of another process callable in this one.

    Raises
    ------
    KernelCompileError
        The payload is source, and this process cannot compile it.
    """
    kind, body = payload[: len(_MACHINE)], payload[len(_MACHINE) :]
    if kind == _MACHINE:
        fields, packed, check_bounds = pickle.loads(body)
        entry = objectcode.load(objectcode.ObjectCode.from_bytes(fields), shipping.unpack_tables(packed))
        count("received")
        return naming_wrong_index(entry) if check_bounds else entry
    if kind != _SOURCE:
        raise ValueError(f"a payload of jit.compile was expected; got {len(payload)} bytes of something else")
    driver, arity, check_bounds = pickle.loads(body)
    entry = _compile(driver, arity, check_bounds=check_bounds).entry_point
    return naming_wrong_index(entry) if check_bounds else entry


def _from_disk(print_: Fingerprint, *, check_bounds: bool) -> Code | None:
    data = store.read(print_) if print_.stable else None
    if data is None:
        return None
    try:
        entry = objectcode.load(objectcode.ObjectCode.from_bytes(data), print_.tables)
    except objectcode.UnresolvedSymbolError as error:
        debug("cached code does not load: %s", error)
        return None
    count("loaded_from_disk")
    debug("loaded %s from the cache", print_.hex())
    return _machine_code(entry, data, print_, check_bounds=check_bounds)


def _from_numba(driver: Driver, arity: int, print_: Fingerprint, *, check_bounds: bool, kernel: object) -> Code:
    compiled = _compile(driver, arity, check_bounds=check_bounds, kernel=kernel)
    try:
        data = objectcode.extract(compiled, print_.tables, libraries()).to_bytes()
    except objectcode.UnshippableError as error:
        debug("%s travels as source: %s", compiled.fndesc.qualname, error)
        reason = str(error)
        return Code(
            compiled.entry_point,
            lambda: _source_payload(driver, arity, check_bounds=check_bounds, reason=reason),
            is_machine_code=False,
        )
    if print_.stable:
        store.write(print_, data)
    return _machine_code(compiled.entry_point, data, print_, check_bounds=check_bounds)


def _machine_code(entry: Callable[..., int], data: bytes, print_: Fingerprint, *, check_bounds: bool) -> Code:
    tables = print_.tables
    return Code(entry, lambda: _machine_payload(data, tables, check_bounds=check_bounds), is_machine_code=True)


def _machine_payload(data: bytes, tables: Sequence[np.ndarray[Any, Any]], *, check_bounds: bool) -> bytes:
    return _MACHINE + pickle.dumps((data, shipping.pack_tables(tables), check_bounds), protocol=5)


def _source_payload(driver: Driver, arity: int, *, check_bounds: bool, reason: str) -> bytes:
    try:
        return _SOURCE + shipping.dumps((driver, arity, check_bounds))
    except Exception as error:
        raise KernelCompileError(
            f"the kernel cannot be sent to worker processes as machine code ({reason}) nor as source, which "
            f"does not pickle ({error}); name what it uses by import instead of holding the object"
        ) from error


def _compile(driver: Driver, arity: int, *, check_bounds: bool, kernel: object = None) -> Any:
    function = driver()
    # The class itself, not `numba.njit`: that one returns the plain function under NUMBA_DISABLE_JIT.
    dispatcher = CPUDispatcher(function, {}, {"nopython": True, **options(debug=check_bounds)})
    arguments = (types.int64,) * arity
    try:
        registries.fill()
        with naming_indices(check_bounds):
            dispatcher.compile(types.int64(*arguments))
    except Exception as error:
        own = raised_by_handler(error)
        if own is not None:
            raise own from None
        raise compile_error(error, kernel or function) from error.with_traceback(None)
    count("compiled")
    debug("compiled %s", function.__qualname__)
    return dispatcher.overloads[arguments]
