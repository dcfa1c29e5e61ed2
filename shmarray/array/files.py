"""How does an array come out of a .npy file, and into one?

By several threads, slice by slice, between the file and the shared pages directly: `preadv` and `pwritev`
release the GIL, and neither a second copy nor a mapping of the file is made (a mapped file that is cut short
kills its reader).

Invariant: the file under the given name is whole at every moment. :func:`save` writes beside it, without a
name where the file system offers that, and renames at the end: killed earlier, the old file stands.
"""

from __future__ import annotations

import ast
import contextlib
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from shmarray.array.arguments import check_flag, check_progress
from shmarray.array.creation import Chunks, IfExists, create_filled
from shmarray.array.shared import SharedArray
from shmarray.array.transfer import SLICE_NBYTES, run_sliced

__all__ = ["load", "save"]

#: What `progress=` takes: True draws a bar, a callable is told (bytes done, bytes in all).
Progress = bool | Callable[[int, int], Any]


def load(
    file: str | os.PathLike[str],
    *,
    name: str | None = None,
    keep: bool = False,
    chunks: Chunks = None,
    if_exists: IfExists = "raise",
    progress: Progress = False,
) -> SharedArray:
    """Read a .npy file straight into shared memory, with all cores.

    Parameters
    ----------
    file : path
    name, keep, chunks, if_exists
        As :func:`shmarray.empty`; with `if_exists="open"` an array that is there already is not read again.
    progress : bool or callable
        True draws a progress bar; a callable is called as `progress(bytes_done, bytes_in_all)`.

    Returns
    -------
    SharedArray
        C-contiguous, also where the file is in Fortran order.

    Raises
    ------
    TypeError
        `file` is no path; an open file is none.
    ValueError
        Not a .npy file, cut short, or it holds Python objects. The message names the file.
    OSError
        It cannot be read.

    Examples
    --------
    >>> import shmarray as sa, numpy as np, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "x.npy")
    >>> np.save(path, np.arange(3))
    >>> sa.load(path)
    SharedArray([0, 1, 2])
    """
    path = _path_of(file, "load(file)")
    check_progress(progress)
    with open(path, "rb", buffering=0) as stream:
        shape, fortran, dtype = _read_header(stream, path)
        start = stream.tell()
        nbytes = math.prod(shape) * dtype.itemsize
        size = os.fstat(stream.fileno()).st_size
        if size - start < nbytes:
            raise ValueError(f"{path}: cut short; shape {shape} of {dtype} takes {nbytes} bytes, it has {size - start}")

        def read(target: np.ndarray[Any, Any]) -> None:
            with _reporting(progress, nbytes, f"load {os.path.basename(path)}") as done:
                if nbytes == 0:
                    return
                if fortran and len(shape) > 1:
                    _read_transposed(stream.fileno(), start, target, path, done)
                else:
                    _read_bytes(stream.fileno(), start, _as_bytes(target), path, done)

        return create_filled(shape, dtype, name=name, keep=keep, chunks=chunks, if_exists=if_exists, fill=read)


def save(file: str | os.PathLike[str], array: Any, *, progress: Progress = False, fsync: bool = False) -> None:
    """Write an array as a .npy file, with all cores; whole or not at all.

    Parameters
    ----------
    file : path
        `.npy` is appended where it is missing, as `numpy.save` does.
    array : array_like
        Fortran-contiguous arrays are written in their order, as `numpy.save` does.
    progress : bool or callable
        As :func:`load`.
    fsync : bool
        Wait until the disk has it, so that it survives a power failure too.

    Raises
    ------
    TypeError
        The array holds Python objects, or `file` is no path.
    OSError
        It cannot be written. What was under the name before is untouched.

    Examples
    --------
    >>> import shmarray as sa, numpy as np, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "x.npy")
    >>> sa.save(path, sa.ones(2))
    >>> np.load(path)
    array([1., 1.])
    """
    path = _path_of(file, "save(file, array)")
    check_progress(progress)
    check_flag("fsync", fsync)
    if not path.endswith(".npy"):
        path += ".npy"
    source = np.asarray(array)
    if source.dtype.hasobject:
        raise TypeError(f"{path}: dtype {source.dtype} holds Python objects, which a .npy file would have to pickle")
    with (
        _replacing(os.path.realpath(path), path, fsync=fsync) as stream,
        _reporting(progress, source.nbytes, f"save {os.path.basename(path)}") as done,
    ):
        fortran = source.flags.f_contiguous and not source.flags.c_contiguous
        _write_header(stream, source)
        start = stream.tell()
        if source.nbytes == 0:
            return
        ordered = source.T if fortran else source
        if ordered.flags.c_contiguous:
            _write_bytes(stream.fileno(), start, _as_bytes(ordered), path, done)
        else:
            _write_gathered(stream.fileno(), start, ordered, path, done)


