"""What is the least that hot calls and an array's life cost? For comparing two states of the source.

Medians follow whatever else the machine does; the least of many turns hardly does. It takes nothing from this folder,
so it measures any tree that it is pointed at: `PYTHONPATH=/other/tree python benchmarks/least_times.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import shmarray as sa

_TURNS = 400


@sa.elementwise
def same(x):  # type: ignore[no-untyped-def]
    return x


@sa.chunkwise
def leave(chunk):  # type: ignore[no-untyped-def]
    chunk[0] = chunk[0]


def life() -> None:
    """Create, attach by name, drop both."""
    made = sa.empty(4000, np.uint8, name="least-times")
    attached = sa.open("least-times")
    del made, attached


def show(name: str, call: Callable[[], object], calls: int) -> None:
    """Print the least and the median time of a call."""
    for _ in range(10 * calls):
        call()
    times = []
    for _ in range(_TURNS):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls * 1e6)
    print(f"{name:45} least {min(times):6.2f} us, median {np.median(times):6.2f} us")


def main() -> None:
    sa.config.parallel_nbytes = 0
    sa.config.workers = 2
    source, target = sa.zeros(2, chunks=1), sa.empty(2, chunks=1)
    show("elementwise, two chunks", lambda: same(source, out=target), 50)
    show("elementwise in place", lambda: same(target, out=target), 50)
    show("chunkwise, two chunks", lambda: leave(target), 50)
    show("create + attach by name + drop, 4 kB", life, 20)


if __name__ == "__main__":
    main()
