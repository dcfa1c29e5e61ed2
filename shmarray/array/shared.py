"""What is a SharedArray?

An ndarray subclass, as `np.memmap` is, whose `.base` chain ends in the segment that holds its bytes. Every
consumer of ndarrays takes it with no copy, and so long as any view lives, the segment stays mapped: no access
ever crashes, whatever was unlinked. It keeps no state of its own (no `__dict__`), so a view costs what a
plain view costs, and all it knows it reads from its segment.

Results of small operations are private memory of the same class. Their `shm` is None and they pickle by
value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from shmarray._absent import Absent
from shmarray.array import functions, handles
from shmarray.array.locks import ArrayLock, lock_of
from shmarray.array.methods import ArrayMethods
from shmarray.array.results import share
from shmarray.array.ufuncs import REDUCE_NBYTES, call_ufunc
from shmarray.chunks import normalize_chunks
from shmarray.configuration import config
from shmarray.errors import SegmentAccessError
from shmarray.registry import condition
from shmarray.segment import segment_of

if TYPE_CHECKING:
    from shmarray.segment import Descriptor, Segment

__all__ = ["SharedArray"]

_get_item, _set_item = ndarray.__getitem__, ndarray.__setitem__
_MISSING = type("Missing", (), {})()

#: What counts as one element beside arrays; anything else (lists, foreign arrays) takes the general way.
_SCALARS = frozenset(
    {
        float,
        int,
        complex,
        bool,
        type(_MISSING),
        np.float64,
        np.float32,
        np.int64,
        np.int32,
        np.bool_,
        np.complex128,
    }
)

#: Elements up to which an output is not worth the engine's attention, whatever the operands.
_SMALL = 2048

# The two places where a setting may stand, bound here: `config.inline_nbytes` costs 0.4 µs, which is a third
# of what a small ufunc may cost over NumPy's.
_set_values = config._values
_overrides = config._overrides.get


class SharedArray(ArrayMethods):
    """A NumPy array in shared memory, an `ndarray` in all that NumPy and others do with it.

    Made by :func:`shmarray.empty`, `zeros`, `ones`, `full`, `array`, `asarray`, `open`, `from_raw` and
    `load`, and by any NumPy operation on one of these. Views pickle as handles: the receiver sees the same
    memory.

    Examples
    --------
    >>> import shmarray as sa
    >>> a = sa.zeros(4)
    >>> a[1:] += 2
    >>> a
    SharedArray([0., 2., 2., 2.])
    >>> a.is_shared, a.name
    (True, None)
    """

    __slots__ = ()

    #: numba then types it as the plain array it is, in 0.3 µs a call instead of 0.7.
    __numba_array_subtype_dispatch__ = True

    def __new__(cls, *args: Any, **kwargs: Any) -> SharedArray:
        raise TypeError("SharedArray is not made by calling it; use shmarray.empty, zeros, ones, full, array or open")

    # What users of other packages look for.
    close = Absent("there is nothing to close; `del` the last view, and the memory goes with it")
    destroy = Absent("array.unlink() takes its name away; `del` the last view, and the memory goes with it")

    # --- what it knows of its segment -----------------------------------------------------------------------

    @property
    def shm(self) -> Segment | None:
        """The segment, a `multiprocessing.shared_memory.SharedMemory` that no resource tracker knows; None for private
        memory. Asking for its `.name`, the file's in /dev/shm, gives an unnamed one a name there.

        Examples
        --------
        >>> import shmarray as sa
        >>> a = sa.ones(2, "u1")
        >>> a.shm.buf[0], a.shm.buf[1]
        (1, 1)
        """
        return segment_of(self)

    @property
    def is_shared(self) -> bool:
        """Whether other processes can see what is written here: not so in private memory and mode "c".

        Examples
        --------
        >>> import shmarray as sa
        >>> a = sa.ones(2)
        >>> a.is_shared, (a + 1).is_shared  # a small result is private memory
        (True, False)
        """
        segment = segment_of(self)
        return segment is not None and segment.mode != "c"

    @property
    def name(self) -> str | None:
        """The name the user gave; views have their array's. None for unnamed and private arrays.

        Examples
        --------
        >>> import shmarray as sa
        >>> sa.zeros(9, name="example-name")[2:].name
        'example-name'
        """
        segment = segment_of(self)
        return None if segment is None else segment.user_name

    @property
    def keep(self) -> bool:
        """Whether the segment outlives its last holder, until it is unlinked.

        Examples
        --------
        >>> import shmarray as sa
        >>> a = sa.zeros(9, name="example-keep", keep=True)
        >>> a.keep
        True
        >>> a.unlink()
        """
        descriptor = self._descriptor()
        return descriptor is not None and descriptor.keep

    @property
    def chunks(self) -> tuple[int, ...]:
        """The shape of one piece of work, a tuple of int; the bytes stay contiguous. Views have pieces of their own.

        Examples
        --------
        >>> import shmarray as sa
        >>> sa.zeros((100, 50), chunks=20).chunks
        (20, 50)
        """
        descriptor = self._descriptor()
        if descriptor is not None and descriptor.chunks is not None and descriptor.shape == self.shape:
            return descriptor.chunks
        return normalize_chunks(None, self.shape, self.itemsize, config.chunk_nbytes)

    def _descriptor(self) -> Descriptor | None:
        segment = segment_of(self)
        return None if segment is None else segment.descriptor

    def lock(self, timeout: float | None = None) -> ArrayLock:
        """The array's lock, as a context manager: exclusive among all processes and threads that hold the
        array.

        One lock an array: its views have it in common. It is recursive, and the kernel frees it when its
        holder dies; then `recovered` is true for the next one, who may find an update half done. The lock of a
        private array (see :attr:`is_shared`) excludes the threads of this process and nobody else: no other process
        sees its memory.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; None waits for ever, 0 not at all.

        Raises
        ------
        LockTimeoutError
            On entering, if the lock was not to be had in time.
        SegmentAccessError
            The array was opened with mode "r" or "c", and its lock can only be taken through a mapping that is
            writable.

        Examples
        --------
        >>> import shmarray as sa
        >>> counter = sa.zeros(1, dtype=int)
        >>> with counter.lock(timeout=5):
        ...     counter += 1
        """
        return lock_of(self, timeout)

    @property
    def dirty(self) -> bool:
        """Whether some of its content is unknown: a worker died while it changed a chunk in place, or a crash-safe call
        was cut short (or is under way).

        The array itself remembers that, whoever opens it, until somebody says :meth:`clean`;
        `shmarray.registry.info(name).dirty_reason` tells more.

        Examples
        --------
        >>> import shmarray as sa
        >>> sa.zeros(3).dirty
        False
        """
        segment = segment_of(self)
        return segment is not None and condition.is_dirty(segment)

    def clean(self) -> None:
        """Accept the content as it is: the array is not :attr:`dirty` any more.

        If a crash-safe call was cut short by the end of its program, what that had committed is put in place first.

        Raises
        ------
        SegmentAccessError
            The mapping is not writable (modes "r" and "c").
        ShmArrayError
            A crash-safe call is under way.

        Examples
        --------
        >>> import shmarray as sa
        >>> a = sa.zeros(3)
        >>> a.clean()
        >>> a.dirty
        False
        """
        segment = segment_of(self)
        if segment is None:
            return
        if segment.mode != "r+":
            raise SegmentAccessError(
                f"the array is mapped with mode {segment.mode!r}, and can only be declared clean through a writable "
                "mapping; open it with mode='r+'",
                name=segment.user_name,
            )
        condition.clean(segment)

    def unlink(self) -> None:
        """Remove the array's name; whoever holds it keeps it, and the memory goes with the last holder.

        Raises
        ------
        ValueError
            The array is private memory: it has no name anywhere.
        SegmentNotFoundError
            It was unlinked before.

        Examples
        --------
        >>> import shmarray as sa
        >>> a = sa.ones(3, name="example-unlink-array")
        >>> a.unlink()
        >>> a.sum()
        np.float64(3.0)
        """
        segment = segment_of(self)
        if segment is None:
            raise ValueError("this array is private memory and has no name to remove; `del` its last view instead")
        segment.unlink()

    # --- NumPy's protocols ----------------------------------------------------------------------------------

    def __array_ufunc__(  # type: ignore[override]
        self, ufunc: np.ufunc, method: str, x: Any, y: Any = _MISSING, /, *rest: Any, **kwargs: Any
    ) -> Any:
        # Small calls end here; each line was measured. Positional parameters spare unpacking a tuple, and a product of
        # sizes bounds the result without computing its shape.
        if method == "__call__" and not rest:
            plain_x, plain_y, size = x, y, 1
            if type(x) is SharedArray:
                plain_x = x.view(ndarray)
                size = x.size
            elif type(x) is ndarray:
                size = x.size
            elif type(x) not in _SCALARS:
                return call_ufunc(SharedArray, ufunc, method, (x,) if y is _MISSING else (x, y), kwargs)
            if type(y) is SharedArray:
                plain_y = y.view(ndarray)
                size *= y.size
            elif type(y) is ndarray:
                size *= y.size
            elif type(y) not in _SCALARS:
                return call_ufunc(SharedArray, ufunc, method, (x, y), kwargs)
            if size * 16 < (config.inline_nbytes if _overrides() else _set_values["inline_nbytes"]):
                if not kwargs:
                    result = ufunc(plain_x) if plain_y is _MISSING else ufunc(plain_x, plain_y)
                    if type(result) is ndarray:
                        return result.view(SharedArray)
                    if type(result) is tuple:
                        return tuple([r.view(SharedArray) if type(r) is ndarray else r for r in result])
                    return result
                out = kwargs.get("out", ())
                if len(out) == 1 == len(kwargs) and type(out[0]) is SharedArray and out[0].size <= _SMALL:
                    into = plain_x if out[0] is x else out[0].view(ndarray)
                    if plain_y is _MISSING:
                        ufunc(plain_x, out=into)
                    else:
                        ufunc(plain_x, plain_y, out=into)
                    return out[0]
        elif (
            method == "reduce"
            and type(x) is SharedArray
            and x.nbytes < REDUCE_NBYTES
            and "out" not in kwargs
            and type(kwargs.get("where")) is not SharedArray
        ):
            result = ufunc.reduce(x.view(ndarray), **kwargs)
            return share(result).view(SharedArray) if type(result) is ndarray else result
        inputs = (x, *rest) if y is _MISSING else (x, y, *rest)
        return call_ufunc(SharedArray, ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return functions.call_function(SharedArray, func, args, kwargs)

    # --- items ----------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        # Whatever stands here, every index pays: the two comparisons are all that one that is no array costs.
        kind = type(key)
        if (kind is SharedArray or kind is ndarray) and key.dtype == np.bool_ and self.nbytes >= REDUCE_NBYTES:
            version = functions.implementation(_get_item)
            result = NotImplemented if version is None else version(self, key)
            if result is not NotImplemented:
                return result
        return _get_item(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        kind = type(key)
        if (kind is SharedArray or kind is ndarray) and key.dtype == np.bool_ and self.nbytes >= REDUCE_NBYTES:
            version = functions.implementation(_set_item)
            if version is not None and version(self, key, value) is not NotImplemented:
                return
        _set_item(self, key, value)

    # --- pickling -------------------------------------------------------------------------------------------

    def __reduce_ex__(self, protocol: Any) -> Any:
        exported = handles.export_view(self)
        if exported is not None:
            return _from_handle, exported
        return _from_value, (self.view(ndarray), self.flags.writeable)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)


def _from_handle(*exported: Any) -> SharedArray:
    """Unpickles a handle."""
    view = handles.attach_view(*exported, kind=SharedArray)
    assert isinstance(view, SharedArray)
    return view


def _from_value(value: ndarray[Any, Any], writeable: bool) -> SharedArray:
    """Unpickles private memory."""
    array = value.view(SharedArray)
    if not writeable:
        array.flags.writeable = False
    return array
