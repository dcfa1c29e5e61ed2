"""What is a segment's file called?

::

    shmarray~temperature        public: namespace, tilde, the user's name
    shmarray~.u1f9a…            published without a user's name, for a handle or `.shm.name`
    shmarray~.t08c2…            private to one process: being made, or kept for reuse
    shmarray~.lock              the namespace's lock; gone when the last process of it ends cleanly

Neither namespaces nor names may hold a tilde, so no two pairs of them give one file (a colon would be
as good, but for the standard library's resource tracker, whose messages are split at colons); names do
not start with a dot, so no user's name is one of ours.
"""

from __future__ import annotations

import itertools
import os
import re

__all__ = [
    "check_name",
    "is_private",
    "is_public",
    "label_of",
    "lock_name",
    "new_private_name",
    "new_unnamed_name",
    "public_name",
]

#: Random once a process, then counted: two processes never share it, forked ones included (the pid).
_SALT = os.urandom(6).hex()
_count = itertools.count()

#: Names found good lately: the same few are made and opened again and again.
_good: set[str] = set()
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


def check_name(name: object) -> str:
    """The name, when it is one; `TypeError` or `ValueError` otherwise.

    Examples
    --------
    >>> check_name("temperature.2024")
    'temperature.2024'
    >>> check_name("a/b")
    Traceback (most recent call last):
    ValueError: 'a/b' is no name for an array: use 1 to 200 characters of A-Z a-z 0-9 . _ -, not \
starting with a dot
    """
    if not isinstance(name, str):
        raise TypeError(f"an array's name must be a str; got {type(name).__name__}: {name!r}")
    if name in _good:
        return name
    if not _NAME.fullmatch(name):
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        reason = f" (this one has {len(name)})" if len(name) > 200 else ""
        raise ValueError(
            f"{shown!r} is no name for an array: use 1 to 200 characters of A-Z a-z 0-9 . _ -{reason}, "
            "not starting with a dot"
        )
    if len(_good) >= 256:
        _good.clear()
    _good.add(name)
    return name


def _unique() -> str:
    return f"{_SALT}-{os.getpid():x}-{next(_count):x}"


def public_name(namespace: str, name: str) -> str:
    """File name of a named segment."""
    return f"{namespace}~{name}"


def new_unnamed_name(namespace: str) -> str:
    """A fresh file name for a segment without a user's name that others are to find."""
    return f"{namespace}~.u{_unique()}"


def new_private_name(namespace: str) -> str:
    """A fresh file name for a segment that nobody else is to find."""
    return f"{namespace}~.t{_unique()}"


def lock_name(namespace: str) -> str:
    """File name of the namespace's lock."""
    return f"{namespace}~.lock"


def label_of(file_name: str) -> str:
    """What follows the namespace: the user's name of a public file."""
    return file_name.partition("~")[2]


def is_private(file_name: str) -> bool:
    """Whether the file is a half-made or kept one."""
    return "~.t" in file_name


def is_public(file_name: str) -> bool:
    """Whether the file carries a user's name."""
    return "~." not in file_name
