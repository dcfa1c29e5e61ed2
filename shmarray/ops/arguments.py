"""Checking what users pass to kernels, before anything runs."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shmarray._by_value import dumps
from shmarray.array import SharedArray
from shmarray.configuration import config
from shmarray.engine import shared_copy
from shmarray.segment import segment_of

__all__ = [
    "as_outputs",
    "as_scalar_or_array",
    "broadcast_shape",
    "by_value",
    "chunks_for",
    "plain_function",
    "positional_arity",
    "reachable",
    "reachable_if_large",
]

Array = np.ndarray[Any, Any]


def plain_function(function: Any, *, decorator: str, jit: bool = True) -> Callable[..., Any]:
    """The function, or a TypeError that says what a kernel is made of.

    What is compiled must have Python source: a function, or one that the user has put under `numba.njit`.
    """
    if not callable(function) or isinstance(function, type):
        got = "an array, and arrays come behind it" if isinstance(function, np.ndarray) else repr(function)
        raise TypeError(f"{decorator} takes a function; got {got}")
    if jit and not isinstance(getattr(function, "py_func", function), types.FunctionType):
        raise TypeError(
            f"{decorator} compiles functions written in Python; {function!r} is none. "
            "Call it in one (for example `lambda x: math.sin(x)`), or pass jit=False"
        )
    return function  # type: ignore[no-any-return]


def positional_arity(function: Callable[..., Any], *, without: Sequence[str] = ()) -> int:
    """How many arguments a kernel's function takes; it must take a fixed number."""
    python = getattr(function, "py_func", function)
    name = getattr(python, "__name__", "kernel")
    if isinstance(function, np.ufunc):
        return function.nin
    parameters = [p for p in inspect.signature(python).parameters.values() if p.name not in without]
    if any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
        raise TypeError(
            f"{name} must take a fixed number of positional arguments; it takes {inspect.signature(python)}"
        )
    if not parameters:
        raise TypeError(f"{name} takes no argument; a kernel works on at least one array")
    return len(parameters)


def as_scalar_or_array(args: Sequence[Any], *, name: str) -> list[Array | np.generic]:
    """Arguments as plain ndarray views or NumPy scalars.

    Python numbers take the dtype that NumPy's promotion gives them beside the arrays (a float beside float32 is
    float32). Arrays without dimensions are values.
    """
    arrays = [np.asarray(arg) for arg in args if isinstance(arg, np.ndarray | np.generic | list | tuple)]
    common = np.result_type(*arrays) if arrays else None
    values: list[Array | np.generic] = []
    for position, arg in enumerate(args):
        if isinstance(arg, bool | int | float | complex) and not isinstance(arg, np.generic):
            dtype = np.result_type(type(arg)) if common is None else np.result_type(common, arg)
            if common is not None and common.kind not in "biufc":
                dtype = np.asarray(arg).dtype
            try:
                values.append(dtype.type(arg))
            except OverflowError:
                raise OverflowError(
                    f"{name}: argument {position} is {arg}, which is too large for {dtype}; pass it as a float"
                ) from None
            continue
        array = np.asarray(arg)
        if array.dtype.hasobject:
            raise TypeError(
                f"{name}: argument {position} has dtype {array.dtype}, which holds Python objects; "
                "kernels work on numbers in shared memory: convert it, for example with .astype(float)"
            )
        values.append(array if array.ndim else array[()])
    return values


def as_outputs(
    out: Any, count: int, shape: tuple[int, ...], dtypes: Sequence[np.dtype[Any]], *, name: str
) -> list[Array]:
    """What `out=` gives, as plain views; [] for None."""
    if out is None:
        return []
    given = out if isinstance(out, tuple) else (out,)
    if len(given) != count:
        raise ValueError(
            f"{name} gives {count} arrays, so out must be {'a tuple of ' + str(count) if count > 1 else 'one array'}; "
            f"got {len(given)}"
        )
    outputs = []
    for array, dtype in zip(given, dtypes, strict=True):
        if not isinstance(array, SharedArray):
            raise TypeError(
                f"{name}: out must be a SharedArray, which workers can write; got {type(array).__name__}. "
                "Make one with shmarray.empty, or leave out away"
            )
        if array.shape != shape:
            raise ValueError(f"{name}: out has shape {array.shape}; the result has shape {shape}")
        if not np.can_cast(dtype, array.dtype, casting="same_kind"):
            raise TypeError(f"{name}: out has dtype {array.dtype}, which cannot hold {dtype} by same-kind casting")
        outputs.append(array.view(np.ndarray))
    return outputs


def broadcast_shape(shapes: Sequence[tuple[int, ...]], *, name: str) -> tuple[int, ...]:
    """The shape that arguments of these shapes have together, by NumPy's rules (and for more than its 32 dimensions).

    Examples
    --------
    >>> broadcast_shape([(3, 1), (4,)], name="kernel")
    (3, 4)
    """
    n_dims = max(map(len, shapes), default=0)
    together = [1] * n_dims
    for shape in shapes:
        for axis, extent in enumerate(shape, n_dims - len(shape)):
            if together[axis] == 1:
                together[axis] = extent
            elif extent not in (1, together[axis]):
                shown = ", ".join(map(str, shapes))
                raise ValueError(f"{name}: arguments of shapes {shown} do not broadcast together")
    return tuple(together)


def chunks_for(shape: tuple[int, ...], candidates: Sequence[Any]) -> tuple[int, ...] | None:
    """The chunk shape that the first array of that shape was created with; None where none was.

    Views do not count: a transposed or stepped one is better cut along its own memory.
    """
    for array in candidates:
        if isinstance(array, SharedArray) and array.shape == shape and array.flags.c_contiguous:
            segment = segment_of(array)
            descriptor = None if segment is None else segment.descriptor
            if descriptor is not None and descriptor.chunks is not None and descriptor.shape == shape:
                return descriptor.chunks
    return None


def reachable(values: Sequence[Any]) -> list[Any]:
    """The same values with private arrays copied into shared memory, where workers can see them."""
    return [shared_copy(value).array if _is_private(value) else value for value in values]


def reachable_if_large(values: Sequence[Any]) -> list[Any]:
    """The same, if the work is for workers at all; where the caller works alone, nothing is copied."""
    large = max((value.nbytes for value in values if isinstance(value, np.ndarray)), default=0)
    return reachable(values) if large >= config.parallel_nbytes else list(values)


def _is_private(value: Any) -> bool:
    if not isinstance(value, np.ndarray):
        return False
    segment = segment_of(value)
    return segment is None or segment.mode == "c"


def by_value(function: Any, of: Callable[..., Any] | None = None) -> bytes:
    """A function as bytes that need no import of the user's script (lambdas, closures, notebooks).

    What holds a function (`of`) goes in the same way.

    Raises
    ------
    TypeError
        When something that it refers to cannot be pickled.
    """
    import cloudpickle

    main = sys.modules.get("__mp_main__")
    if main is not None and main.__name__ not in cloudpickle.list_registry_pickle_by_value():
        # The script, in a child that multiprocessing has spawned: no other process can import that name.
        cloudpickle.register_pickle_by_value(main)
    try:
        return dumps(function)
    except Exception as error:
        name = getattr(of or function, "__name__", "function")
        raise TypeError(
            f"{name} cannot be sent to the workers: {error}. Pass what it needs as arguments instead"
        ) from error
