"""Kill a worker in the middle of a step, and see that the pool recovers.

Invariant: a kill counts only if it fell while the step ran, with part of its output written and part not.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["is_replaced", "run_and_kill"]


def run_and_kill(pool: Any, step: Callable[[], Any], out: np.ndarray) -> int | None:
    """Run `step`, and kill the pool's first worker once part of `out` is written.

    Parameters
    ----------
    pool : Pool
        Whose worker is killed.
    step : callable
        Fills `out`, which is zero before, with values most of which are not.
    out : ndarray
        Two dimensions, in shared memory.

    Returns
    -------
    int or None
        The pid that was killed; None if the step was over before there was a chance.
    """
    running = threading.Event()
    killed: list[int] = []
    victim = pool.workers[0].pid
    probe = out[:: max(1, out.shape[0] // 512), out.shape[1] // 2]

    def written() -> float:
        return float(np.count_nonzero(probe)) / probe.size

    def watch() -> None:
        # Nothing announces a chunk, so the output is looked at until the work shows in it.
        running.wait()
        while running.is_set() and written() < 0.1:
            time.sleep(0.0002)
        if running.is_set() and written() < 0.8:
            os.kill(victim, signal.SIGKILL)
            if written() < 0.9:
                killed.append(victim)

    watcher = threading.Thread(target=watch, name="demo-killer")
    watcher.start()
    running.set()
    try:
        step()
    finally:
        running.clear()
        watcher.join()
    return killed[0] if killed else None


def is_replaced(pool: Any, pid: int, count: int) -> bool:
    """Whether, within ten seconds, the pool has `count` workers again and `pid` is not among them."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        workers = pool.workers
        if len(workers) == count and all(worker.pid != pid and worker.state != "dead" for worker in workers):
            return True
        time.sleep(0.01)
    return False
