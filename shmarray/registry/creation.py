"""How does a segment come to be?

::

    check the arguments -> quota -> a kept mapping, or a new file:
        O_TMPFILE -> shared lock -> reserve pages in slices -> map
    -> write the descriptor -> (named) link to the public name, which fails when the name is taken

Invariant: nothing half-made is visible. Killed before the link, a nameless file goes by itself; what has
a name is reserved, locked and described. Where the file system offers no `O_TMPFILE` the file is made
under a private name and renamed, and gc removes what a kill leaves.
"""

from __future__ import annotations

import errno
import operator
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, cast

import numpy as np

from shmarray.configuration import config
from shmarray.errors import (
    OutOfSharedMemoryError,
    SegmentAccessError,
    SegmentExistsError,
    SegmentNotFoundError,
    ShmArrayError,
)
from shmarray.registry import reclaim
from shmarray.registry.names import check_name, is_private, new_private_name, public_name
from shmarray.registry.reserve import HUGE_NBYTES, heeds_huge_advice, in_words, map_pages, populate, reserve
from shmarray.registry.store import hide, store
from shmarray.segment import libc
from shmarray.segment.descriptor import (
    DESCRIPTOR_NBYTES,
    EXPORTED,
    GENERATION,
    USER_LOCK,
    WORDS,
    Descriptor,
)
from shmarray.segment.dtypes import check_dtype
from shmarray.segment.failpoints import ARMED, reach
from shmarray.segment.libc import fcntl
from shmarray.segment.mapping import DIRECTORY, Mapping

if TYPE_CHECKING:
    import numpy.typing as npt

    from shmarray.segment import Segment

__all__ = ["check_shape", "create", "segment_class"]

_O_TMPFILE = getattr(os, "O_TMPFILE", 0)
_MAX_NBYTES = 2**63 - 2**20
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)

IfExists = Literal["raise", "open", "replace"]


def check_shape(shape: SupportsIndex | Sequence[SupportsIndex], itemsize: int) -> tuple[int, ...]:
    """The shape as a tuple of ints whose array can exist; `TypeError` or `ValueError` otherwise.

    Examples
    --------
    >>> check_shape(3, 8), check_shape((2, 0), 8)
    ((3,), (2, 0))
    >>> check_shape((2, -1), 8)
    Traceback (most recent call last):
    ValueError: a shape has no negative lengths; got (2, -1)
    """
    if type(shape) is int:
        lengths: tuple[int, ...] = (shape,)
    elif type(shape) is tuple and all(type(length) is int for length in shape):
        lengths = cast("tuple[int, ...]", shape)
    else:
        lengths = _indices(shape)
    if len(lengths) > 64:
        raise ValueError(f"an array has at most 64 dimensions; got {len(lengths)}")
    total = itemsize
    for length in lengths:
        if length < 0:
            raise ValueError(f"a shape has no negative lengths; got {lengths}")
        total *= length or 1  # NumPy, too, refuses what would overflow but for a zero
    if total > _MAX_NBYTES:
        raise ValueError(
            f"an array of shape {lengths} with {itemsize} bytes an element would have {total} bytes, "
            "more than an address can reach"
        )
    return lengths


def _indices(shape: Any) -> tuple[int, ...]:
    with suppress(TypeError):
        return (operator.index(shape),)
    try:
        if isinstance(shape, str | bytes | dict | set):  # Python could go through these
            raise TypeError
        return tuple(operator.index(length) for length in shape)
    except TypeError:
        raise TypeError(f"a shape must be an int or a sequence of ints; got {shape!r}") from None


