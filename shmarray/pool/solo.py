"""Running a job on this thread alone: below the size where workers pay, inside a worker, or inside another call.

The same drivers need the same page to claim chunks from, so each thread has a private one, and so has each process:
a child forked in the middle of a call goes on with a copy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from shmarray.interrupts import raised_by_handler
from shmarray.pool.lane import Lane
from shmarray.pool.outcome import Failure, Outcome
from shmarray.pool.page import FPE, MAX_CHUNKS, ChunkState, DispatchPage

__all__ = ["run_alone"]

_BITE_NS = 20_000_000
_thread = threading.local()


def run_alone(
    caller: Callable[[Lane, int], int],
    start: int,
    stop: int,
    watch: Callable[[int], object] | None = None,
) -> Outcome:
    """Do chunks `start` to `stop` on this thread.

    Parameters
    ----------
    caller : callable
        Runs the job on a lane for a number of nanoseconds; 0 when no chunk is left.
    start, stop : int
        Any number of chunks.
    watch : callable, optional
        Told the number of chunks done, every few milliseconds and at the end.

    Returns
    -------
    Outcome
        Complete, or with the failure that ended it.
    """
    lane = _lane()
    page, calls = lane.page, lane.calls
    outcome = Outcome()
    _thread.lane = None  # in use: a call made from inside a chunk gets a page of its own
    try:
        for first in range(start, stop, MAX_CHUNKS):
            last = min(stop, first + MAX_CHUNKS)
            calls.publish(page.address, 0, first, last, 0)
            while True:
                try:
                    if not caller(lane, _BITE_NS):
                        break
                except Exception as error:
                    if raised_by_handler(error) is not None:
                        raise
                    outcome.failures.append(Failure.of(lane.mark_failed(), error))
                    break
                if watch is not None:
                    watch(first - start + int(np.count_nonzero(page.states[: last - first] == ChunkState.DONE)))
            calls.settle(page.address, 0, 0, 0)
            outcome.floating_flags |= int(page.words[page.slot(0, FPE)])
            if outcome.failures:
                outcome.untouched.extend(range(outcome.failures[0].chunk + 1, stop))
                return outcome
        if watch is not None:
            watch(stop - start)
    except BaseException:
        calls.cancel(page.address)
        calls.settle(page.address, 0, 0, 0)
        raise
    finally:
        _thread.lane = lane
    return outcome


def _lane() -> Lane:
    lane: Lane | None = getattr(_thread, "lane", None)
    if lane is None:
        page = DispatchPage.create(private=True)
        page.close_descriptor()
        lane = Lane(0, page)
    return lane
