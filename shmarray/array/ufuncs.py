"""What does a ufunc do with SharedArrays?

NumPy's own loops on the same memory, so NumPy's bits at any size. Inputs become plain views (a view costs 0.1
µs; NumPy offers no way to run a ufunc on a subclass that overrides it). From `config.parallel_nbytes` on, the
engine runs those loops chunk by chunk on all cores; from `config.inline_nbytes` on, results are computed
straight into shared pages. What comes here is past the small case, which `SharedArray.__array_ufunc__`
settles by itself.

Invariant: whatever this module does not foresee goes to NumPy unchanged, on the same memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shmarray import engine
from shmarray.array.layout import axes_of_call
from shmarray.array.results import allocate, is_shareable, share, wants_sharing
from shmarray.configuration import config
from shmarray.segment import segment_of

__all__ = ["call_ufunc"]

Array = np.ndarray[Any, Any]

#: Reductions at and above this size are offered to the engine whatever `config.parallel_nbytes` says: the
#: grid of partial results must not depend on the configuration, or the bits of a sum would.
REDUCE_NBYTES = 64 * 1024


def call_ufunc(kind: type[Array], ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`getattr(ufunc, method)(*inputs, **kwargs)` for operands of class `kind`, which comes out too."""
    args = [x.view(np.ndarray) if isinstance(x, kind) else x for x in inputs]
    out: tuple[Any, ...] | None = kwargs.get("out")
    if out is not None:
        kwargs["out"] = tuple(x.view(np.ndarray) if isinstance(x, kind) else x for x in out)
    where = kwargs.get("where")
    if isinstance(where, kind):
        kwargs["where"] = where.view(np.ndarray)
    run = _METHODS.get(method, _through)
    result = run(ufunc, method, args, kwargs)
    if out is not None:
        return _with_identity(kind, result, kwargs["out"], out)
    return _wrapped(kind, result)


def _with_identity(kind: type[Array], result: Any, plain_out: tuple[Any, ...], out: tuple[Any, ...]) -> Any:
    """The very objects that the caller gave as `out`, so that `a += b` stays the same array."""
    if not isinstance(result, tuple):
        return out[0] if result is plain_out[0] else _wrapped(kind, result)
    return tuple(
        given if given is not None and part is plain else _wrapped(kind, part)
        for part, plain, given in zip(result, plain_out, out, strict=True)
    )


def _wrapped(kind: type[Array], result: Any) -> Any:
    if type(result) is np.ndarray:
        return share(result).view(kind)
    if type(result) is tuple:
        return tuple(_wrapped(kind, part) for part in result)
    return result  # scalars, None (`at`), and what foreign classes made of it


