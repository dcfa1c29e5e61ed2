"""The moves of the dispatch page, as compiled code: publish, claim, finish, settle, await_job, and a few more.

`claim` and `finish` are for the drivers of kernels, which inline them. The others are called from Python
through `calls()`. What each does to the page, and why that is safe, stands in `shmarray.pool.page`.
Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numba

from shmarray import jit
from shmarray.pool import page as at
from shmarray.pool.atomics import (
    add_i64,
    add_u32,
    await_readable,
    exit_process,
    fence,
    fill_bytes,
    futex_wait,
    futex_wake,
    load_i64,
    load_u32,
    monotonic_ns,
    pause,
    store_i64,
    store_u8,
)

__all__ = ["calls", "claim", "claim_or_resume", "finish", "leave_half_way", "over_budget", "take_progress"]

EPOCH, CONTROL, NEXT = at.EPOCH, at.CONTROL, at.NEXT
JOB, START, STOP, LIMIT = at.JOB, at.START, at.STOP, at.LIMIT
LEFT, CALLER_SLEEPS, PROGRESS = at.LEFT, at.CALLER_SLEEPS, at.PROGRESS
SLOTS, SLOT_NBYTES, STATES = at.SLOTS, at.SLOT_NBYTES, at.STATES
ACTIVE, SLEEPING, CURRENT, COUNT = at.ACTIVE, at.SLEEPING, at.CURRENT, at.COUNT
FPE, FAILED, SAID = at.FPE, at.FAILED, at.SAID
DONE = int(at.ChunkState.DONE)

#: In NEXT: past any chunk, and far enough from the largest integer that claims never wrap around.
CANCELLED = 1 << 62

_inline = numba.njit(**jit.options())


@_inline
def claim(page, lane):  # type: ignore[no-untyped-def]
    """The next chunk for this lane, or -1 when none is left."""
    index = add_i64(page + NEXT, 1)
    if index >= load_i64(page + STOP):
        return -1
    # CURRENT first: a lane killed between the two leaves a FREE chunk, which is untouched and safe to redo.
    store_i64(page + SLOTS + lane * SLOT_NBYTES + CURRENT, index)
    store_u8(page + STATES + index - load_i64(page + START), lane + 1)
    return index


@_inline
def finish(page, lane, index):  # type: ignore[no-untyped-def]
    """The chunk's output is complete."""
    store_u8(page + STATES + index - load_i64(page + START), DONE)
    count = page + SLOTS + lane * SLOT_NBYTES + COUNT
    store_i64(count, load_i64(count) + 1)


@_inline
def claim_or_resume(page, lane):  # type: ignore[no-untyped-def]
    """The chunk that this lane (the caller's) left half-way, or else the next one to claim."""
    if lane == 0 and load_i64(page + PROGRESS) != 0:
        return load_i64(page + SLOTS + CURRENT)
    return claim(page, lane)


@_inline
def take_progress(page, lane):  # type: ignore[no-untyped-def]
    """How many items of the chunk at hand are done already; from now on it counts as not left."""
    if lane != 0:
        return 0
    done = load_i64(page + PROGRESS)
    store_i64(page + PROGRESS, 0)
    return done


@_inline
def leave_half_way(page, done):  # type: ignore[no-untyped-def]
    """The caller goes back to Python with `done` (more than 0) items of its chunk done."""
    store_i64(page + PROGRESS, done)


@_inline
def over_budget(started_ns, budget_ns):  # type: ignore[no-untyped-def]
    """Whether a driver should go back to Python, where signals are seen."""
    return budget_ns > 0 and monotonic_ns() - started_ns > budget_ns


@_inline
def _quiet(page, limit):  # type: ignore[no-untyped-def]
    for lane in range(1, limit + 1):  # noqa: SIM110  # numba has no all() over a generator
        if load_i64(page + SLOTS + lane * SLOT_NBYTES + ACTIVE) != 0:
            return False
    return True


@_inline
def _settled(page, limit):  # type: ignore[no-untyped-def]
    if load_i64(page + NEXT) < load_i64(page + STOP):
        return False
    if load_u32(page + EPOCH) & 1:
        add_u32(page + EPOCH, 1)
        fence()
    return _quiet(page, limit)


def _make_publish() -> Callable[..., Any]:
    def publish(page, job, start, stop, limit):  # type: ignore[no-untyped-def]
        """Open an epoch; no lane may be active. Gives the epoch."""
        fill_bytes(page + STATES, 0, stop - start)
        for lane in range(limit + 1):
            slot = page + SLOTS + lane * SLOT_NBYTES
            store_i64(slot + COUNT, 0)
            store_i64(slot + FPE, 0)
            store_i64(slot + FAILED, 0)
            store_i64(slot + SAID, 0)
            store_i64(slot + CURRENT, -1)
        store_i64(page + PROGRESS, 0)
        store_i64(page + JOB, job)
        store_i64(page + START, start)
        store_i64(page + STOP, stop)
        store_i64(page + LIMIT, limit)
        store_i64(page + NEXT, start)
        epoch = add_u32(page + EPOCH, 1) + 1
        fence()
        for lane in range(1, limit + 1):
            if load_i64(page + SLOTS + lane * SLOT_NBYTES + SLEEPING) != 0:
                futex_wake(page + EPOCH)
                break
        return epoch

    return publish


