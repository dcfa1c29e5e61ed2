"""What does the engine add for each chunk?

The same work cut into 1 and into many chunks of one element each, on one lane: the difference by the number
of chunks is the price of a claim, a call and a state store. Beside it, a plain numba loop over as many
elements on one thread, and `multiprocessing.Pool.map` with as many tasks, in batches of its own choosing.
"""

from __future__ import annotations

import multiprocessing
import operator

import numba
import numpy as np
from dispatch import nothing
from harness import OURS, Contestant, Suite, arguments

import shmarray as sa

_CHUNKS = 20_000
_TASKS = 2_000


@sa.elementwise
def double(x):  # type: ignore[no-untyped-def]
    return x * 2


@sa.chunkwise
def double_chunk(chunk):  # type: ignore[no-untyped-def]
    for k in range(chunk.size):
        chunk[k] *= 2


@sa.reduction(identity=0.0, combine=operator.add)
def total(acc, x):  # type: ignore[no-untyped-def]
    return acc + x


@numba.njit
def plain_double(x, out):  # type: ignore[no-untyped-def]
    for k in range(x.size):
        out[k] = x[k] * 2


@numba.njit
def plain_total(x):  # type: ignore[no-untyped-def]
    acc = 0.0
    for k in range(x.size):
        acc += x[k]
    return acc


def main() -> None:
    suite = Suite(f"the engine's cost of a chunk, {_CHUNKS:,} chunks of one element", arguments(__doc__))
    sa.config.parallel_nbytes = 0
    sa.config.workers = 1
    values = np.ones(_CHUNKS)
    many, one = sa.array(values, chunks=1), sa.array(values, chunks=_CHUNKS)
    out_many, out_one = sa.empty(_CHUNKS, chunks=1), sa.empty(_CHUNKS, chunks=_CHUNKS)
    plain = np.empty(_CHUNKS)

    def per_chunk(case: str, split: object, whole: object, peer: object) -> None:
        found = suite.run(
            case,
            [
                Contestant(f"{OURS}, {_CHUNKS:,} chunks", split, calls=5),  # type: ignore[arg-type]
                Contestant("shmarray, 1 chunk", whole, calls=5),  # type: ignore[arg-type]
                Contestant("plain numba loop", peer, calls=5),  # type: ignore[arg-type]
            ],
            rounds=25,
        )
        extra = found[f"{OURS}, {_CHUNKS:,} chunks"].median - found["plain numba loop"].median
        suite.note(f"us a chunk over the plain loop, {case}", round(extra / _CHUNKS * 1e6, 3))

    per_chunk(
        "elementwise",
        lambda: double(many, out=out_many),
        lambda: double(one, out=out_one),
        lambda: plain_double(values, plain),
    )
    per_chunk(
        "chunkwise",
        lambda: double_chunk(out_many),
        lambda: double_chunk(out_one),
        lambda: plain_double(plain, plain),
    )

    # A reduction's grid depends on the shape alone, 131,072 elements a chunk, so the array must be long.
    long = sa.ones(1 << 24)
    values_long = np.asarray(long)
    found = suite.run(
        "reduction, 128 chunks of 1 MB",
        [
            Contestant(f"{OURS}, 128 chunks", lambda: total(long)),
            Contestant("plain numba loop", lambda: plain_total(values_long)),
        ],
        rounds=25,
    )
    extra = found[f"{OURS}, 128 chunks"].median - found["plain numba loop"].median
    suite.note("us a chunk over the plain loop, reduction", round(extra / 128 * 1e6, 3))

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        tasks = range(_TASKS)
        found = suite.run(
            f"multiprocessing.Pool.map, {_TASKS:,} tasks that do nothing",
            [Contestant("multiprocessing.Pool.map", lambda: pool.map(nothing, tasks))],
            rounds=15,
        )
        suite.note(
            "us a task, multiprocessing.Pool.map",
            round(found["multiprocessing.Pool.map"].median / _TASKS * 1e6, 2),
        )
    suite.report()


if __name__ == "__main__":
    main()