def _through(ufunc: np.ufunc, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return getattr(ufunc, method)(*args, **kwargs)


# --- __call__ -----------------------------------------------------------------------------------------------


def _call(ufunc: np.ufunc, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if ufunc.signature is not None:
        return _call_generalized(ufunc, args, kwargs)
    if not _foreseeable(args, kwargs):
        return ufunc(*args, **kwargs)
    out = kwargs.get("out")
    if out is not None:
        if _engine_takes(ufunc, args, out, kwargs):
            engine.apply_ufunc(ufunc, args, out, where=kwargs.get("where", True))
            return out[0] if ufunc.nout == 1 else out
        return ufunc(*args, **kwargs)
    if "where" in kwargs:  # most of the result is not written: NumPy warns, and there is nothing to win
        return ufunc(*args, **kwargs)
    out = _allocated_outputs(ufunc, args, kwargs)
    if out is None:
        return ufunc(*args, **kwargs)
    if _engine_takes(ufunc, args, out, kwargs):
        engine.apply_ufunc(ufunc, args, out)
    else:
        ufunc(*args, out=out, **kwargs)
    return out[0] if ufunc.nout == 1 else out


def _call_generalized(ufunc: np.ufunc, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """matmul and its like: two matrices go into shared pages at once, the rest through NumPy."""
    if ufunc is np.matmul and not kwargs and all(type(x) is np.ndarray and x.ndim == 2 for x in args):
        a, b = args
        if a.shape[1] == b.shape[0]:
            dtype = np.result_type(a, b)
            shape = (a.shape[0], b.shape[1])
            if wants_sharing(shape[0] * shape[1] * dtype.itemsize, dtype):
                out = allocate(shape, dtype)
                if out is not None:
                    return np.matmul(a, b, out=out)
    return ufunc(*args, **kwargs)


def _foreseeable(args: list[Any], kwargs: dict[str, Any]) -> bool:
    """Whether all operands are plain, so that the shapes and dtypes of the results can be told ahead.

    Sequences become arrays on the way, once.
    """
    for index, x in enumerate(args):
        if type(x) is np.ndarray or type(x) in _SCALARS or isinstance(x, np.generic):
            continue
        if isinstance(x, (list, tuple)):
            args[index] = np.asarray(x)
        else:
            return False
    return all(type(x) is np.ndarray for x in kwargs.get("out", ())) and not kwargs.keys() - _FORESEEN


_SCALARS = (int, float, complex, bool)
_FORESEEN = {"out", "where", "dtype", "casting"}


def _result_dtypes(ufunc: np.ufunc, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[np.dtype[Any], ...] | None:
    """The dtypes of the operands of the loop that NumPy would choose; None where it would refuse."""
    if "casting" in kwargs and any(type(x) in (int, float, complex) for x in args):
        return None  # NumPy's `resolve_dtypes` follows a null pointer here, for "equiv"
    # Python's numbers are weak (NEP 50): `resolve_dtypes` takes their types for that. bool is not weak.
    given = [
        type(x) if type(x) in (int, float, complex) else np.dtype(bool) if type(x) is bool else x.dtype for x in args
    ]
    extra: dict[str, Any] = {}
    if kwargs.get("dtype") is not None:
        extra["signature"] = (*(None,) * ufunc.nin, *(np.dtype(kwargs["dtype"]),) * ufunc.nout)
    if "casting" in kwargs:
        extra["casting"] = kwargs["casting"]
    try:
        dtypes: tuple[np.dtype[Any], ...] = ufunc.resolve_dtypes((*given, *(None,) * ufunc.nout), **extra)
    except TypeError:
        return None
    return dtypes


def _allocated_outputs(ufunc: np.ufunc, args: list[Any], kwargs: dict[str, Any]) -> tuple[Array, ...] | None:
    """Shared memory for the results; None where they are small, cannot be shared or NumPy will refuse."""
    arrays = [x for x in args if type(x) is np.ndarray]
    shape = arrays[0].shape
    if any(x.shape != shape for x in arrays):
        try:
            shape = np.broadcast_shapes(*(x.shape for x in arrays))
        except ValueError:
            return None
    size = math.prod(shape)
    if not shape or size * 32 < config.inline_nbytes:  # no result dtype but text is wider than 32 bytes
        return None  # (and without dimensions NumPy gives a scalar)
    dtypes = _result_dtypes(ufunc, args, kwargs)
    if dtypes is None:
        return None
    results = dtypes[ufunc.nin :]
    if not all(wants_sharing(size * dtype.itemsize, dtype) for dtype in results):
        return None
    axes = None
    if len(shape) > 1:
        found = [x.dtype == dtype for x, dtype in zip(args, dtypes, strict=False) if type(x) is np.ndarray]
        axes = axes_of_call([x for x in arrays if x.ndim], shape, as_they_are=ufunc.nout == 1 and all(found))
    out = []
    for dtype in results:
        array = allocate(shape, dtype, axes=axes)
        if array is None:
            return None
        out.append(array)
    return tuple(out)


def _engine_takes(ufunc: np.ufunc, args: list[Any], out: tuple[Array, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the work is large enough for all cores and cut into chunks means the same as whole."""
    if sum(x.nbytes for x in out) < config.parallel_nbytes or "casting" in kwargs or "dtype" in kwargs:
        return False
    shape = out[0].shape
    for x in out:
        segment = segment_of(x)
        # Workers see neither private memory nor what a copy-on-write mapping has been given.
        if segment is None or segment.mode != "r+" or not x.flags.writeable or x.shape != shape:
            return False
    arrays = [x for x in args if type(x) is np.ndarray]
    where = kwargs.get("where", True)
    if where is not True:
        if type(where) is not np.ndarray or where.dtype != bool:
            return False
        arrays.append(where)
    for x in arrays:
        segment = segment_of(x)
        if (segment is not None and segment.mode == "c") or not is_shareable(x.dtype):
            return False
    dtypes = _result_dtypes(ufunc, args, kwargs)
    if dtypes is None or any(x.dtype != dtype for x, dtype in zip(out, dtypes[ufunc.nin :], strict=True)):
        return False
    try:
        return bool(np.broadcast_shapes(shape, *(x.shape for x in arrays)) == shape)
    except ValueError:
        return False


# --- the other methods --------------------------------------------------------------------------------------


def _reduce(ufunc: np.ufunc, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    array = args[0]
    if type(array) is np.ndarray and array.nbytes >= REDUCE_NBYTES and is_shareable(array.dtype):
        segment = segment_of(array)
        out = kwargs.get("out")
        if segment is not None and segment.mode != "c":
            result = engine.reduce_ufunc(
                ufunc,
                array,
                axis=kwargs.get("axis", 0),
                dtype=kwargs.get("dtype"),
                out=None if out is None else out[0],
                keepdims=kwargs.get("keepdims", False),
                initial=kwargs.get("initial", np._NoValue),
                where=kwargs.get("where", True),
            )
            if result is not NotImplemented:
                return result
    return ufunc.reduce(*args, **kwargs)


def _accumulate(ufunc: np.ufunc, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    array = args[0]
    if "out" not in kwargs and type(array) is np.ndarray and array.nbytes * 32 >= config.inline_nbytes:
        dtype = kwargs.get("dtype")
        # NumPy widens small integers in sums and products; an empty array tells to what.
        try:
            dtype = ufunc.accumulate(np.empty(0, array.dtype), dtype=dtype).dtype
        except (TypeError, ValueError):  # the error is to be that of the call itself
            return ufunc.accumulate(*args, **kwargs)
        if wants_sharing(array.size * dtype.itemsize, dtype):
            out = allocate(array.shape, dtype, axes=axes_of_call([array], array.shape, as_they_are=False))
            if out is not None:
                return ufunc.accumulate(*args, **{**kwargs, "out": out})
    return ufunc.accumulate(*args, **kwargs)


def _outer(ufunc: np.ufunc, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if len(args) == 2 and ufunc.nin == 2 and "out" not in kwargs and all(type(x) is np.ndarray for x in args):
        # The same as a call with the first operand's dimensions in front: so it is allocated and run like
        # one.
        a, b = args
        return _call(ufunc, "__call__", [a.reshape(a.shape + (1,) * b.ndim), b], kwargs)
    return ufunc.outer(*args, **kwargs)


_METHODS: dict[str, Callable[[np.ufunc, str, list[Any], dict[str, Any]], Any]] = {
    "__call__": _call,
    "reduce": _reduce,
    "accumulate": _accumulate,
    "outer": _outer,
}
