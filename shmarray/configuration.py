"""Settings: where they come from and who sees them.

A setting is, in this order: what `config.override(...)` says in this context, what was assigned to
`config.NAME`, the environment variable `SHMARRAY_NAME` at import, the default. Overrides are a context
variable, so that threads and asynchronous tasks do not see each other's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["Config", "config", "parse_nbytes"]

_MIB = 1024 * 1024
#: What fits into a signed 64-bit word.
_MOST = 2**63 - 1

_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,47}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)", re.IGNORECASE)


def _count(value: Any) -> int:
    number = int(value)
    if not 0 <= number <= _MOST or number != float(value):
        raise ValueError
    return number


def parse_nbytes(value: Any) -> int:
    """A number of bytes, from a number or from text with a unit, decimal (kB, MB, GB, TB) or binary (KiB, ...).

    Raises
    ------
    ValueError
        It is none, or no whole number of at least 0.

    Examples
    --------
    >>> parse_nbytes("2GB"), parse_nbytes("1.5 GiB"), parse_nbytes("64k"), parse_nbytes("4096")
    (2000000000, 1610612736, 64000, 4096)
    """
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return _count(value)
    number, unit, binary = match.groups()
    return _count(int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit.lower())) if unit else number)


def _positive(value: Any) -> int:
    number = _count(value)
    if number == 0:
        raise ValueError
    return number


def _positive_nbytes(value: Any) -> int:
    return _positive(parse_nbytes(value))


def _lanes(value: Any) -> int:
    number = _positive(value)
    if number > 127:
        raise ValueError
    return number


def _seconds(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 1e9:  # in nanoseconds it has to fit into 64 bits
        raise ValueError
    return number


def _namespace(value: Any) -> str:
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        raise ValueError
    return value


_BYTES = "a number of bytes, which may be text with a unit (64kB, 2GB, 1.5GiB)"

#: name -> (default, parse, what a value must be). A default of None means "decided when asked for".
_SETTINGS: Mapping[str, tuple[Any, Any, str]] = {
    "namespace": ("shmarray", _namespace, "1-48 characters of A-Z a-z 0-9 . _ -, not starting with . or -"),
    "max_nbytes": (None, _positive_nbytes, f"{_BYTES}, not 0, or None for no quota"),
    "workers": (None, _lanes, "a number of lanes from 1 to 127, or None for the cores this process may use"),
    "inline_nbytes": (32 * 1024, parse_nbytes, _BYTES),
    "parallel_nbytes": (1 * _MIB, parse_nbytes, _BYTES),
    "chunk_nbytes": (1 * _MIB, _positive_nbytes, f"{_BYTES}, not 0"),
    "recycle_nbytes": (None, parse_nbytes, f"{_BYTES}, or None for a share of the free shared memory"),
    "handle_ttl_s": (60.0, _seconds, "a number of seconds from 0 to 1e9"),
    "spin_us": (100, _count, "a number of microseconds"),
}


class _Setting:
    """One setting, as an attribute: read on hot paths, so by descriptor rather than by `__getattr__`."""

    def __init__(self, name: str) -> None:
        self.name = name
        default, _, expected = _SETTINGS[name]
        self.__doc__ = f"{expected[0].upper()}{expected[1:]}; {default!r} at first, or SHMARRAY_{name.upper()}."

    def __get__(self, owner: Config | None, kind: type[Config] | None = None) -> Any:
        if owner is None:
            return self
        overrides = owner._overrides.get()
        name = self.name
        return overrides[name] if name in overrides else owner._values[name]

    def __set__(self, owner: Config, value: Any) -> None:
        owner._values[self.name] = _parse(self.name, value)


class Config:
    """The settings of this process, as attributes: `shmarray.config`.

    Each has a variable of the environment that is read at import: SHMARRAY_WORKERS for `workers`. Assigning changes a
    setting for the whole process, :meth:`override` for a block. Numbers of bytes may be text with a unit, as "2GB" or
    "1.5GiB". A value that cannot be is a ValueError that says what can.

    Attributes
    ----------
    namespace : str
        Prefix of the names of segments; listing, quota and garbage collection see only their own.
    max_nbytes : int or None
        Quota of the namespace in bytes.
    workers : int or None
        Lanes of the default pool; None: the cores that this process may use.
    inline_nbytes : int
        Results of operators and functions below this size are private memory.
    parallel_nbytes : int
        Below this size the caller works alone.
    chunk_nbytes : int
        Size of a chunk where none is given.
    recycle_nbytes : int or None
        Bound on freed segments that are kept warm; None: a share of the free shared memory.
    handle_ttl_s : float
        How long a pickled handle keeps its segment waiting for a receiver, in seconds.
    spin_us : int
        How long an idle worker looks for work before it sleeps, in microseconds; read when a pool is made.

    Examples
    --------
    >>> with config.override(chunk_nbytes=4096):
    ...     config.chunk_nbytes
    4096
    """

    namespace: str = _Setting("namespace")  # type: ignore[assignment]
    max_nbytes: int | None = _Setting("max_nbytes")  # type: ignore[assignment]
    workers: int | None = _Setting("workers")  # type: ignore[assignment]
    inline_nbytes: int = _Setting("inline_nbytes")  # type: ignore[assignment]
    parallel_nbytes: int = _Setting("parallel_nbytes")  # type: ignore[assignment]
    chunk_nbytes: int = _Setting("chunk_nbytes")  # type: ignore[assignment]
    recycle_nbytes: int | None = _Setting("recycle_nbytes")  # type: ignore[assignment]
    handle_ttl_s: float = _Setting("handle_ttl_s")  # type: ignore[assignment]
    spin_us: int = _Setting("spin_us")  # type: ignore[assignment]

    __slots__ = ("_overrides", "_values")

    def __init__(self, environ: Mapping[str, str]) -> None:
        values: dict[str, Any] = {}
        for name, (default, _, _) in _SETTINGS.items():
            text = environ.get(f"SHMARRAY_{name.upper()}", "")
            try:
                values[name] = _parse(name, text) if text else default
            except ValueError as error:
                raise ValueError(f"the environment variable SHMARRAY_{name.upper()} is wrong: {error}") from None
        empty: Mapping[str, Any] = {}
        self._values = values
        self._overrides = ContextVar("shmarray_overrides", default=empty)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _SETTINGS and name not in self.__slots__:
            raise AttributeError(_unknown(name), name=name, obj=self)
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:  # of what is no setting only
        raise AttributeError(_unknown(name), name=name, obj=self)

    def __dir__(self) -> list[str]:
        return ["__doc__", *_SETTINGS, "override"]

    def __repr__(self) -> str:
        return "Config(" + ", ".join(f"{name}={getattr(self, name)!r}" for name in _SETTINGS) + ")"

    @contextmanager
    def override(self, **settings: Any) -> Iterator[Config]:
        """Other values inside a `with` block, for this thread or task alone.

        Parameters
        ----------
        **settings
            Their names and values.

        Raises
        ------
        AttributeError
            There is no such setting.
        ValueError
            It cannot have that value.

        Examples
        --------
        >>> with config.override(workers=1, max_nbytes=10**9):
        ...     config.workers
        1
        >>> config.workers is None
        True
        """
        parsed = {name: _parse(name, value) for name, value in settings.items()}
        token = self._overrides.set({**self._overrides.get(), **parsed})
        try:
            yield self
        finally:
            self._overrides.reset(token)


def _unknown(name: str) -> str:
    return f"there is no setting {name!r}; there are {', '.join(_SETTINGS)}"


def _parse(name: str, value: Any) -> Any:
    try:
        default, parse, expected = _SETTINGS[name]
    except KeyError:
        raise AttributeError(_unknown(name)) from None
    if value is None and default is None:
        return None
    try:
        return parse(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"config.{name} must be {expected}; got {value!r}") from None


config = Config(os.environ)
