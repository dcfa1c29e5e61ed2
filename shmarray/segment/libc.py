"""Which calls of the C library does a segment need that Python does not offer as we need them?

`mmap.mmap` keeps a duplicate of the descriptor (one more a segment) and refuses to close over live
views; `os.link` cannot follow `/proc/self/fd/N`, which is how a nameless file gets its name;
`os.rename` silently replaces. So these few go through ctypes.

Invariant: every call here raises `OSError` on failure, and importing this module works on any system.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

try:
    import fcntl
except ImportError:  # not a POSIX system: creation says so before anything is locked
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "LINUX",
    "PAGE",
    "advise_huge",
    "cover",
    "fcntl",
    "fence",
    "init_robust_mutex",
    "link_descriptor",
    "map_descriptor",
    "populate",
    "rename_noreplace",
    "unmap",
]

LINUX = sys.platform.startswith("linux")

#: Bytes of a page. Segments are laid out in units of it.
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_PROT_READ, _PROT_WRITE = 1, 2
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS = 1, 2, 0x10, 0x20
_MADV_HUGEPAGE, _MADV_POPULATE_WRITE = 14, 23
_AT_FDCWD = -100
_AT_SYMLINK_FOLLOW = 0x400
_RENAME_NOREPLACE = 1
_MEMBARRIER_GLOBAL_EXPEDITED = 2
_MEMBARRIER_NUMBER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
# Elsewhere -1: no such system call, and only the barriers inside the other calls around it.
_membarrier_number = _MEMBARRIER_NUMBER.get(os.uname().machine, -1) if LINUX else -1
_FAILED = ctypes.c_void_p(-1).value

_lib: Any = ctypes.CDLL(None, use_errno=True) if LINUX else None


def _declare(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_lib, name, None)  # renameat2 is missing from old C libraries
    if function is not None:
        function.restype = result
        function.argtypes = arguments
    return function


_int, _size, _pointer, _text = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
_mmap = _declare("mmap", _pointer, _pointer, _size, _int, _int, _int, ctypes.c_int64)
_munmap = _declare("munmap", _int, _pointer, _size)
_madvise = _declare("madvise", _int, _pointer, _size, _int)
_linkat = _declare("linkat", _int, _int, _text, _int, _text, _int)
_renameat2 = _declare("renameat2", _int, _int, _text, _int, _text, ctypes.c_uint)
_syscall = _declare("syscall", ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long)
_mutexattr_init = _declare("pthread_mutexattr_init", _int, _pointer)
_mutexattr_setpshared = _declare("pthread_mutexattr_setpshared", _int, _pointer, _int)
_mutexattr_setrobust = _declare("pthread_mutexattr_setrobust", _int, _pointer, _int)
_mutexattr_settype = _declare("pthread_mutexattr_settype", _int, _pointer, _int)
_mutex_init = _declare("pthread_mutex_init", _int, _pointer, _pointer)


def _failure(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def map_descriptor(descriptor: int, nbytes: int, *, writable: bool, private: bool = False) -> int:
    """Map the first `nbytes` of an open file; returns the address.

    The mapping keeps the open file (and a lock on it) alive without the descriptor.

    Parameters
    ----------
    descriptor : int
        Open for reading and, for a writable shared mapping, writing.
    nbytes : int
        Bytes, at least 1.
    writable : bool
        Whether stores are allowed.
    private : bool
        Copy-on-write: stores stay in this process.

    Examples
    --------
    >>> import os
    >>> with open("/proc/self/exe", "rb") as file:
    ...     address = map_descriptor(file.fileno(), 4096, writable=False)
    >>> unmap(address, 4096)
    """
    protection = _PROT_READ | _PROT_WRITE if writable else _PROT_READ
    address = _mmap(None, nbytes, protection, _MAP_PRIVATE if private else _MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        raise _failure(f"mmap of {nbytes} bytes")
    return int(address)


def unmap(address: int, nbytes: int) -> None:
    """Undo :func:`map_descriptor`."""
    if _munmap(address, nbytes) != 0:
        raise _failure("munmap")


def cover(address: int, nbytes: int) -> None:
    """Put private pages of zeros in the place of a mapping: the file is let go of, and the address stays valid."""
    flags = _MAP_PRIVATE | _MAP_FIXED | _MAP_ANONYMOUS
    if _mmap(address, nbytes, _PROT_READ | _PROT_WRITE, flags, -1, 0) == _FAILED:
        raise _failure(f"mmap of {nbytes} private bytes")


def advise_huge(address: int, nbytes: int) -> None:
    """Ask for huge pages; a kernel that has none is none the worse."""
    _madvise(address, nbytes, _MADV_HUGEPAGE)


def populate(address: int, nbytes: int) -> None:
    """Have the kernel allocate and map writable pages now; `OSError`, never a signal, when it cannot."""
    if _madvise(address, nbytes, _MADV_POPULATE_WRITE) != 0:
        raise _failure(f"populating {nbytes} bytes")


def link_descriptor(descriptor: int, path: str) -> None:
    """Give a nameless (`O_TMPFILE`) file the name `path`; `FileExistsError` when it is taken."""
    source = b"/proc/self/fd/%d" % descriptor
    if _linkat(_AT_FDCWD, source, _AT_FDCWD, path.encode(), _AT_SYMLINK_FOLLOW) != 0:
        raise _failure(f"linkat to {path}")


def rename_noreplace(old: str, new: str) -> None:
    """Move `old` to `new` in one step; `FileExistsError` when `new` is taken."""
    if _renameat2 is not None:
        if _renameat2(_AT_FDCWD, old.encode(), _AT_FDCWD, new.encode(), _RENAME_NOREPLACE) == 0:
            return
        if ctypes.get_errno() not in (22, 38):  # EINVAL, ENOSYS: not offered here
            raise _failure(f"rename of {old} to {new}")
    os.link(old, new)  # a kill here leaves a second link under a private name, which gc removes
    os.unlink(old)


def fence() -> None:
    """Order all earlier stores of this thread before all its later loads, as other processes see them."""
    _syscall(_membarrier_number, _MEMBARRIER_GLOBAL_EXPEDITED, 0)


_mutex_attributes: Any = None


def init_robust_mutex(address: int) -> None:
    """Make a recursive, robust mutex between processes of the 64 bytes at `address`.

    It must not be in use. "Robust": when its holder dies, the kernel hands it on.
    """
    global _mutex_attributes
    if _mutex_attributes is None:
        attributes = ctypes.create_string_buffer(64)
        _mutexattr_init(attributes)
        _mutexattr_setpshared(attributes, 1)  # PTHREAD_PROCESS_SHARED
        _mutexattr_setrobust(attributes, 1)  # PTHREAD_MUTEX_ROBUST
        _mutexattr_settype(attributes, 1)  # PTHREAD_MUTEX_RECURSIVE
        _mutex_attributes = attributes
    number = _mutex_init(address, _mutex_attributes)
    if number:
        raise OSError(number, f"pthread_mutex_init: {os.strerror(number)}")
