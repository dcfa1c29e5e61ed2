"""Functions by value, with cloudpickle, that keep the name of their file: tracebacks show it, and its line."""

from __future__ import annotations

import io
from functools import cache
from types import CodeType
from typing import Any, ClassVar

__all__ = ["dumps", "reducers"]

_NO_FILE = "<dynamic-code>"  # what cloudpickle says from 3.1.3 on


def dumps(value: object) -> bytes:
    """`cloudpickle.dumps`, but for the names of files."""
    with io.BytesIO() as file:
        _pickler()(file).dump(value)
        return file.getvalue()


def reducers() -> dict[type, Any]:
    """What stands before cloudpickle's `dispatch_table` in picklers of one's own."""
    return {CodeType: _reduce_code}


@cache
def _pickler() -> Any:
    from collections import ChainMap

    import cloudpickle

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
        # It is read from the class, when an instance is made.
        dispatch_table: ClassVar[Any] = ChainMap(reducers(), cloudpickle.Pickler.dispatch_table)

    return ByValue


def _reduce_code(code: CodeType) -> Any:
    import cloudpickle

    make, arguments = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return make, tuple(code.co_filename if each == _NO_FILE else each for each in arguments)