def create(
    shape: SupportsIndex | Sequence[SupportsIndex],
    dtype: npt.DTypeLike = float,
    *,
    name: str | None = None,
    keep: bool = False,
    chunks: tuple[int, ...] | None = None,
    if_exists: IfExists = "raise",
) -> Segment:
    """Make a segment for an array of this shape and dtype.

    Parameters
    ----------
    shape : int or sequence of int
    dtype : dtype-like
        Of the closed list in :mod:`shmarray.segment.dtypes`.
    name : str, optional
        Makes it findable in `config.namespace`.
    keep : bool
        Let it live until `unlink`, also without holders. Named ones only.
    chunks : tuple of int, optional
        Shape of one piece of work, noted in the descriptor.
    if_exists : {"raise", "open", "replace"}
        What to do when the name is taken: `SegmentExistsError`; attach (shape and dtype must be the
        same); or take the name, while holders of the old segment keep that one.

    Returns
    -------
    Segment
        Its pages are reserved. `fresh` says whether they read as zero; otherwise the content is
        undefined.

    Raises
    ------
    TypeError, ValueError
        For a shape, dtype or name that cannot be.
    SegmentExistsError
        When the name is taken and `if_exists` is ``"raise"``.
    OutOfSharedMemoryError
        When the pages cannot be reserved, or `config.max_nbytes` would be passed.

    Examples
    --------
    >>> segment = create((2, 3), "f4")
    >>> segment.nbytes, segment.user_name
    (24, None)
    """
    kind = check_dtype(dtype)
    lengths = check_shape(shape, kind.itemsize)
    nbytes = kind.itemsize
    for length in lengths:
        nbytes *= length
    keep = bool(keep)
    if not isinstance(if_exists, str) or if_exists not in ("raise", "open", "replace"):
        raise ValueError(f"if_exists must be 'raise', 'open' or 'replace'; got {if_exists!r}")
    if name is not None:
        check_name(name)
    elif keep or if_exists != "raise":
        raise ValueError("keep and if_exists are for named arrays; give it a name")
    if chunks is not None and (len(chunks) != len(lengths) or not all(piece > 0 for piece in chunks)):
        raise ValueError(f"chunks must be {len(lengths)} positive lengths for shape {lengths}; got {chunks}")
    if not libc.LINUX:
        raise ShmArrayError("shmarray makes shared arrays on Linux only; elsewhere it can be imported, no more")
    namespace = config.namespace
    descriptor = Descriptor(lengths, kind, nbytes, chunks, name, keep, time.time_ns(), os.getpid())
    text = descriptor.pack()
    while True:
        if if_exists == "open" and name is not None:
            opened = _open_same(name, lengths, kind)
            if opened is not None:
                return opened
        reclaim.step(namespace)
        try:
            mapping = _obtain(nbytes, namespace, nameless=name is None)
        except OutOfSharedMemoryError as error:
            error.add_note(f"The memory is for an array of shape {lengths} and dtype {kind}.")
            raise
        try:
            _describe(mapping, descriptor, text)
            if name is None or _claim(mapping, name, replace=if_exists == "replace"):
                store.admit(mapping)
                return segment_class()._of(mapping, store)
        except BaseException:
            mapping.exported = True  # its state is uncertain
            store.discard(mapping)
            raise
        # The name is taken. What we made goes back to the warm ones, or away.
        store.admit(mapping)
        store.release(mapping)
        if if_exists == "raise":
            raise SegmentExistsError(
                f"there is an array called {name!r} in namespace {namespace!r} already; open it with "
                'shmarray.open, or create with if_exists="open" or "replace"',
                name=name,
            )


_kind: type[Segment] | None = None


def segment_class() -> type[Segment]:
    """The class of segments, loaded at the first one; see the text of shmarray.segment.segment."""
    global _kind
    if _kind is None:
        from shmarray.segment.segment import Segment

        _kind = Segment
        store.hook_fork()
    return _kind


