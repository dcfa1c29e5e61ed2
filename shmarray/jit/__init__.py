"""Compile once, ship machine code.

The names are loaded when first asked for: importing this package imports no numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmarray._lazy import lazy_names

if TYPE_CHECKING:
    from shmarray.jit.compilation import Code, compile, load
    from shmarray.jit.counters import Statistics, statistics
    from shmarray.jit.facts import remember
    from shmarray.jit.functions import compiled_return_type, return_type, scalar
    from shmarray.jit.identity import Fingerprint, fingerprint
    from shmarray.jit.policy import options

__all__ = [
    "Code",
    "Fingerprint",
    "Statistics",
    "compile",
    "compiled_return_type",
    "fingerprint",
    "load",
    "options",
    "remember",
    "return_type",
    "scalar",
    "statistics",
]

_homes = {
    "Code": "compilation",
    "Fingerprint": "identity",
    "Statistics": "counters",
    "compile": "compilation",
    "compiled_return_type": "functions",
    "fingerprint": "identity",
    "load": "compilation",
    "options": "policy",
    "remember": "facts",
    "return_type": "functions",
    "scalar": "functions",
    "statistics": "counters",
}
__getattr__, __dir__ = lazy_names(__name__, _homes)
