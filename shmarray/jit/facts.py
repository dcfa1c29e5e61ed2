"""What has been worked out about a kernel, remembered like its code.

A result's dtype, say, takes numba's type inference, which costs as much as compiling. So that the second run of a
program compiles nothing, such small facts lie in the cache on disk beside the code, under keys of the same kind.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TypeVar

from shmarray.jit import store
from shmarray.jit.environment import code_key

__all__ = ["remember"]

Fact = TypeVar("Fact")

_memory: dict[bytes, object] = {}


def remember(key: object, compute: Callable[[], Fact]) -> Fact:
    """What `compute()` gave the first time, in this or an earlier process.

    Parameters
    ----------
    key
        As for `compile`: fingerprints, strings, numbers, dtypes, nested. Equal keys mean equal facts.
    compute
        Called when the fact is not known; its result must pickle. What it raises is not remembered.
    """
    digest = code_key(("fact", key))
    if digest in _memory:
        return _memory[digest]  # type: ignore[return-value]
    data = store.read(digest) if digest.stable else None
    if data is not None:
        fact: Fact = pickle.loads(data)
    else:
        fact = compute()
        if digest.stable:
            store.write(digest, pickle.dumps(fact))
    _memory[digest] = fact
    return fact
