"""What does a NumPy function do with SharedArrays?

A table holds the functions that have a version of their own (`@implements(np.sort)`). The parallel versions of
the layer above are named in `shmarray._numpy_functions`, and their modules loaded when an array is first large
enough for one. Everything else falls through to NumPy on plain views of the same memory, and arrays that come back are
made SharedArrays again: views stay views of the segment, fresh results are moved into shared memory from
`config.inline_nbytes` on.

Invariant: falling through changes neither values nor identities. An array given as `out`, and one that NumPy
hands back unchanged, is the caller's own object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, TypeVar

import numpy as np

from shmarray._numpy_functions import HOMES
from shmarray.array.layout import axes_of_concatenation
from shmarray.array.results import allocate, share, wants_sharing
from shmarray.array.ufuncs import REDUCE_NBYTES
from shmarray.segment import segment_of

__all__ = ["call_function", "call_method", "implementation", "implements"]

Array = np.ndarray[Any, Any]
Implementation = TypeVar("Implementation", bound=Callable[..., Any])

_TABLE: dict[Callable[..., Any], Callable[..., Any]] = {}


def implements(*functions: Callable[..., Any]) -> Callable[[Implementation], Implementation]:
    """Register a version of NumPy functions for SharedArrays.

    The version is called with the caller's own arguments whenever a SharedArray is among them; if it returns
    NotImplemented, NumPy's runs on plain views. It serves the method of the same name too: `np.mean` also
    `a.mean()`. Two methods work in place and have no function: register `np.ndarray.sort` and
    `np.ndarray.partition`.

    Examples
    --------
    >>> import numpy as np
    >>> import shmarray as sa
    >>> @implements(np.trapezoid)
    ... def trapezoid(y, x=None, **rest):
    ...     return NotImplemented if x is not None or rest else float(y[:-1].sum() + y[1:].sum()) / 2
    >>> np.trapezoid(sa.array([1.0, 2.0, 3.0]))
    4.0
    """

    def register(version: Implementation) -> Implementation:
        for function in functions:
            entry = _TABLE.get(function)
            if isinstance(entry, _Late) and entry.home == version.__module__:
                entry.version = version
            else:
                _TABLE[function] = version
        return version

    return register


class _Late:
    """The entry of a function whose version is for large arrays, in a module that is loaded with the first of them."""

    __slots__ = ("home", "otherwise", "version")

    def __init__(self, home: str, otherwise: Callable[..., Any] | None) -> None:
        self.home, self.otherwise = home, otherwise
        self.version: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = NotImplemented
        if _any_large(args) or (kwargs and _any_large(kwargs.values())):
            if self.version is None:
                import_module(self.home)
            if self.version is not None:
                result = self.version(*args, **kwargs)
        if result is NotImplemented and self.otherwise is not None:
            result = self.otherwise(*args, **kwargs)
        return result


def _any_large(values: Iterable[Any]) -> bool:
    # The constant and no setting: where the grid of partial results decides bits, whether there is one must not depend
    # on the configuration.
    return any(isinstance(value, np.ndarray) and value.nbytes >= REDUCE_NBYTES for value in values)


def implementation(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The registered version of a NumPy function, or None."""
    return _TABLE.get(function)


