"""How does a function travel whose machine code cannot?

By value, with cloudpickle, except that numba's dispatchers are pickled in two steps. Numba reduces a
dispatcher to its function, and a recursive function holds its own dispatcher among its globals: pickling that
never ends.
"""

from __future__ import annotations

import io
from typing import Any

import cloudpickle
from numba.core.dispatcher import Dispatcher

__all__ = ["dumps"]


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
