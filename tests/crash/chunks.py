"""An array whose items are the numbers of their chunks, and what tests of workers do with it."""

from __future__ import annotations

import os

import numpy as np

import shmarray as sa

N_CHUNKS, CHUNK = 8, 16


def numbered() -> sa.SharedArray:
    """An array whose items are the numbers of their chunks."""
    return sa.array(np.repeat(np.arange(N_CHUNKS), CHUNK), chunks=CHUNK)


def once(path):
    """A function that is true at its first call with `path`, whichever process asks."""

    def first(path=str(path)):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    return first


def works(pool) -> bool:
    """Whether the pool does a call on all of its lanes."""
    a, b = numbered(), numbered()

    @sa.chunkwise(jit=False)
    def double(chunk):
        return chunk * 2

    double(a, out=b, pool=pool)
    return np.array_equal(b, np.asarray(a) * 2)
