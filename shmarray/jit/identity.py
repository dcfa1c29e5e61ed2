"""When are two functions the same code?

A fingerprint is a digest of everything that decides what numba makes of a function: bytecode, constants,
defaults, closure cells, the globals it reads, and the same of every function it calls. It is taken from
objects, never from source files, so lambdas, notebook cells and `python -c` have one too.

Numba freezes globals and closure cells when it compiles. A fingerprint holds their values at the time it is
taken: a program that changes a module constant between two runs gets new code, while a change between two
calls of one process is seen by whoever takes the fingerprint anew.

Invariant: equal fingerprints mean equal code, in any process on this machine. What has no stable bytes (an
open file, a C function's address) gives a *local* fingerprint, which no other process ever equals.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import os
import struct
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

__all__ = ["Fingerprint", "fingerprint"]

#: Packages whose functions are named rather than read: their versions are part of every key.
_VERSIONED = frozenset({"llvmlite", "numba", "numpy", "shmarray", *sys.stdlib_module_names}) - {"__main__"}
#: numba reads larger global arrays in place; smaller ones become constants of the code.
_TABLE_NBYTES = 10**6
_EXCEPTION_LINES = frozenset(
    code
    for name, code in dis.opmap.items()
    if name in ("RAISE_VARARGS", "LOAD_ASSERTION_ERROR", "LOAD_COMMON_CONSTANT")
)
_PROCESS = os.urandom(16)


class Fingerprint(bytes):
    """A digest that knows where it holds.

    Attributes
    ----------
    tables : tuple of ndarray
        Global arrays that the code reads in place, in the order met.
    kept : tuple
        Values that took part by identity.
    stable : bool
        False: it holds in this process alone (`kept` is not empty), so code under it must not be kept on
        disk.
    """

    tables: tuple[np.ndarray[Any, Any], ...]
    kept: tuple[object, ...]

    def __new__(
        cls, digest: bytes, *, tables: Iterable[np.ndarray[Any, Any]] = (), kept: Iterable[object] = ()
    ) -> Fingerprint:
        self = super().__new__(cls, digest)
        self.tables = tuple(tables)
        self.kept = tuple(kept)
        return self

    @property
    def stable(self) -> bool:
        return not self.kept


def fingerprint(value: object) -> Fingerprint:
    """Return the digest of a function, a numba dispatcher, or a tuple of such and of plain values.

    Examples
    --------
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1)
    True
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1.0)
    False
    >>> fingerprint(lambda x: x + 1).stable
    True
    """
    reader = _Reader()
    reader.read(value)
    return Fingerprint(reader.digest(), tables=reader.tables, kept=reader.kept)


class _Reader:
    """Feeds a value, piece by piece and each piece tagged with its kind, to a hash."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=32)
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []  # ids in `_seen` must not be reused
        self.kept: list[object] = []
        self.tables: list[np.ndarray[Any, Any]] = []

    def digest(self) -> bytes:
        return self._hash.digest()

    def _feed(self, kind: str, *pieces: bytes) -> None:
        # Lengths go in as well: without them ("ab", "c") and ("a", "bc") would be one.
        self._hash.update(f"{kind}:{len(pieces)};".encode())
        for piece in pieces:
            self._hash.update(struct.pack("<Q", len(piece)))
            self._hash.update(piece)

    def _feed_local(self, value: object) -> None:
        # By identity: good for this process as long as the value lives, so the fingerprint keeps it alive.
        self.kept.append(value)
        self._feed("local", _PROCESS, str(os.getpid()).encode(), str(id(value)).encode())

    def _first_visit(self, value: object) -> bool:
        order = self._seen.get(id(value))
        if order is not None:
            self._feed("again", str(order).encode())
            return False
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        return True

    def read(self, value: Any) -> None:
        kind = type(value)
        plain = _PLAIN.get(kind)
        if plain is not None:
            self._feed(kind.__name__, plain(value))
        elif isinstance(value, Fingerprint):
            self._feed("fingerprint", value)
            self._merge(value)
        elif kind in (tuple, list):
            if kind is list and not self._first_visit(value):
                return
            self._feed(kind.__name__, str(len(value)).encode())
            for item in value:
                self.read(item)
        elif kind in (set, frozenset):
            # Iteration order follows string hashes, which differ between processes.
            parts = sorted(self._apart(item) for item in value)
            self._feed(kind.__name__, *parts)
        elif kind is dict:
            if self._first_visit(value):
                self._feed("dict", str(len(value)).encode())
                for key, item in value.items():
                    self.read(key)
                    self.read(item)
        elif isinstance(value, types.CodeType):
            self._read_code(value)
        elif isinstance(value, np.ndarray):
            self._read_array(value)
        elif isinstance(value, np.generic):
            self._read_array(np.asarray(value))
        elif isinstance(value, np.dtype):
            self._read_dtype(value)
        elif isinstance(value, np.ufunc):
            self._feed("ufunc", value.__name__.encode())
        elif isinstance(value, types.ModuleType):
            self._feed("module", value.__name__.encode())
        elif isinstance(value, enum.Enum):
            self._feed("enum", _path(kind), value.name.encode())
            self.read(value.value)
        elif isinstance(value, tuple):  # a named one
            self._feed("namedtuple", _path(kind), repr(getattr(kind, "_fields", ())).encode())
            self.read(tuple(value))
        else:
            self._read_callable(value)

    def _apart(self, value: object) -> bytes:
        """The digest of a value by itself."""
        part = fingerprint(value)
        self._merge(part)
        return part

    def _merge(self, part: Fingerprint) -> None:
        self.kept.extend(part.kept)
        self.tables.extend(part.tables)

    def _read_callable(self, value: Any) -> None:
        if _is_versioned(value):
            self._feed("versioned", _path(value))
        elif isinstance(value, types.FunctionType):
            if self._first_visit(value):
                self._read_function(value)
        elif isinstance(getattr(value, "py_func", None), types.FunctionType) and hasattr(value, "targetoptions"):
            # A numba dispatcher. Its own class does not matter: it is compiled anew under our options.
            options = {k: v for k, v in sorted(value.targetoptions.items()) if k in KEPT_OPTIONS}
            self._feed("dispatcher", repr(options).encode(), repr(getattr(value, "locals", None) or {}).encode())
            family = getattr(value, "family", None)
            if family is not None:
                self.read(family.key)
            self.read(value.py_func)
        elif isinstance(getattr(getattr(value, "_dispatcher", None), "py_func", None), types.FunctionType):
            self._feed("vectorized")  # numba.vectorize
            self.read(value._dispatcher)
        elif isinstance(getattr(value, "__wrapped__", None), types.FunctionType):
            self._feed("wrapped")  # a function under one of our decorators
            self.read(value.__wrapped__)
        elif isinstance(getattr(value, "_defn", None), types.FunctionType):
            self._feed("intrinsic")  # numba.extending.intrinsic
            self.read(value._defn)
        elif isinstance(value, type) and not hasattr(value, "class_type"):  # has it: a jitclass
            self._feed("class", _path(value))
        elif type(value).__module__.startswith("numba.core.types"):
            self._feed("numba type", _path(type(value)), str(value).encode())
        elif isinstance(value, types.BuiltinFunctionType) and isinstance(value.__self__, types.ModuleType | None):
            self._feed("builtin", _path(value))
        elif isinstance(value, functools.partial):
            self._feed("partial")
            self.read((value.func, value.args, value.keywords))
        else:
            self._feed_local(value)

    def _read_function(self, function: types.FunctionType) -> None:
        self._feed("function", function.__name__.encode())
        self._read_code(function.__code__)
        self.read(function.__defaults__)
        self.read(function.__kwdefaults__)
        names = set(_names(function.__code__))
        modules: list[types.ModuleType] = []
        for cell, name in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                self._feed("empty cell", name.encode())
                continue
            self._feed("cell", name.encode())
            self.read(value)
            if isinstance(value, types.ModuleType):
                modules.append(value)
        for name in sorted(set(_global_names(function.__code__))):
            if name not in function.__globals__:
                self._feed("builtin name", name.encode())
                continue
            value = function.__globals__[name]
            self._feed("global", name.encode())
            self.read(value)
            if isinstance(value, types.ModuleType):
                modules.append(value)
        self._read_modules(modules, names)

    def _read_modules(self, modules: list[types.ModuleType], names: set[str]) -> None:
        """What a function may read from the modules it refers to.

        Any attribute it reads by name is among its code's names; so every one of those that the module has
        counts.
        """
        for module in modules:
            if module.__name__.partition(".")[0] in _VERSIONED or not self._first_visit(module):
                continue
            deeper: list[types.ModuleType] = []
            for name in sorted(names & vars(module).keys()):
                value = vars(module)[name]
                self._feed("attribute", module.__name__.encode(), name.encode())
                self.read(value)
                if isinstance(value, types.ModuleType):
                    deeper.append(value)
            self._read_modules(deeper, names)

    def _read_code(self, code: types.CodeType) -> None:
        self._feed(
            "code",
            code.co_code,
            repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)).encode(),
            "\0".join((*code.co_names, "", *code.co_varnames, "", *code.co_freevars, "", *code.co_cellvars)).encode(),
            code.co_exceptiontable,
        )
        if not _EXCEPTION_LINES.isdisjoint(code.co_code[::2]):
            # The file and line stand in the exceptions that the machine code raises.
            self._feed("lines", code.co_filename.encode(), str(code.co_firstlineno).encode(), code.co_linetable)
        for constant in code.co_consts:
            self.read(constant)

    def _read_array(self, array: np.ndarray[Any, Any]) -> None:
        if array.dtype.hasobject:
            self._feed_local(array)
            return
        layout = "C" if array.flags.c_contiguous else "F" if array.flags.f_contiguous else "A"
        self._read_dtype(array.dtype)
        self._feed("array", layout.encode(), repr((array.shape, array.flags.writeable)).encode())
        plain = np.asarray(array)
        if layout == "F":
            plain = plain.T
        self._hash.update(np.ascontiguousarray(plain).view(np.uint8).data if plain.size else b"")
        if layout == "A":
            self._feed("strides", repr(array.strides).encode())
        if layout == "A" or array.nbytes > _TABLE_NBYTES:
            self.tables.append(array)

    def _read_dtype(self, dtype: np.dtype[Any]) -> None:
        self._feed("dtype", dtype.str.encode(), repr(dtype.descr if dtype.names else None).encode())
        self._feed("layout", repr((dtype.itemsize, dtype.alignment)).encode())


def _float_bytes(value: float) -> bytes:
    return struct.pack("<d", value)  # tells -0.0 from 0.0, and one nan from another


_PLAIN: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"",
    type(Ellipsis): lambda _: b"",
    type(NotImplemented): lambda _: b"",
    bool: lambda value: b"1" if value else b"0",
    int: lambda value: str(value).encode(),
    float: _float_bytes,
    complex: lambda value: _float_bytes(value.real) + _float_bytes(value.imag),
    str: lambda value: value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: value,
    range: lambda value: repr(value).encode(),
    slice: lambda value: repr(value).encode(),
}

#: Options of a user's own `@njit` that survive: they change what the function means or how it is inlined.
KEPT_OPTIONS = ("fastmath", "inline")


def _path(value: Any) -> bytes:
    return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', type(value).__name__)}".encode()


def _is_versioned(value: Any) -> bool:
    """Whether a value is found under its own name in a package whose version is in every key."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module.partition(".")[0] not in _VERSIONED:
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _names(code: types.CodeType) -> Iterator[str]:
    for inner in _codes(code):
        yield from inner.co_names


def _global_names(code: types.CodeType) -> Iterator[str]:
    for inner in _codes(code):
        for instruction in dis.get_instructions(inner):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                yield instruction.argval