def _path_of(file: Any, call: str) -> str:
    """The path as a str; `call` is shown where it is none."""
    if isinstance(file, str | bytes | os.PathLike):
        return os.fsdecode(file)
    if hasattr(file, "read") or hasattr(file, "write"):
        remedy = "give the path that it was opened with"
    else:
        remedy = "the file comes first" + (", then the array" if "," in call else "")
    raise TypeError(f"shmarray.{call} takes a path; got {type(file).__name__}: {remedy}")


# --- header -------------------------------------------------------------------------------------------------


def _read_header(stream: IO[bytes], path: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = npy.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = npy.read_array_header_2_0(stream)
        elif version == (3, 0):
            shape, fortran, dtype = _read_header_3(stream)
        else:
            raise ValueError(f"version {version} of the format is not known")
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a .npy file that can be read: {error}{_instead(stream)}") from error
    if dtype.hasobject:
        raise ValueError(f"{path}: dtype {dtype} holds Python objects, which cannot be shared; load it with numpy.load")
    return shape, fortran, dtype


def _instead(stream: IO[bytes]) -> str:
    """What to do with a file of another kind."""
    stream.seek(0)
    if stream.read(4) == b"PK\x03\x04":
        return "; it seems to be an .npz archive of several: numpy.load it, and give shmarray.array one of them"
    return "; read it with what wrote it, and give shmarray.array the result"


def _read_header_3(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """As version 2, with UTF-8 in place of Latin-1. NumPy has no public reader for it."""
    length = int.from_bytes(stream.read(4), "little")
    if length > 10_000:  # NumPy's limit: deep nesting in the text can overflow the parser's stack
        raise ValueError(f"its header of {length} bytes is too large to be parsed safely")
    text = stream.read(length)
    if len(text) != length:
        raise ValueError("its header is cut short")
    fields = ast.literal_eval(text.decode("utf-8"))
    shape = tuple(int(extent) for extent in fields["shape"])
    return shape, bool(fields["fortran_order"]), npy.descr_to_dtype(fields["descr"])


def _write_header(stream: IO[bytes], source: np.ndarray[Any, Any]) -> None:
    fields = npy.header_data_from_array_1_0(source)
    # Each raises before it writes: version 1 for headers past 64 KiB, both for names beyond Latin-1.
    for write in (npy.write_array_header_1_0, npy.write_array_header_2_0):
        try:
            write(stream, fields)
            return
        except ValueError:
            continue
    # Version 3, laid out as NumPy does: keys sorted, and room for the growing dimension's digits.
    text = "{" + "".join(f"'{key}': {fields[key]!r}, " for key in sorted(fields)) + "}"
    if source.ndim:
        text += " " * (21 - len(str(source.shape[-1 if fields["fortran_order"] else 0])))
    encoded = text.encode("utf-8")
    padding = 64 - (len(encoded) + 13) % 64
    length = (len(encoded) + padding + 1).to_bytes(4, "little")
    stream.write(npy.magic(3, 0) + length + encoded + b" " * padding + b"\n")


# --- bytes --------------------------------------------------------------------------------------------------


def _as_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return array.reshape(-1).view(np.uint8)


def _read_bytes(fd: int, start: int, target: np.ndarray[Any, Any], path: str, done: Callable[[int], None]) -> None:
    def one(index: int) -> int:
        piece = target[index * SLICE_NBYTES : (index + 1) * SLICE_NBYTES]
        _read_fully(fd, start + index * SLICE_NBYTES, piece, path)
        return piece.nbytes

    run_sliced(one, -(-target.nbytes // SLICE_NBYTES), done=done)


def _read_fully(fd: int, offset: int, target: np.ndarray[Any, Any], path: str) -> None:
    rest = memoryview(target)  # type: ignore[arg-type]
    while rest.nbytes:
        with _naming(path):
            count = os.preadv(fd, [rest], offset)
        if count == 0:
            raise ValueError(f"{path}: cut short while it was read, at byte {offset}")
        rest = rest[count:]
        offset += count


def _write_bytes(fd: int, start: int, source: np.ndarray[Any, Any], path: str, done: Callable[[int], None]) -> None:
    def one(index: int) -> int:
        piece = source[index * SLICE_NBYTES : (index + 1) * SLICE_NBYTES]
        _write_fully(fd, start + index * SLICE_NBYTES, piece, path)
        return piece.nbytes

    run_sliced(one, -(-source.nbytes // SLICE_NBYTES), done=done)


def _write_fully(fd: int, offset: int, source: np.ndarray[Any, Any], path: str) -> None:
    rest = memoryview(source)  # type: ignore[arg-type]
    while rest.nbytes:
        with _naming(path):
            count = os.pwritev(fd, [rest], offset)
        rest = rest[count:]
        offset += count


def _slabs(array: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], int]:
    """The array cut along its first dimension into slabs of some slice's bytes; the steps a slab takes."""
    row = array.nbytes // array.shape[0]
    return array, max(1, SLICE_NBYTES // row)


def _read_transposed(fd: int, start: int, target: np.ndarray[Any, Any], path: str, done: Callable[[int], None]) -> None:
    """From Fortran order into a C-contiguous array: slabs of the last dimension lie together in the file."""
    stored, step = _slabs(target.T)
    row = stored.nbytes // stored.shape[0]

    def one(index: int) -> int:
        slab = stored[index * step : (index + 1) * step]
        buffer = np.empty(slab.shape, slab.dtype)
        _read_fully(fd, start + index * step * row, _as_bytes(buffer), path)
        np.copyto(slab, buffer)
        return slab.nbytes

    run_sliced(one, -(-stored.shape[0] // step), done=done)


def _write_gathered(fd: int, start: int, source: np.ndarray[Any, Any], path: str, done: Callable[[int], None]) -> None:
    """An array that is not contiguous: each slab is gathered, then written."""
    stored, step = _slabs(source)
    row = stored.nbytes // stored.shape[0]

    def one(index: int) -> int:
        slab = stored[index * step : (index + 1) * step]
        _write_fully(fd, start + index * step * row, _as_bytes(np.ascontiguousarray(slab)), path)
        return slab.nbytes

    run_sliced(one, -(-stored.shape[0] // step), done=done)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """System calls on a descriptor know no name; their errors shall."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from None


# --- replacing a file whole ---------------------------------------------------------------------------------


@contextmanager
def _replacing(target: str, shown: str, *, fsync: bool) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `target` when the block ends well, and is gone when it does not."""
    folder = os.path.dirname(target) or "."
    beside = os.path.join(folder, f".{os.path.basename(target)[:200]}.{os.getpid()}-{os.urandom(4).hex()}.part")
    with _naming(shown):
        mode = _mode_of(target)
        fd, linked = _create_nameless(folder, beside, mode)
    try:
        with os.fdopen(fd, "wb", buffering=0) as stream:
            yield stream
            with _naming(shown):
                if fsync:
                    os.fsync(fd)
                if not linked:
                    # /proc/self/fd/N is how a file without a name gets one; a plain os.link of it gives
                    # EXDEV.
                    self_fd = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    try:
                        os.link(str(fd), beside, src_dir_fd=self_fd, follow_symlinks=True)
                    finally:
                        os.close(self_fd)
                    linked = True
                os.replace(beside, target)
                linked = False
                if fsync:
                    _fsync_folder(folder)
    finally:
        if linked:
            with contextlib.suppress(OSError):
                os.unlink(beside)


def _create_nameless(folder: str, beside: str, mode: int | None) -> tuple[int, bool]:
    """A new file; whether it has the name `beside` already, because this file system has none without."""
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666 if mode is None else mode)
        linked = False
    except OSError:
        fd = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666 if mode is None else mode)
        linked = True
    if mode is not None:
        with contextlib.suppress(OSError):
            os.fchmod(fd, mode)
    return fd, linked


def _mode_of(path: str) -> int | None:
    """The permissions of the file to be replaced; None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "is a directory", path)
    return stat.S_IMODE(status.st_mode)


def _fsync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- progress -----------------------------------------------------------------------------------------------


@contextmanager
def _reporting(progress: Progress, nbytes: int, label: str) -> Iterator[Callable[[int], None]]:
    if progress is False or progress is None:
        yield lambda _: None
        return
    if callable(progress):
        total = 0

        def tell(count: int) -> None:
            nonlocal total
            total += count
            progress(total, nbytes)

        yield tell
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(label), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns) as bar:
        task = bar.add_task(label, total=nbytes)
        yield lambda count: bar.advance(task, count)
