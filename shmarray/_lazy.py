"""Names of a package that are loaded when they are first asked for (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

from shmarray._forks import watch
from shmarray.interrupts import handlers_held_back

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, str], *, hint: Callable[[str], str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The functions `__getattr__` and `__dir__` of a package.

    Parameters
    ----------
    package : str
        Its `__name__`.
    homes : mapping of str to str
        Of each name the module that defines it, relative to the package; "" for a module of that name itself.
    hint : callable, optional
        What to say, besides that it is not there, of a name that is not; "" for nothing.
    """

    def load(name: str) -> object:
        if name not in homes:
            known = "" if hint is None else hint(name)
            raise AttributeError(f"module {package!r} has no attribute {name!r}{known and ': '}{known}")
        watch()
        # numba, which some of these import, cannot be imported again once that broke off; and importlib takes an
        # exception that is an OSError (an alarm's TimeoutError) for a missing file.
        with handlers_held_back():
            watch()
            module = import_module(f"{package}.{homes[name] or name}")
        if not homes[name]:
            return module
        value: object = getattr(module, name)
        setattr(sys.modules[package], name, value)  # the next time it is an ordinary attribute
        return value

    def names() -> list[str]:
        # What users may use, not what the module happens to have imported.
        return ["__doc__", "__file__", "__name__", *sorted(homes)]

    return load, names