def _open_same(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Segment | None:
    from shmarray.registry.attachment import attach

    try:
        found = attach(name)
    except SegmentNotFoundError:
        return None
    if found.descriptor.shape != shape or found.descriptor.dtype != dtype:
        raise ValueError(
            f"array {name!r} exists with shape {found.descriptor.shape} and dtype {found.descriptor.dtype}, "
            f'not {shape} and {dtype}; open it as it is, or create it with if_exists="replace"'
        )
    return found


def _obtain(nbytes: int, namespace: str, *, nameless: bool) -> Mapping:
    """A mapping of a file of our own with room for `nbytes`, kept or new, invisible to others."""
    capacity = -(-nbytes // DESCRIPTOR_NBYTES) * DESCRIPTOR_NBYTES
    mapping = store.take(capacity, namespace, nameless=nameless)
    if mapping is not None:
        mapping.fresh = False
        return mapping
    for attempt in range(2):
        try:
            _check_quota(capacity + DESCRIPTOR_NBYTES, namespace)
            return _reserve_new(capacity, namespace)
        except OutOfSharedMemoryError:
            if attempt:
                raise
            # What is kept for reuse and what a crash has left go first.
            store.trim()
            with suppress(OSError, ShmArrayError):  # when it is descriptors that are short, gc has none either
                reclaim.gc()
    raise AssertionError


def _check_quota(nbytes: int, namespace: str) -> None:
    limit = config.max_nbytes
    if limit is None:
        return
    from shmarray.registry.listing import used_nbytes

    used = used_nbytes(namespace)
    if used + nbytes > limit:
        raise OutOfSharedMemoryError(
            f"{in_words(nbytes)} of shared memory ({nbytes:,} bytes) were asked for, and namespace {namespace!r} has "
            f"{in_words(used)} of the {in_words(limit)} that config.max_nbytes allows; drop arrays or raise it "
            "(SHMARRAY_MAX_NBYTES)",
            nbytes=nbytes,
            free_nbytes=max(0, limit - used),
            limit="config.max_nbytes",
        )


def _reserve_new(capacity: int, namespace: str) -> Mapping:
    length = capacity + DESCRIPTOR_NBYTES
    while True:
        fd, file_name = _open_new(namespace)
        try:
            if ARMED:
                reach("create.lock")
            fcntl.flock(fd, fcntl.LOCK_SH)
            if ARMED:
                reach("create.stat")
            status = os.fstat(fd)
        except BaseException:
            _close_new(fd, file_name)
            raise
        if file_name is None or status.st_nlink:
            break
        if ARMED:
            reach("create.close")
        os.close(fd)  # a gc came between the making and the lock, and took it for a dead one
    address = 0
    try:
        populated = False
        if length >= HUGE_NBYTES and heeds_huge_advice():
            if ARMED:
                reach("create.truncate")
            os.ftruncate(fd, length)
            address = map_pages(fd, length, step="create")
            populated = populate(address, length)
        if not populated:
            reserve(fd, length)
        address = address or map_pages(fd, length, step="create")
    except BaseException:
        if address:
            libc.unmap(address, length)
        _close_new(fd, file_name)
        raise
    mapping = Mapping(
        address=address,
        length=length,
        capacity=capacity,
        fd=fd,
        key=(status.st_dev, status.st_ino),
        file_name=file_name,
        namespace=namespace,
        descriptor=_NOTHING,
        mode="r+",
    )
    mapping.owned = True
    mapping.linkable = file_name is None
    mapping.fresh = True
    return mapping


def _close_new(fd: int, file_name: str | None) -> None:
    if ARMED:
        reach("create.close")
    os.close(fd)
    if file_name is not None:
        with suppress(OSError):  # else gc finds it
            if ARMED:
                reach("create.unlink")
            os.unlink(f"{DIRECTORY}/{file_name}")


_NOTHING = Descriptor((), np.dtype("u1"), 1)


def _open_new(namespace: str) -> tuple[int, str | None]:
    """A new, empty file, without a name where that can be."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        if _O_TMPFILE and not os.environ.get("SHMARRAY_NO_TMPFILE"):
            try:
                if ARMED:
                    reach("create.open")
                return os.open(DIRECTORY, flags | _O_TMPFILE, 0o600), None
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
        file_name = new_private_name(namespace)
        if ARMED:
            reach("create.open-private")
        return os.open(f"{DIRECTORY}/{file_name}", flags | os.O_CREAT | os.O_EXCL, 0o600), file_name
    except OSError as error:
        if error.errno is None:
            raise  # a signal handler's, not the kernel's
        raise _not_opened(error) from error


def _not_opened(error: OSError) -> ShmArrayError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return OutOfSharedMemoryError(
            "no file descriptor is free for a new segment; raise the limit (ulimit -n) or close files",
            nbytes=0,
            free_nbytes=0,
            limit="file descriptors",
        )
    if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT):
        return OutOfSharedMemoryError(
            f"{DIRECTORY} has no room for one more file (inodes or memory used up); drop arrays, see `shmarray ls`",
            nbytes=0,
            free_nbytes=0,
            limit=f"{DIRECTORY} inodes",
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ShmArrayError(f"there is no {DIRECTORY}; mount a tmpfs there (docker run --shm-size=1g)")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SegmentAccessError(f"{DIRECTORY} is not writable: {error.strerror}", name=None)
    return ShmArrayError(f"{DIRECTORY} takes no new segment: {error.strerror}")


def _describe(mapping: Mapping, descriptor: Descriptor, text: bytes) -> None:
    """Write the descriptor page. Nobody else sees it: nameless, privately named, or oddly numbered."""
    if ARMED:
        reach("create.describe")
    mapping.descriptor = descriptor
    page, words = mapping.page, mapping.words
    page[: len(text)] = text
    if not mapping.fresh:
        page[EXPORTED:] = _ZEROS
    # Even again, and another: whoever has read the page before its last owner let go starts over.
    words[_GENERATION] = (words[_GENERATION] | 1) + 1
    if page[USER_LOCK:WORDS] != _mutex:
        _init_mutex(mapping)


_GENERATION = GENERATION >> 3
_ZEROS = bytes(DESCRIPTOR_NBYTES - EXPORTED)
_mutex = b""


def _init_mutex(mapping: Mapping) -> None:
    """Make the user lock anew; the page of a reused segment mostly has a free one already."""
    global _mutex
    libc.init_robust_mutex(mapping.page_address + USER_LOCK)
    _mutex = bytes(mapping.page[USER_LOCK:WORDS])


def _claim(mapping: Mapping, name: str, *, replace: bool) -> bool:
    """Make the segment visible under its name; False when the name is taken."""
    namespace = mapping.namespace
    wanted = public_name(namespace, name)
    # The lock's file exists before anything that takes the lock to remove: memory may be full by then.
    if store.names.namespace != namespace:
        with store:
            store.names.prepare(namespace)
    if replace:
        _replace(mapping, wanted)
        return True
    for attempt in range(2):
        if ARMED:
            reach("create.link")
        try:
            if mapping.file_name is None:
                libc.link_descriptor(mapping.fd, f"{DIRECTORY}/{wanted}")
            else:
                libc.rename_noreplace(mapping.path or "", f"{DIRECTORY}/{wanted}")
        except FileExistsError:
            # Perhaps another thread is about to give it up, or a crash has left it.
            if attempt or not (store.await_drops(wanted) or reclaim.reclaim_name(wanted, namespace)):
                return False
            continue
        except OSError as error:
            if mapping.file_name is None and error.errno in (errno.ENOENT, errno.EXDEV, errno.EPERM):
                raise ShmArrayError(
                    f"a new segment could not be given its name ({error.strerror}); shmarray needs /proc"
                ) from error
            if error.errno in (errno.ENOSPC, errno.ENOMEM):
                raise _not_opened(error) from error
            raise
        mapping.linkable = False
        mapping.file_name = wanted
        if ARMED:
            reach("create.done")
        return True
    raise AssertionError


def _replace(mapping: Mapping, wanted: str) -> None:
    path = f"{DIRECTORY}/{wanted}"
    if mapping.file_name is None:
        hide(mapping)
    assert mapping.file_name is not None
    assert is_private(mapping.file_name)
    with store, store.names.held(mapping.namespace):
        try:
            if ARMED:
                reach("create.look")
            old = os.stat(path, follow_symlinks=False)
            if not stat.S_ISREG(old.st_mode) or old.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            if ARMED:
                reach("create.rename")
            os.rename(mapping.path or "", path)
            store.forget_name(wanted, (old.st_dev, old.st_ino))
        except FileNotFoundError:
            if ARMED:
                reach("create.rename")
            os.rename(mapping.path or "", path)
        except OSError as error:
            if error.errno is None:
                raise
            raise SegmentAccessError(
                f"{path!r} cannot be replaced: {error.strerror}; it is another user's, or no segment. "
                "Remove it by hand if it should not be there, or choose another name",
                name=wanted,
            ) from error
        mapping.file_name = wanted
