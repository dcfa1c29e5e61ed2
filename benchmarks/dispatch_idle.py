"""What does the first dispatch after a pause cost, and does a waiting pool burn the processor?

Each turn sleeps 200 ms and then times one no-op call over two chunks. The processor time of the workers over
two seconds of idleness is read from /proc/PID/stat, for ours and for the peer. The floors are what the machine takes to
wake one process that sleeps on a pipe, and this one when it answers, and of that the system call which wakes it, alone;
NumPy's addition of 16 numbers (half a microsecond when hot) shows what a pause costs any code, whose caches are cold.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence

import numba
import numpy as np
from dispatch import leave, nothing, same, two_threads
from floors import PipeEcho, pipe_echo
from harness import Contestant, Suite, arguments

import shmarray as sa

_PAUSE_S = 0.2


def processor_seconds(pids: Sequence[int]) -> float:
    """User and system time that processes have used so far."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pause() -> None:
    time.sleep(_PAUSE_S)


class WakeAlone:
    """Wakes the process of an echo, and takes the answer when it is next called."""

    def __init__(self, echo: PipeEcho) -> None:
        self.echo = echo
        self.asked = False

    def prepare(self) -> None:
        if self.asked:
            self.echo.await_answer()
        self.asked = False
        pause()

    def run(self) -> None:
        self.asked = True
        self.echo.wake()


def main() -> None:
    suite = Suite("no-op dispatch over two chunks after 200 ms of idleness", arguments(__doc__))
    sa.config.parallel_nbytes = 0
    sa.config.workers = 2
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    source = sa.zeros(2, chunks=1)
    target = sa.empty(2, chunks=1)
    plain, small = np.zeros(2), np.zeros(16)
    with multiprocessing.get_context("spawn").Pool(2) as pool, pipe_echo() as echo:
        alone = WakeAlone(echo)
        contestants = [
            Contestant("shmarray elementwise", lambda: same(source, out=target), prepare=pause),
            Contestant("shmarray chunkwise", lambda: leave(target), prepare=pause),
            Contestant("multiprocessing.Pool.map", lambda: pool.map(nothing, (0, 1), chunksize=1), prepare=pause),
            Contestant("numba prange", lambda: two_threads(plain), prepare=pause),
            Contestant("np.add of 16 numbers", lambda: np.add(small, small, out=small), prepare=pause),
            Contestant("floor: a process woken through a pipe, and back", echo, prepare=pause),
            Contestant("floor: the system call that wakes it, alone", alone.run, prepare=alone.prepare),
        ]
        suite.run("first call after 200 ms", contestants, rounds=40)
        for name, pids in (
            ("shmarray", [worker.pid for worker in sa.get_pool().workers]),
            ("multiprocessing.Pool", [process.pid for process in pool._pool]),
        ):
            time.sleep(_PAUSE_S)
            before = processor_seconds(pids)
            time.sleep(2)
            suite.note(f"processor seconds of {name}'s workers in 2 s of idleness", processor_seconds(pids) - before)
    suite.report()


if __name__ == "__main__":
    main()
