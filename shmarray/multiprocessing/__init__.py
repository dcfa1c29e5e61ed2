"""The standard library's `multiprocessing`, with what it gets wrong made right.

The names are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmarray._lazy import lazy_names

if TYPE_CHECKING:
    from shmarray.multiprocessing.managers import ArrayManager, Manager

__all__ = ["ArrayManager", "Manager"]

__getattr__, __dir__ = lazy_names(__name__, {"ArrayManager": "managers", "Manager": "managers"})
