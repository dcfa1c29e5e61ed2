"""How does machine code get from one process into another?

numba compiles into one engine for the whole process, and names functions after a counter of that process: two
codes from two processes (or from two runs, through the cache on disk) may well carry the same names. So code
that was compiled elsewhere is never loaded into numba's engine; each one gets an engine of its own, where its
names mean itself alone. What it needs from outside (C library, Python, numba's helpers) is resolved against
the process and checked first, because LLVM ends the process when a symbol is missing.

Loading takes neither numba's registries (half a second to fill) nor its runtime library (the object carries
its own copy): only the addresses of numba's C helpers.

Two kinds of address are settled at loading. A global array over 1 MB is read in place through a pointer that
the code keeps in a variable: the array travels beside the code and the variable is set to where it now lies.
A function whose result type follows from its own recursive calls calls itself through a pointer too.

Invariant: :func:`extract` either gives an object that any process of this machine can load, or says why not.
"""

from __future__ import annotations

import ctypes
import pickle
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import _dynfunc
from numba.core import config, environment, serialize
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python

__all__ = ["ObjectCode", "UnresolvedSymbolError", "UnshippableError", "extract", "load"]

_ENVIRONMENT_PREFIX = "_ZN08NumbaEnv"
_DYNAMIC_PREFIX = "numba.dynamic.globals."
_RECURSION_PREFIX = ".numba.unresolved$"


class UnshippableError(Exception):
    """The code holds addresses of this process; it must travel as source."""


class UnresolvedSymbolError(Exception):
    """The code needs symbols that this process does not have."""


@dataclass(frozen=True, slots=True)
class ObjectCode:
    """One compiled function, independent of the process that compiled it."""

    name: str
    symbol: str  # of the wrapper that takes and returns Python integers
    elf: bytes
    needed: tuple[str, ...]  # symbols resolved against the loading process
    environments: tuple[tuple[str, str, bytes], ...]  # (symbol, module, pickled constants)
    tables: tuple[tuple[str, int, bool], ...]  # (symbol, which array, True: its elements, False: the object)
    recursive: tuple[str, ...]  # functions called through a pointer of their name
    initialisers: bytes  # pickled functions of numba's to call before loading

    def to_bytes(self) -> bytes:
        fields = (
            *(self.name, self.symbol, self.elf, self.needed),
            *(self.environments, self.tables, self.recursive, self.initialisers),
        )
        return pickle.dumps(fields, protocol=5)

    @classmethod
    def from_bytes(cls, data: bytes) -> ObjectCode:
        return cls(*pickle.loads(data))


def extract(compiled: Any, tables: Sequence[np.ndarray[Any, Any]] = (), libraries: Iterable[Any] = ()) -> ObjectCode:
    """Take the machine code out of numba's compile result.

    Parameters
    ----------
    compiled
        numba's `CompileResult`.
    tables
        Global arrays that the code may read in place; :func:`load` is to be given equal ones in the same
        order.
    libraries
        Where else to look for functions that recursive ones call.

    Raises
    ------
    UnshippableError
        The code refers to memory of this process that is none of `tables` (a ctypes or cffi function, say),
        or its environment has constants that do not pickle.
    """
    library, description = compiled.library, compiled.fndesc
    names = _variables(library._final_module)
    recursive: tuple[str, ...] = ()
    if any(name.startswith(_RECURSION_PREFIX) for name in names):
        elf, recursive, names = _with_recursive(library, libraries)
    else:
        elf = library._get_compiled_object()
    # On the library only in newer versions of numba; what needs it are calls to parallel code.
    initialisers = [*compiled.reload_init, *getattr(library, "_reload_init", ())]
    needed = set(_undefined_symbols(elf)) - {_RECURSION_PREFIX + name for name in recursive}
    return ObjectCode(
        name=description.qualname,
        symbol=description.llvm_cpython_wrapper_name,
        elf=elf,
        needed=tuple(sorted(needed)),
        # The function's own environment first: `load` hands that one to the callable.
        environments=tuple(_environments(sorted(names, key=lambda name: name != description.env_name))),
        tables=tuple(_find_table(name, tables) for name in names if name.startswith(_DYNAMIC_PREFIX)),
        recursive=recursive,
        initialisers=serialize.dumps(initialisers) if initialisers else b"",
    )


def _environments(names: list[str]) -> Iterator[tuple[str, str, bytes]]:
    for name in names:
        found = environment.lookup_environment(name) if name.startswith(_ENVIRONMENT_PREFIX) else None
        if found is None:
            continue
        try:
            constants = serialize.dumps(list(found.consts)) if found.consts else b""
        except Exception as error:
            raise UnshippableError(f"its constants do not pickle ({error})") from error
        yield name, str(found.globals.get("__name__", "")), constants


def _find_table(symbol: str, tables: Sequence[np.ndarray[Any, Any]]) -> tuple[str, int, bool]:
    # numba names the variable after the address in it: of an array's first element, or of the array object.
    address = int(symbol.removeprefix(_DYNAMIC_PREFIX), 16)
    for index, table in enumerate(tables):
        if address == id(table):
            return symbol, index, False
        if address == table.ctypes.data:
            return symbol, index, True
    raise UnshippableError("it refers to memory of this process (a C function, or a large array met at compile time)")