def call_function(kind: type[Array], function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """A NumPy function on arguments among which there are arrays of class `kind`."""
    version = _TABLE.get(function)
    if version is not None:
        result = version(*args, **kwargs)
        if result is not NotImplemented:
            return result
    return _through(kind, function, args, kwargs)


def call_method(
    kind: type[Array],
    function: Callable[..., Any],
    method: Callable[..., Any],
    args: Any,
    kwargs: dict[str, Any],
) -> Any:
    """The same for a method of ndarray: the table knows it by its function's name."""
    version = _TABLE.get(function)
    if version is not None:
        result = version(*args, **kwargs)
        if result is not NotImplemented:
            return result
    return _through(kind, method, args, kwargs)


def _through(kind: type[Array], function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    seen: dict[int, tuple[Array, Array]] = {}
    plain_args = _plain(kind, tuple(args), seen)
    plain_kwargs = _plain(kind, kwargs, seen) if kwargs else kwargs
    return _wrapped(kind, function(*plain_args, **plain_kwargs), seen, plain_args, plain_kwargs)


def _plain(kind: type[Array], value: Any, seen: dict[int, tuple[Array, Array]]) -> Any:
    """`value` with plain views for our arrays, in containers too; `seen` remembers which stood for which."""
    if isinstance(value, kind):
        view = value.view(np.ndarray)
        seen[id(view)] = (view, value)
        return view
    if type(value) is list or type(value) is tuple:
        parts = [_plain(kind, part, seen) for part in value]
        if all(part is old for part, old in zip(parts, value, strict=True)):
            return value
        return parts if type(value) is list else tuple(parts)
    if type(value) is dict:
        return {key: _plain(kind, part, seen) for key, part in value.items()}
    return value


def _wrapped(
    kind: type[Array], result: Any, seen: dict[int, tuple[Array, Array]], args: tuple[Any, ...], kwargs: Any
) -> Any:
    if type(result) is np.ndarray:
        known = seen.get(id(result))
        if known is not None:
            return known[1]
        if any(x is result for x in args) or kwargs.get("out") is result:
            return result
        if segment_of(result) is None and _is_fresh(result, args, kwargs):
            result = share(result)
        return result.view(kind)
    if isinstance(result, (tuple, list)):
        parts = [_wrapped(kind, part, seen, args, kwargs) for part in result]
        if type(result) in (tuple, list):
            return type(result)(parts)
        make = getattr(type(result), "_make", None)  # named tuples, such as np.linalg.eig's
        return result if make is None else make(parts)
    return result


def _is_fresh(result: Array, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a result has memory of its own: moving an argument's view would cut it off from its array."""
    if result.base is None:
        return True
    owner = _owner(result)
    return not any(_owner(x) is owner for x in _arrays((args, kwargs)))


def _owner(array: Array) -> Any:
    owner: Any = array
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    return owner


def _arrays(value: Any) -> list[Array]:
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [array for part in value for array in _arrays(part)]
    return []


# --- versions that need no second core: they spare the copy into shared memory ------------------------------


#: Keywords that are no arrays.
_SIMPLE = {"axis", "dtype", "ddof"}


def _by_own_method(name: str) -> Callable[..., Any]:
    """Reductions go through the array's method, and so through `ufunc.reduce` and the engine."""
    method = getattr(np.ndarray, name)

    def version(a: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(a, np.ndarray):
            return NotImplemented
        if a.nbytes < REDUCE_NBYTES:  # NumPy alone is faster
            if len(args) > 1 or kwargs.keys() - _SIMPLE or type(a) is np.ndarray:
                return NotImplemented
            result = method(a.view(np.ndarray), *args, **kwargs)
            return share(result).view(type(a)) if type(result) is np.ndarray else result
        if "correction" in kwargs:  # np.var and np.std call `ddof` so as well; the method does not
            if "ddof" in kwargs:
                return NotImplemented
            kwargs["ddof"] = kwargs.pop("correction")
        given = {key: value for key, value in kwargs.items() if value is not np._NoValue}
        return method(a, *args, **given)

    version.__name__ = name
    return version


for _name in ("sum", "prod", "max", "min", "any", "all", "mean", "var", "std"):
    implements(getattr(np, _name))(_by_own_method(_name))
implements(np.amax)(_by_own_method("max"))
implements(np.amin)(_by_own_method("min"))


@implements(np.copy)
def _copy(a: Any, order: Any = "K", subok: bool = False) -> Any:
    return a.copy(order) if isinstance(a, np.ndarray) else NotImplemented


@implements(np.astype)
def _astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    return x.astype(dtype, copy=copy)


@implements(np.array_repr)
def _array_repr(arr: Any, *args: Any, **kwargs: Any) -> Any:
    return NotImplemented if args or kwargs else repr(arr)


@implements(np.concatenate)
def _concatenate(arrays: Any, axis: Any = 0, out: Any = None, **kwargs: Any) -> Any:
    """The result lies in shared pages from the start instead of being copied there."""
    if out is not None or kwargs or type(axis) is not int or not isinstance(arrays, (list, tuple)):
        return NotImplemented
    plain = [x.view(np.ndarray) if isinstance(x, np.ndarray) else x for x in arrays]
    if not all(type(x) is np.ndarray and x.ndim == plain[0].ndim for x in plain):
        return NotImplemented
    shape = list(plain[0].shape)
    if not -len(shape) <= axis < len(shape):
        return NotImplemented
    shape[axis] = sum(x.shape[axis] for x in plain)
    try:
        dtype = np.result_type(*plain)
    except TypeError:
        return NotImplemented
    if not wants_sharing(math.prod(shape) * dtype.itemsize, dtype):
        return NotImplemented
    target = allocate(tuple(shape), dtype, axes=axes_of_concatenation(plain))
    if target is None:
        return NotImplemented
    kind = next(type(x) for x in arrays if type(x) is not np.ndarray)
    return np.concatenate(plain, axis, out=target).view(kind)


# --- the parallel versions of the layer above ---------------------------------------------------------------


def _expect_versions() -> None:
    for home, names in HOMES.items():
        for name in names:
            function: Any = np
            for part in name.split("."):
                function = getattr(function, part)
            _TABLE[function] = _Late(home, _TABLE.get(function))


_expect_versions()
