"""Which index was out of bounds? numba's exception does not say: the code prints it, and here it becomes the message.

In a worker alone: C's standard output is one for the whole process, and a user's program may be printing to it.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["naming_wrong_index"]

_PRINTED = re.compile(r"^debug: IndexError: (index -?\d+ is out of bounds for axis \d+ with size \d+)\n?", re.MULTILINE)


def naming_wrong_index(entry: Callable[..., int]) -> Callable[..., int]:
    """The same code with an IndexError that has the index, the axis and its size, where the code prints these."""

    def run(*arguments: int) -> int:
        printed: list[str] = []
        try:
            with _c_output(printed):
                return entry(*arguments)
        except IndexError as error:
            named: list[str] = _PRINTED.findall("".join(printed))
            if not named:
                raise
            raise IndexError(named[-1]) from error.__cause__
        finally:
            sys.stdout.write(_PRINTED.sub("", "".join(printed)))  # what other C code has printed meanwhile

    return run


@contextmanager
def _c_output(printed: list[str]) -> Iterator[None]:
    """Meanwhile, put what C's `printf` writes into `printed`; Python's own output goes its way."""
    fd, stream = _scratch()
    if not stream:
        yield
        return
    stdout = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stdout")
    before, stdout.value = stdout.value, stream
    try:
        yield
    finally:
        stdout.value = before
        size = os.lseek(fd, 0, os.SEEK_CUR)
        if size:
            printed.append(os.pread(fd, size, 0).decode(errors="replace"))
            os.lseek(fd, 0, os.SEEK_SET)


@cache
def _scratch() -> tuple[int, int]:
    """Anonymous memory, and a C stream that writes to it; 0 where the C library has no `stdout` to exchange."""
    try:
        library = ctypes.CDLL(None)
        ctypes.c_void_p.in_dll(library, "stdout")
        library.fdopen.restype = ctypes.c_void_p
        fd = os.memfd_create("shmarray-printed", os.MFD_CLOEXEC)
        stream = library.fdopen(fd, b"w") or 0
        if stream:
            library.setvbuf(ctypes.c_void_p(stream), None, 2, ctypes.c_size_t(0))  # _IONBF
        return fd, stream
    except (OSError, ValueError, AttributeError):
        return -1, 0