def _with_recursive(library: Any, others: Iterable[Any]) -> tuple[bytes, tuple[str, ...], list[str]]:
    """The machine code with the functions in it that it calls through pointers only; these; all variables.

    Nothing else in the code names these functions, so the optimiser has dropped them, or never had them: they
    are linked in from the libraries that numba keeps.
    """
    sources = [*_libraries(library), *others]
    module = library._final_module.clone()
    linked: list[str] = []
    while missing := sorted(_recursive_names(module) - set(linked)):
        for name in missing:
            source = next((source for source in sources if _defines(source, name)), None)
            if source is None:
                raise UnshippableError(f"it calls itself, and {name} is in none of its libraries")
            found = source._get_module_for_linking().clone()
            found.get_function(name).linkage = "external"  # what is not, goes when unused
            module.link_in(found)
            linked.append(name)
    return bytes(library.codegen._tm.emit_object(module)), tuple(linked), _variables(module)


def _variables(module: Any) -> list[str]:
    return [variable.name for variable in module.global_variables]


def _recursive_names(module: Any) -> set[str]:
    return {name.removeprefix(_RECURSION_PREFIX) for name in _variables(module) if name.startswith(_RECURSION_PREFIX)}


def _defines(library: Any, name: str) -> bool:
    functions = library._get_module_for_linking().functions
    return any(function.name == name and not function.is_declaration for function in functions)


def _libraries(library: Any) -> Iterator[Any]:
    seen: set[int] = set()
    pending = [library]
    while pending:
        found = pending.pop()
        if id(found) not in seen:
            seen.add(id(found))
            yield found
            pending.extend(found._linking_libraries)


def load(code: ObjectCode, tables: Sequence[np.ndarray[Any, Any]] = ()) -> Callable[..., int]:
    """Make the function callable in this process; some 2 ms.

    Raises
    ------
    UnresolvedSymbolError
        This process lacks something the code calls. Compile it here instead.
    """
    with global_compiler_lock:
        _register_helpers()
        if code.initialisers:
            for initialise in pickle.loads(code.initialisers):
                initialise()
        missing = _missing(code.needed)
        if missing:
            # An extension of numba's may bring them: those load with the registries.
            cpu_target.target_context.refresh()
            missing = _missing(code.needed)
        if missing:
            raise UnresolvedSymbolError(f"{code.name} needs {', '.join(missing)}")
        engine = _create_engine()
        pointers = []
        for name in code.recursive:
            # By name for the whole process, but only code of this engine is being linked now, and once.
            pointer = ctypes.c_void_p()
            llvm.add_symbol(_RECURSION_PREFIX + name, ctypes.addressof(pointer))
            pointers.append(pointer)
        engine.add_object_file(llvm.ObjectFileRef.from_data(code.elf))
        engine.finalize_object()
        for name, pointer in zip(code.recursive, pointers, strict=True):
            pointer.value = engine.get_function_address(name)
        for symbol, index, elements in code.tables:
            table = tables[index]
            _store_pointer(engine.get_global_value_address(symbol), table.ctypes.data if elements else id(table))
        environments = []
        for symbol, module_name, constants in code.environments:
            made = _create_environment(module_name, constants)
            # The code holds its environment as a plain pointer: `environments` below keeps it alive.
            _store_pointer(engine.get_global_value_address(symbol), id(made))
            environments.append(made)
        address = engine.get_function_address(code.symbol)
        main = environments[0] if environments else _create_environment("", b"")
        keep_alive = (engine, tuple(environments), tuple(pointers), tuple(tables))
        entry: Callable[..., int] = _dynfunc.make_function(
            _MODULE, code.name.rpartition(".")[2], "machine code", address, main, keep_alive
        )
        return entry


def _create_engine() -> Any:
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        opt=0, reloc="static" if _is_x86() else "default", codemodel="jitdefault", jit=True
    )
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine, use_lmm=config.USE_LLVMLITE_MEMORY_MANAGER)


def _is_x86() -> bool:
    return bool(llvm.get_process_triple().startswith(("x86", "i386", "i686")))


_MODULE = sys.modules[__name__]
_registered = False


def _register_helpers() -> None:
    global _registered
    if _registered:
        return
    # Making the context initialises LLVM and registers numba's C helpers; numba's runtime adds its own
    # symbols only when it compiles itself, which loading does not need.
    assert cpu_target.target_context is not None
    for name, address in _nrt_python.c_helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)
    _registered = True


def _missing(needed: tuple[str, ...]) -> list[str]:
    return [symbol for symbol in needed if not llvm.address_of_symbol(symbol)]


def _create_environment(module_name: str, constants: bytes) -> Any:
    module = sys.modules.get(module_name)
    made = environment.Environment({} if module is None else module.__dict__)
    if constants:
        made.consts[:] = pickle.loads(constants)
    made.env_name = ""
    return made


def _store_pointer(address: int, value: int) -> None:
    ctypes.c_void_p.from_address(address).value = value


def _undefined_symbols(elf: bytes) -> Iterator[str]:
    """Names that the ELF64 file uses and does not define (section index 0 in its symbol table)."""
    (sections_at,) = struct.unpack_from("<Q", elf, 0x28)
    entry_nbytes, count = struct.unpack_from("<HH", elf, 0x3A)
    for index in range(count):
        header = sections_at + index * entry_nbytes
        (kind,) = struct.unpack_from("<I", elf, header + 4)
        if kind != 2:  # SHT_SYMTAB
            continue
        offset, nbytes, link = struct.unpack_from("<QQI", elf, header + 0x18)
        (strings_at,) = struct.unpack_from("<Q", elf, sections_at + link * entry_nbytes + 0x18)
        for symbol in range(offset + 24, offset + nbytes, 24):  # the first one is empty
            name, _, _, section = struct.unpack_from("<IBBH", elf, symbol)
            if section == 0 and name:
                start = strings_at + name
                yield elf[start : elf.index(b"\0", start)].decode()
