"""Functions of whole chunks that several test modules call, so that each is compiled once."""

from __future__ import annotations

import numpy as np

import shmarray as sa


@sa.chunkwise
def double(chunk):
    chunk *= 2


@sa.chunkwise
def doubled(chunk):
    return chunk * 2


@sa.chunkwise
def filled_with_number(chunk, chunk_info):
    chunk[...] = chunk_info.number


@sa.chunkwise
def add_scaled(target, source, factor):
    target += source * factor


@sa.chunkwise
def weighted(x, y, factor):
    return x * factor + y


@sa.chunkwise
def reversed_chunk(chunk):
    return chunk[::-1]


@sa.chunkwise
def itself(chunk):
    return chunk


@sa.chunkwise
def shortened(chunk):
    return chunk[:-1]


@sa.chunkwise
def refuses_negative(chunk):
    if chunk.min() < 0:
        raise ValueError("negative")
    return chunk + 0


@sa.chunkwise(debug=True)
def out_of_bounds(chunk, i):
    return chunk + np.arange(4.0)[int(i)]


@sa.chunkwise(jit=False)
def python_double(chunk):
    chunk *= 2


@sa.chunkwise(jit=False)
def python_doubled(chunk):
    return chunk * 2
