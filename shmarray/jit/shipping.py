"""How does what machine code needs travel, and a function whose machine code cannot?

Arrays that the code reads in place keep their strides, which are constants in it. A function goes by value,
with cloudpickle, except that numba's dispatchers are pickled in two steps: numba reduces a dispatcher to its
function, and a recursive function holds its own dispatcher among its globals, so that pickling would never
end.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import cloudpickle
import numpy as np
from numba.core.dispatcher import Dispatcher

__all__ = ["dumps", "pack_tables", "unpack_tables"]

Table = np.ndarray[Any, Any]


def pack_tables(tables: Sequence[Table]) -> tuple[Any, ...]:
    """Return what to pickle for arrays: themselves (a SharedArray: its handle) where it keeps the strides."""
    return tuple(
        (np.ascontiguousarray(table), table.strides)
        if type(table) is np.ndarray and not (table.flags.c_contiguous or table.flags.f_contiguous)
        else table
        for table in tables
    )


def unpack_tables(packed: Sequence[Any]) -> tuple[Table, ...]:
    """Return the arrays that :func:`pack_tables` packed."""
    return tuple(_spread(*item) if isinstance(item, tuple) else item for item in packed)


def _spread(data: Table, strides: tuple[int, ...]) -> Table:
    reaches = [(count - 1) * stride for count, stride in zip(data.shape, strides, strict=True)]
    before = -sum(reach for reach in reaches if reach < 0)
    memory = np.empty(before + sum(reach for reach in reaches if reach > 0) + data.itemsize, dtype=np.uint8)
    table = np.ndarray(data.shape, data.dtype, memory, before, strides)
    table[...] = data
    return table


def dumps(value: object) -> bytes:
    """Pickle functions by value; any process with this package loads them with `pickle.loads`."""
    with io.BytesIO() as file:
        _Pickler(file).dump(value)
        return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Dispatcher):
            # The empty dispatcher is memoised before its parts are written, so the parts may refer to it.
            parts = obj.py_func, obj.locals, obj.targetoptions, getattr(obj, "family", None)
            return _empty, (type(obj),), parts, None, None, _fill
        return super().reducer_override(obj)


def _empty(kind: type[Dispatcher]) -> Any:
    return kind.__new__(kind)


def _fill(dispatcher: Any, parts: tuple[Any, ...]) -> None:
    python, local_types, targetoptions, family = parts
    if family is None:
        dispatcher.__init__(python, local_types, targetoptions)
    else:
        dispatcher.__init__(python, local_types, targetoptions, family.pipeline)
        family.admit(dispatcher)
