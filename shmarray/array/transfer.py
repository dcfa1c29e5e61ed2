"""How do bytes get into shared pages with all cores?

First touch of fresh pages and page-cache reads run at 1-3 GB/s on one core, and both `np.copyto` and the
system's read and write calls release the GIL: threads share the work in slices. Processes would have to be
told where the private side lies; threads see it.

Invariant: when a transfer returns or raises, none of its threads touches the memory any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from shmarray.pool.cores import available_cores

__all__ = ["SLICE_NBYTES", "copy_parallel", "fill_parallel", "run_sliced"]

#: Large enough that a slice's system call costs nothing beside its bytes, small enough for a smooth progress
#: bar and for Ctrl-C.
SLICE_NBYTES = 8 * 1024 * 1024

#: Below this, starting threads (some 50 µs each) costs more than they save.
_THREADS_PAY_NBYTES = 4 * 1024 * 1024


def run_sliced(work: Callable[[int], int], count: int, *, done: Callable[[int], None] | None = None) -> None:
    """Call `work(0) ... work(count - 1)`, each once, on as many threads as there are cores.

    Parameters
    ----------
    work : callable
        Does one slice, returns how many bytes that was. It should spend its time without the GIL.
    done : callable, optional
        Called in the calling thread with each slice's bytes.

    Raises
    ------
    BaseException
        What the first failing slice raised, or KeyboardInterrupt; slices under way are waited for, the others
        do not begin.
    """
    lanes = min(available_cores(), count)
    if lanes <= 1:
        for index in range(count):
            nbytes = work(index)
            if done is not None:
                done(nbytes)
        return
    remaining = iter(range(count))  # next() on a range iterator is one step under the GIL: a claim
    reports: SimpleQueue[int | BaseException] = SimpleQueue()
    stopped: list[bool] = []

    def lane() -> None:
        try:
            for index in remaining:
                if stopped:
                    return
                reports.put(work(index))
        except BaseException as error:
            reports.put(error)

    # Each thread runs in a copy of this context: np.errstate and config.override hold there too.
    threads = [
        Thread(target=copy_context().run, args=(lane,), name=f"shmarray-transfer-{index}", daemon=True)
        for index in range(lanes)
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in range(count):
            report = reports.get()
            if isinstance(report, BaseException):
                raise report
            if done is not None:
                done(report)
    finally:
        stopped.append(True)
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def copy_parallel(target: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> None:
    """`np.copyto(target, source, casting="unsafe")`, by threads where that pays. `source` broadcasts."""
    if target.nbytes < _THREADS_PAY_NBYTES or target.dtype.hasobject or source.dtype.hasobject:
        np.copyto(target, source, casting="unsafe")
        return
    spread = np.broadcast_to(source, target.shape)
    _by_pieces(target, lambda piece: np.copyto(target[piece], spread[piece], casting="unsafe"))


def fill_parallel(target: np.ndarray[Any, Any], value: Any) -> None:
    """`target[...] = value`, by threads where that pays."""
    if target.nbytes < _THREADS_PAY_NBYTES:
        target[...] = value
        return

    def fill(piece: tuple[slice, ...]) -> None:
        target[piece] = value

    _by_pieces(target, fill)


def _by_pieces(target: np.ndarray[Any, Any], work: Callable[[tuple[slice, ...]], None]) -> None:
    """Cut `target` along the dimension that lies outermost in memory among those long enough to cut."""
    pieces = math.ceil(target.nbytes / SLICE_NBYTES) if target.nbytes > 2 * SLICE_NBYTES else 2
    axis = max(range(target.ndim), key=lambda axis: (target.shape[axis] >= 2, abs(target.strides[axis])))
    extent = target.shape[axis]
    step = max(1, -(-extent // pieces))
    before = (slice(None),) * axis

    def one(index: int) -> int:
        work((*before, slice(index * step, (index + 1) * step)))
        return 0

    run_sliced(one, -(-extent // step))
