"""How does an array come about?

Each function makes or finds one segment and lays an array over it. What a user creates is shared at any size.

Invariant: content is never overwritten by chance: with `if_exists="open"` an array that was there already is
returned as it is, whatever the function would have filled it with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shmarray import registry
from shmarray.array.arguments import check_fill, check_flag, check_timeout
from shmarray.array.results import over_segment
from shmarray.array.shared import SharedArray
from shmarray.array.transfer import copy_parallel, fill_parallel
from shmarray.chunks import normalize_chunks
from shmarray.configuration import config
from shmarray.errors import SegmentExistsError, SegmentNotFoundError
from shmarray.segment import segment_of
from shmarray.segment.dtypes import check_dtype

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = [
    "array",
    "asarray",
    "create_filled",
    "empty",
    "from_raw",
    "full",
    "ones",
    "open",
    "unlink",
    "zeros",
]

IfExists = Literal["raise", "open", "replace"]
Mode = Literal["r+", "r", "c"]
Shape = int | Sequence[int]
Chunks = int | Sequence[int] | None


def empty(
    shape: Shape,
    dtype: Any = float,
    *,
    name: str | None = None,
    keep: bool = False,
    chunks: Chunks = None,
    if_exists: IfExists = "raise",
) -> SharedArray:
    """A new array in shared memory, its content undefined.

    Parameters
    ----------
    shape : int or sequence of int
    dtype : data-type
        Any dtype without Python objects in it.
    name : str, optional
        1-200 characters of `A-Z a-z 0-9 . _ -`, not starting with a dot. Other processes then get at the
        array with :func:`open`.
    keep : bool
        The array outlives its last holder, until :func:`unlink`. Needs a name.
    chunks : int or sequence of int, optional
        Shape of one piece of work; -1 stands for a whole dimension. By default runs of memory of some
        `config.chunk_nbytes` bytes. The bytes stay contiguous whatever it says.
    if_exists : {"raise", "open", "replace"}
        What to do when the name is taken: raise, return the array of that name (shape and dtype must match;
        its content is left alone), or take its name for a new array (holders of the old one keep it).

    Returns
    -------
    SharedArray
        C-contiguous, of the given shape.

    Raises
    ------
    SegmentExistsError
        The name is taken.
    OutOfSharedMemoryError
        There is no room: pages are reserved now, so that no later access can fail.
    ValueError, TypeError
        A bad name, shape, dtype or chunks.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.empty((2, 3), dtype="f4").shape
    (2, 3)
    """
    return create_filled(shape, dtype, name=name, keep=keep, chunks=chunks, if_exists=if_exists, fill=None)


def zeros(
    shape: Shape,
    dtype: Any = float,
    *,
    name: str | None = None,
    keep: bool = False,
    chunks: Chunks = None,
    if_exists: IfExists = "raise",
) -> SharedArray:
    """A new array of zeros in shared memory. Parameters and errors as :func:`empty`.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.zeros(3)
    SharedArray([0., 0., 0.])
    """

    def clear(target: np.ndarray[Any, Any]) -> None:
        # As bytes: the zero of every dtype (text, dates, structures) is all bits zero.
        fill_parallel(target.reshape(-1).view(np.uint8), 0)

    return create_filled(
        shape,
        dtype,
        name=name,
        keep=keep,
        chunks=chunks,
        if_exists=if_exists,
        fill=clear,
        fresh_is_filled=True,
    )


def ones(
    shape: Shape,
    dtype: Any = float,
    *,
    name: str | None = None,
    keep: bool = False,
    chunks: Chunks = None,
    if_exists: IfExists = "raise",
) -> SharedArray:
    """A new array of ones in shared memory. Parameters and errors as :func:`empty`.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.ones(3, dtype=int)
    SharedArray([1, 1, 1])
    """
    return create_filled(
        shape,
        dtype,
        name=name,
        keep=keep,
        chunks=chunks,
        if_exists=if_exists,
        fill=lambda target: fill_parallel(target, 1),
    )


def full(
    shape: Shape,
    fill_value: Any,
    dtype: Any = None,
    *,
    name: str | None = None,
    keep: bool = False,
    chunks: Chunks = None,
    if_exists: IfExists = "raise",
) -> SharedArray:
    """A new array filled with a value in shared memory. Other parameters and errors as :func:`empty`.

    Parameters
    ----------
    fill_value : scalar or array_like
        Broadcasts to the shape.
    dtype : data-type, optional
        By default the one of `fill_value`.

    Returns
    -------
    SharedArray
        C-contiguous.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.full((2, 2), [1, 2])
    SharedArray([[1, 2],
                 [1, 2]])
    """
    value = np.asarray(fill_value)
    if dtype is None:
        dtype = value.dtype
    check_fill(value, registry.check_shape(shape, 1))
    return create_filled(
        shape,
        dtype,
        name=name,
        keep=keep,
        chunks=chunks,
        if_exists=if_exists,
        fill=lambda target: fill_parallel(target, fill_value),
    )


def array(
    obj: Any,
    dtype: Any = None,
    *,
    name: str | None = None,
    keep: bool = False,
    chunks: Chunks = None,
    if_exists: IfExists = "raise",
) -> SharedArray:
    """A copy of an array, or of anything NumPy makes one of, in shared memory: one copy, with all cores.

    Parameters
    ----------
    obj : array_like
    dtype : data-type, optional
        By default the one of `obj`.
    name, keep, chunks, if_exists
        As :func:`empty`.

    Returns
    -------
    SharedArray
        C-contiguous.

    Examples
    --------
    >>> import shmarray as sa
    >>> sa.array([[1, 2], [3, 4]])
    SharedArray([[1, 2],
                 [3, 4]])
    """
    source = np.asarray(obj)
    if dtype is None:
        dtype = source.dtype
    elif not isinstance(obj, np.ndarray) or np.dtype(dtype).itemsize == 0 or np.dtype(dtype).kind in "mM":
        # Text without a length and dates without a unit take theirs from the data.
        source = np.asarray(obj, dtype=dtype)
        dtype = source.dtype
    return create_filled(
        source.shape,
        dtype,
        name=name,
        keep=keep,
        chunks=chunks,
        if_exists=if_exists,
        fill=lambda target: copy_parallel(target, source),
    )


def asarray(obj: Any, dtype: Any = None) -> SharedArray:
    """`obj` itself if it lies in shared memory already (no copy), otherwise :func:`array` of it.

    Plain ndarrays over a segment (such as `np.asarray(a)` gives) count as shared. What other processes cannot
    see, private results and mode "c", is copied.

    Parameters
    ----------
    obj : array_like
    dtype : data-type, optional
        A copy where `obj` has another one.

    Returns
    -------
    SharedArray

    Examples
    --------
    >>> import shmarray as sa
    >>> a = sa.zeros(3)
    >>> sa.asarray(a) is a
    True
    """
    shown = getattr(type(obj), "__shmarray__", None)  # a Value or an Array of shmarray.multiprocessing
    if shown is not None:
        obj = shown(obj)
    if isinstance(obj, np.ndarray) and (dtype is None or obj.dtype == np.dtype(dtype)):
        segment = segment_of(obj)
        if segment is not None and segment.mode != "c":
            return obj if isinstance(obj, SharedArray) else obj.view(SharedArray)
    return array(obj, dtype)


def open(
    name: str,
    mode: Mode = "r+",
    *,
    shape: Shape | None = None,
    dtype: Any = None,
    timeout: float | None = None,
) -> SharedArray:
    """The array of that name, which any process may have made: attached, not copied.

    Parameters
    ----------
    name : str
    mode : {"r+", "r", "c"}
        Read and write; read only (the pages are mapped so); or copy-on-write: what is written stays private.
    shape, dtype : optional
        What the caller relies on; anything else raises.
    timeout : float, optional
        Seconds to wait for the name to appear. None does not wait.

    Raises
    ------
    SegmentNotFoundError
        There is no such array.
    SegmentAccessError, CorruptSegmentError
        The file is another user's, or not one of ours.
    ValueError
        A bad name or mode, or shape or dtype are not as asserted.

    Examples
    --------
    >>> import shmarray as sa
    >>> a = sa.zeros(3, name="example-open")
    >>> sa.open("example-open", "r", shape=3, dtype=float)
    SharedArray([0., 0., 0.])
    """
    check_timeout(timeout)
    if not isinstance(mode, str) or mode not in ("r+", "r", "c"):
        hint = "; to make a new array use shmarray.empty or zeros" if str(mode) == "w+" else ""
        raise ValueError(f"mode must be 'r+', 'r' or 'c'; got {mode!r}{hint}")
    try:
        segment = registry.attach(name, mode=mode, timeout_s=timeout)
    except SegmentNotFoundError as error:
        if not timeout:
            raise
        raise SegmentNotFoundError(f"after {timeout:g} s of waiting still {error}", name=name) from None
    return _over(_asserted(segment, name, shape, dtype))


def from_raw(shm_name: str, shape: Shape, dtype: Any = float, mode: Mode = "r+") -> SharedArray:
    """An array over a shared-memory segment that another program made, with `multiprocessing.shared_memory`
    say.

    Parameters
    ----------
    shm_name : str
        The segment's name (`SharedMemory.name`, the file's name in /dev/shm).
    shape, dtype
        What its bytes mean, from the first on. They may be fewer than the segment holds.
    mode : {"r+", "r", "c"}
        As :func:`open`.

    Returns
    -------
    SharedArray
        It is never reclaimed nor unlinked by this package.

    Raises
    ------
    SegmentNotFoundError
        There is no such segment.
    ValueError
        The segment is smaller than shape and dtype say.

    Examples
    --------
    >>> import shmarray as sa
    >>> from multiprocessing.shared_memory import SharedMemory
    >>> foreign = SharedMemory(create=True, size=24)
    >>> foreign.buf[:] = bytes(24)
    >>> sa.from_raw(foreign.name, 3)
    SharedArray([0., 0., 0.])
    >>> foreign.close(); foreign.unlink()
    """
    if mode not in ("r+", "r", "c"):
        raise ValueError(f"mode must be 'r+', 'r' or 'c'; got {mode!r}")
    kind = check_dtype(dtype)
    dims = registry.check_shape(shape, kind.itemsize)
    nbytes = math.prod(dims) * kind.itemsize
    return _view(over_segment(registry.adopt(shm_name, nbytes, mode=mode), dims, kind, kind=SharedArray))


def unlink(name: str) -> None:
    """Remove an array's name. Whoever holds the array keeps it; its memory goes with the last holder.

    Parameters
    ----------
    name : str

    Raises
    ------
    SegmentNotFoundError
        There is no such array.

    Examples
    --------
    >>> import shmarray as sa
    >>> a = sa.zeros(3, name="example-unlink", keep=True)
    >>> sa.unlink("example-unlink")
    """
    registry.unlink(name)


# --- how ----------------------------------------------------------------------------------------------------


def create_filled(
    shape: Shape,
    dtype: Any,
    *,
    name: str | None,
    keep: bool,
    chunks: Chunks,
    if_exists: IfExists,
    fill: Callable[[np.ndarray[Any, Any]], None] | None,
    fresh_is_filled: bool = False,
) -> SharedArray:
    """A new array on which `fill` was called, or with `if_exists="open"` the one that is there already.

    If `fill` fails there is no array: its name goes too.
    """
    kind = np.dtype(dtype)
    check_flag("keep", keep)
    pieces = None
    if chunks is not None:
        dims = registry.check_shape(shape, kind.itemsize)
        pieces = normalize_chunks(chunks, dims, kind.itemsize, config.chunk_nbytes)
    made = True
    if isinstance(if_exists, str) and if_exists == "open" and name is not None:
        segment, made = _opened_or_created(shape, kind, name, keep, pieces)
    else:
        segment = registry.create(shape, kind, name=name, keep=keep, chunks=pieces, if_exists=if_exists)
    result = _over(segment)
    if made and fill is not None and not (fresh_is_filled and segment.fresh):
        try:
            fill(np.asarray(result))
        except BaseException:
            if name is not None:
                segment.unlink()
            raise
    return result


def _opened_or_created(
    shape: Shape, dtype: np.dtype[Any], name: str, keep: bool, chunks: tuple[int, ...] | None
) -> tuple[Segment, bool]:
    """The segment, and whether it is new: the registry does not say, and only new ones are to be filled."""
    while True:
        try:
            return _asserted(registry.attach(name), name, shape, dtype), False
        except SegmentNotFoundError:
            pass
        try:
            return registry.create(shape, dtype, name=name, keep=keep, chunks=chunks), True
        except SegmentExistsError:
            continue  # somebody was faster: open theirs


def _asserted(segment: Segment, name: str, shape: Shape | None, dtype: Any) -> Segment:
    there = segment.descriptor
    asked = None if shape is None else registry.check_shape(shape, 1)
    if asked is not None and asked != there.shape:
        raise ValueError(
            f"array {name!r} has shape {there.shape}, not {asked}; open it as it is, with"
            " shmarray.open(name), or make another with shmarray.zeros(name=..., if_exists='replace')"
        )
    if dtype is not None and np.dtype(dtype) != there.dtype:
        raise ValueError(
            f"array {name!r} has dtype {there.dtype}, not {np.dtype(dtype)}; open it as it"
            " is, with shmarray.open(name), or make another with shmarray.zeros(name=..., if_exists='replace')"
        )
    return segment


def _over(segment: Segment) -> SharedArray:
    there = segment.descriptor
    return _view(over_segment(segment, there.shape, there.dtype, kind=SharedArray))


def _view(result: np.ndarray[Any, Any]) -> SharedArray:
    assert isinstance(result, SharedArray)
    return result
