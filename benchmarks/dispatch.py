"""What does it cost to hand two pieces of no work to two workers and wait?

The kernels do as little as numba lets them: the elementwise one copies one element a chunk, the chunkwise one
returns at once. Beside them: `multiprocessing.Pool.map` and `ProcessPoolExecutor.map` with a function that
does nothing, and a prange loop over two. All pools are hot: they are called without a pause. The floors are a cache
line that two spinning processes hand to each other and back, and a sleeping process that is woken through a pipe.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numba
import numpy as np
from floors import pipe_echo, spinning_echo
from harness import Contestant, Suite, arguments

import shmarray as sa


def nothing(_: int) -> None:
    """What the peers' workers do."""


@numba.njit(parallel=True)
def two_threads(out):  # type: ignore[no-untyped-def]
    for k in numba.prange(2):
        out[k] = k


@sa.elementwise
def same(x):  # type: ignore[no-untyped-def]
    return x


@sa.chunkwise
def leave(chunk):  # type: ignore[no-untyped-def]
    chunk[0] = chunk[0]


def main() -> None:
    suite = Suite("no-op dispatch over two chunks, pool hot", arguments(__doc__))
    # Small arrays stay with the caller by default; here the dispatch itself is the subject.
    sa.config.parallel_nbytes = 0
    sa.config.workers = 2
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    source = sa.zeros(2, chunks=1)
    target = sa.empty(2, chunks=1)
    plain = np.zeros(2)
    spawn = multiprocessing.get_context("spawn")
    with (
        spawn.Pool(2) as pool,
        ProcessPoolExecutor(2, mp_context=spawn) as executor,
        pipe_echo() as wake,
    ):
        peers = [
            Contestant("multiprocessing.Pool.map", lambda: pool.map(nothing, (0, 1), chunksize=1), calls=50),
            Contestant("ProcessPoolExecutor.map", lambda: list(executor.map(nothing, (0, 1))), calls=50),
            Contestant("numba prange", lambda: two_threads(plain), calls=2000),
            Contestant("floor: a process woken through a pipe, and back", wake, calls=200),
        ]
        suite.run(
            "elementwise (caller a lane)",
            [Contestant("shmarray elementwise", lambda: same(source, out=target), calls=2000), *peers],
            rounds=25,
        )
        suite.run(
            "chunkwise (workers alone)",
            [Contestant("shmarray chunkwise", lambda: leave(target), calls=500), *peers],
            rounds=25,
        )
    with spinning_echo() as hand_over:  # last, and alone: it keeps a core busy
        suite.run(
            "floor of both",
            [Contestant("a cache line to a spinning process, and back", hand_over, calls=20_000)],
            rounds=25,
        )
    suite.report()


if __name__ == "__main__":
    main()
