"""The lock: exclusive among threads and processes, recursive, given back when its holder dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray.errors import LockTimeoutError, SegmentAccessError
from tests.second_process import Peer

ROOT = Path(__file__).parents[2]


def holder(name: str, body: str = "") -> subprocess.Popen[bytes]:
    """A process that holds the lock of array `name` by the time this returns, and until its standard input ends."""
    program = f"""
import os, sys, shmarray
a = shmarray.open({name!r})
with a.lock():
    {body or "pass"}
    print("held", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def finish(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        process.communicate(timeout=30)


def shared() -> sa.SharedArray:
    return sa.zeros(4)


def private() -> sa.SharedArray:
    return sa.zeros(4) + 0


#: Functions, not a fixture's arrays: pytest would hold these past the check that nothing is left.
both = pytest.mark.parametrize("make", [shared, private])


@both
def test_it_is_recursive_and_one_for_all_views(make: Callable[[], sa.SharedArray]) -> None:
    array = make()
    with array.lock(), array[::2].lock(timeout=0), array.reshape(2, 2).lock(0):
        pass
    with array.lock(timeout=0):
        pass


def test_it_says_of_what_it_is_and_who_holds_it() -> None:
    named, unnamed, memory = sa.zeros(1, name="shown"), shared(), private()
    assert repr(named.lock(timeout=2)) == "<lock of array 'shown', free, waits 2 s>"
    assert repr(unnamed.lock()) == "<lock of this unnamed array, free, waits for ever>"
    told: list[str] = []
    for array, holder_elsewhere in ((named, f"thread {threading.get_native_id()}"), (memory, "another thread")):
        lock = array.lock()
        with lock:
            assert "held by this thread" in repr(lock)
            thread = threading.Thread(target=lambda lock=lock: told.append(repr(lock)))
            thread.start()
            thread.join()
        assert f"held by {holder_elsewhere}," in told[-1]
        assert ", free, " in repr(lock)
    with pytest.raises(AttributeError, match=r"no attribute 'acquire': take it by `with array\.lock\(\):`"):
        named.lock().acquire()


@both
def test_threads_exclude_each_other(make: Callable[[], sa.SharedArray]) -> None:
    array = make()

    def count() -> None:
        for _ in range(200):
            with array.lock(timeout=60):
                array[0] += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert array[0] == 800


@both
def test_a_thread_waits_until_it_is_free(make: Callable[[], sa.SharedArray]) -> None:
    array = make()
    outcome: list[Any] = []

    def attempt(timeout: float) -> None:
        try:
            with array.lock(timeout=timeout):
                outcome.append("held")
        except LockTimeoutError as error:
            outcome.append(error)

    with array.lock():
        for timeout in (0, 0.05, 0.15):
            thread = threading.Thread(target=attempt, args=(timeout,))
            thread.start()
            thread.join()
        assert [type(entry) for entry in outcome] == [LockTimeoutError] * 3
        assert outcome[0].timeout_s == 0
        waiting = threading.Thread(target=attempt, args=(60,))
        waiting.start()
    waiting.join()
    assert outcome[-1] == "held"


def test_processes_exclude_each_other() -> None:
    a = sa.zeros(1, name="between")
    process = holder("between")
    with pytest.raises(LockTimeoutError, match="'between'") as caught, a.lock(timeout=0.01):
        pass
    assert caught.value.name == "between"
    finish(process)
    with a.lock(timeout=30) as lock:
        assert not lock.recovered


def test_row_46_a_killed_holder_gives_it_back_at_once() -> None:
    a = sa.zeros(1, name="killed")
    process = holder("killed")
    process.kill()
    with a.lock(timeout=30) as lock:
        assert lock.recovered
    finish(process)
    with a.lock(timeout=30) as lock:
        assert not lock.recovered


def test_row_46_a_forked_child_of_the_killed_holder_does_not_keep_it() -> None:
    a = sa.zeros(2, int, name="forked")
    process = holder(
        "forked", "child = os.fork(); a[1 if child else 0] = child or os.getpid(); child or sys.stdin.read()"
    )
    process.kill()
    process.wait()
    with a.lock(timeout=30) as lock:
        assert lock.recovered
        if a[1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(a[1]), signal.SIGKILL)
    finish(process)


def test_a_child_forked_under_the_lock_holds_nothing() -> None:
    a = sa.zeros(1)
    with a.lock():
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with a.lock(timeout=0):
                    pass
            except LockTimeoutError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with a.lock(timeout=0):
            pass


def test_leaving_the_block_in_a_forked_child_leaves_the_parents_hold() -> None:
    a = sa.zeros(1)
    child = 1
    with a.lock():
        child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with a.lock(timeout=30) as lock:
        assert not lock.recovered


def test_a_thread_that_ends_with_it_gives_it_back() -> None:
    a = sa.zeros(1)
    thread = threading.Thread(target=a.lock().__enter__)
    thread.start()
    thread.join()
    with a.lock(timeout=30) as lock:
        assert lock.recovered


def test_counting_from_two_processes_loses_nothing(peer: Peer) -> None:
    a = sa.zeros(1, int)

    def here() -> None:
        for _ in range(300):
            with a.lock(timeout=60):
                a[0] += 1

    thread = threading.Thread(target=here)
    thread.start()
    peer.evaluate(
        "[exec('with a.lock(timeout=60): a[0] += 1', {'a': args[0]}) for _ in range(300)]",
        a,
    )
    thread.join()
    assert a[0] == 600


def test_ctrl_c_reaches_a_waiter() -> None:
    a = sa.zeros(1, name="wait")
    process = holder("wait")
    timer = threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt), a.lock(timeout=100):
        pass
    timer.join()
    assert time.monotonic() - before < 100
    finish(process)
    with a.lock(timeout=30):
        pass


def test_a_held_lock_keeps_its_pages_mapped() -> None:
    a = sa.zeros(100)
    lock = a.lock()
    with lock:
        del a
        other = sa.zeros(100)
        with other.lock(timeout=0):
            pass
    del lock


def test_read_only_and_copy_on_write_mappings_cannot_be_locked() -> None:
    a = sa.zeros(1, name="ro")
    for mode in ("r", "c"):
        with pytest.raises(SegmentAccessError, match="mode='r\\+'"):
            sa.open("ro", mode).lock()  # type: ignore[arg-type]
    del a


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_impossible_timeouts_are_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        sa.zeros(1).lock(timeout)


def test_private_memory_of_plain_arrays_has_one_lock_too() -> None:
    plain = np.zeros(3)
    one, two = plain.view(sa.SharedArray), plain[1:].view(sa.SharedArray)
    with one.lock():
        outcome: list[bool] = []

        def attempt() -> None:
            with contextlib.suppress(LockTimeoutError), two.lock(timeout=0):
                outcome.append(True)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert outcome == []