def _make_settle() -> Callable[..., Any]:
    def settle(page, limit, spin_ns, budget_ns):  # type: ignore[no-untyped-def]
        """Wait until all is claimed and no lane is active, and close the epoch.

        0 when the budget ran out before; 1 when every chunk is done and nothing was noted; 2 when the slots want a
        look.
        """
        started = monotonic_ns()
        while not _settled(page, limit):
            waited = monotonic_ns() - started
            if waited > budget_ns:
                return 0
            if waited > spin_ns:
                left = load_u32(page + LEFT)
                store_i64(page + CALLER_SLEEPS, 1)
                fence()
                if not _settled(page, limit):
                    futex_wait(page + LEFT, left, budget_ns - waited)
                store_i64(page + CALLER_SLEEPS, 0)
            pause()
        done = 0
        noted = 0
        for lane in range(limit + 1):
            slot = page + SLOTS + lane * SLOT_NBYTES
            done += load_i64(slot + COUNT)
            noted |= load_i64(slot + FPE) | load_i64(slot + FAILED) | load_i64(slot + SAID)
        return 1 if done == load_i64(page + STOP) - load_i64(page + START) and noted == 0 else 2

    return settle


def _make_await_job() -> Callable[..., Any]:
    def await_job(page, lane, seen, control, spin_ns):  # type: ignore[no-untyped-def]
        """Leave the job `seen`, wait for another and enter it: its epoch. -1 when there are messages to read."""
        slot = page + SLOTS + lane * SLOT_NBYTES
        store_i64(slot + ACTIVE, 0)
        fence()
        if load_i64(page + CALLER_SLEEPS) != 0:
            add_u32(page + LEFT, 1)
            futex_wake(page + LEFT)
        last = load_u32(page + EPOCH)
        idle_since = monotonic_ns()
        while True:
            if load_i64(page + CONTROL) != control:
                return -1
            epoch = load_u32(page + EPOCH)
            if (epoch & 1) != 0 and epoch != seen and lane <= load_i64(page + LIMIT):
                store_i64(slot + ACTIVE, epoch)
                fence()
                if load_u32(page + EPOCH) == epoch:
                    return epoch
                store_i64(slot + ACTIVE, 0)  # closed in between; the caller may be waiting for this word
                fence()
                if load_i64(page + CALLER_SLEEPS) != 0:
                    add_u32(page + LEFT, 1)
                    futex_wake(page + LEFT)
                continue
            if epoch != last and lane <= load_i64(page + LIMIT):
                idle_since = monotonic_ns()  # calls are coming, if too short for this lane to get a share
            elif monotonic_ns() - idle_since > spin_ns:
                # A lane beyond the limit sleeps through the calls of the others: it would spin on the caller's core.
                store_i64(slot + SLEEPING, 1)
                fence()
                if load_i64(page + CONTROL) == control:
                    futex_wait(page + EPOCH, epoch, -1)
                store_i64(slot + SLEEPING, 0)
            last = epoch
            pause()

    return await_job


def _make_claim() -> Callable[..., Any]:
    def claim_one(page, lane):  # type: ignore[no-untyped-def]
        return claim(page, lane)

    return claim_one


def _make_finish() -> Callable[..., Any]:
    def finish_one(page, lane, index):  # type: ignore[no-untyped-def]
        finish(page, lane, index)
        return 0

    return finish_one


def _make_cancel() -> Callable[..., Any]:
    def cancel(page):  # type: ignore[no-untyped-def]
        """Let nobody claim any more of this epoch; any number of lanes may say so at once."""
        store_i64(page + NEXT, CANCELLED)
        return 0

    return cancel


def _make_call() -> Callable[..., Any]:
    def call(page):  # type: ignore[no-untyped-def]
        """Have all workers read their channels; no epoch may be open."""
        add_i64(page + CONTROL, 1)
        add_u32(page + EPOCH, 2)
        fence()
        return futex_wake(page + EPOCH)

    return call


def _make_exit_with() -> Callable[..., Any]:
    def exit_with(pidfd):  # type: ignore[no-untyped-def]
        """Wait for another process to end, then end this one, without the interpreter's help."""
        while await_readable(pidfd) != 1:
            pass
        return exit_process(0)

    return exit_with


class Calls(NamedTuple):
    """The moves that Python makes; each takes the page's address first. All release the interpreter lock."""

    publish: Callable[[int, int, int, int, int], int]
    settle: Callable[[int, int, int, int], int]
    await_job: Callable[[int, int, int, int, int], int]
    claim: Callable[[int, int], int]
    finish: Callable[[int, int, int], int]
    cancel: Callable[[int], int]
    call: Callable[[int], int]
    exit_with: Callable[[int], int]


@cache
def calls() -> Calls:
    """The compiled moves, from the cache on disk after the first time."""
    from numba import types

    def entry(name: str, make: Callable[[], Callable[..., Any]], arity: int) -> Any:
        return jit.compile(make, (types.int64,) * arity, key=("dispatch", name)).entry

    return Calls(
        publish=entry("publish", _make_publish, 5),
        settle=entry("settle", _make_settle, 4),
        await_job=entry("await_job", _make_await_job, 5),
        claim=entry("claim", _make_claim, 2),
        finish=entry("finish", _make_finish, 3),
        cancel=entry("cancel", _make_cancel, 1),
        call=entry("call", _make_call, 1),
        exit_with=entry("exit_with", _make_exit_with, 1),
    )
