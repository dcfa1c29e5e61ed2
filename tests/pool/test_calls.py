"""Calls from threads, signal handlers, callbacks and chunks: one after another or in place, never a deadlock."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

import shmarray as sa
from shmarray.interrupts import held_back
from tests.processes import run_python, wait_until


@sa.elementwise
def more(x):
    return x + 1


@sa.chunkwise(jit=False)
def double(chunk):
    return chunk * 2


def arrays():  # not a fixture: pytest would hold them until after the check that nothing is left
    a = sa.array(np.repeat(np.arange(8), 16), chunks=16)
    return a, sa.empty(a.shape, a.dtype, chunks=16)


def test_two_threads_call_kernels_at_once(pool):
    failures = []

    def work(value):
        try:
            for _ in range(10):
                a = sa.full(1 << 18, float(value))
                assert np.all(np.asarray(more(a, pool=pool)) == value + 1)
                b = sa.full(64, value, chunks=8)
                double(b, out=b, pool=pool)
                assert np.all(np.asarray(b) == 2 * value)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_a_call_from_a_progress_callback_runs_in_place(pool):
    a, b = arrays()
    seen = []

    def progress(done, total):
        seen.append((done, total))
        inner = sa.zeros(1 << 18)
        more(inner, out=inner)
        assert np.all(np.asarray(inner) == 1)
        double(inner, out=inner)
        assert pool.held_by_this_thread
        assert len(pool.workers) == 2

    double(a, out=b, pool=pool, progress=progress)
    np.testing.assert_array_equal(b, np.asarray(a) * 2)
    assert seen[-1] == (8, 8)


def test_a_call_from_a_signal_handler_runs_in_place(pool):
    a, b = arrays()
    c = sa.ones(1 << 18)
    runs = []

    def handler(number, frame):
        inner = sa.zeros(1 << 17)
        more(inner, out=inner)
        d = sa.array(np.arange(32), chunks=4)
        double(d, out=d)
        runs.append(bool(np.all(np.asarray(inner) == 1)) and d[31] == 62)

    before = signal.signal(signal.SIGALRM, handler)
    moment, armed = np.random.default_rng(3), 0
    try:
        while len(runs) < 12:
            if armed == len(runs):  # one at a time: the handler may take longer than the call it interrupts
                armed += 1
                signal.setitimer(signal.ITIMER_REAL, moment.uniform(1e-5, 2e-3))
            double(a, out=b, pool=pool)
            np.testing.assert_array_equal(b, np.asarray(a) * 2)
            assert np.all(np.asarray(more(c, pool=pool)) == 2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(runs)


def test_a_call_from_inside_a_chunk_in_a_worker_runs_in_place(pool):
    a, b = arrays()

    @sa.chunkwise(jit=False)
    def nested(chunk):
        import numpy as np

        import shmarray as sa

        @sa.elementwise
        def plus(x):
            return x + 1

        @sa.chunkwise(jit=False)
        def add(part):
            part += 10

        inner = sa.array(np.array(chunk))
        add(inner)
        big = sa.zeros(1 << 18)
        plus(big, out=big)
        return np.asarray(plus(inner)) + int(big[-1])

    nested(a, out=b, pool=pool)
    np.testing.assert_array_equal(b, np.asarray(a) + 12)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("size", [64, 1 << 22])
def test_what_a_callback_raises_reaches_the_caller_and_leaves_the_pool_usable(pool, kind, size):
    a, b = arrays()
    c = sa.zeros(size)

    def progress(done, total):
        raise kind("from the callback")

    with pytest.raises(kind, match="from the callback"):
        double(a, out=b, pool=pool, progress=progress)
    with pytest.raises(kind, match="from the callback"):
        more(c, pool=pool, progress=progress)
    assert not pool.held_by_this_thread
    double(a, out=b, pool=pool)
    np.testing.assert_array_equal(b, np.asarray(a) * 2)


def test_progress_counts_up_to_the_total_over_deaths_and_dispatches(pool, tmp_path):
    path = str(tmp_path / "died")
    a = sa.zeros(70_000, np.int8, chunks=1)
    b = sa.zeros(70_000, np.int8, chunks=1)

    @sa.chunkwise(jit=False)
    def one(chunk, chunk_info):
        if chunk_info.number == 69_000 and not os.path.exists(path):
            open(path, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return chunk + 1

    seen = []
    one(a, out=b, pool=pool, progress=lambda done, total: seen.append((done, total)))
    assert (np.asarray(b) == 1).all()
    assert seen[-1] == (70_000, 70_000)
    assert all(0 <= done <= total for done, total in seen)


def test_a_pool_cannot_be_closed_from_inside_its_own_call():
    a, b = arrays()
    with sa.pool.Pool(2) as pool:
        for close in (pool.close, pool.terminate):
            with pytest.raises(RuntimeError, match="from inside a call"):
                double(a, out=b, pool=pool, progress=lambda done, total, close=close: close())
        double(a, out=b, pool=pool)
        np.testing.assert_array_equal(b, np.asarray(a) * 2)


def test_closing_waits_for_the_call_of_another_thread(tmp_path):
    a, b = arrays()
    go, path = str(tmp_path / "go"), str(tmp_path / "begun")

    @sa.chunkwise(jit=False)
    def wait(chunk):
        open(path, "w").close()
        while not os.path.exists(go):
            pass
        return chunk + 5

    pool = sa.pool.Pool(2)
    caller = threading.Thread(target=lambda: wait(a, out=b, pool=pool))
    caller.start()
    wait_until(lambda: os.path.exists(path))
    closer = threading.Thread(target=pool.close)
    closer.start()
    open(go, "w").close()
    caller.join(30)
    closer.join(30)
    assert pool.closed
    np.testing.assert_array_equal(b, np.asarray(a) + 5)


def test_terminating_ends_the_call_of_another_thread_with_an_error(tmp_path):
    a, b = arrays()
    path = str(tmp_path / "begun")
    raised = []

    @sa.chunkwise(jit=False)
    def forever(chunk):
        open(path, "w").close()
        while True:
            pass

    pool = sa.pool.Pool(2)

    def call():
        try:
            forever(a, out=b, pool=pool)
        except Exception as error:
            raised.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    wait_until(lambda: os.path.exists(path))
    pool.terminate()
    caller.join(30)
    assert not caller.is_alive()
    assert isinstance(raised[0], sa.WorkerDiedError)
    assert "forever: the pool was terminated" in str(raised[0])


def test_a_call_that_waits_for_another_threads_call_keeps_its_timeout(pool, tmp_path):
    a, b = arrays()
    go, path = str(tmp_path / "go"), str(tmp_path / "begun")

    @sa.chunkwise(jit=False)
    def wait(chunk):
        open(path, "w").close()
        while not os.path.exists(go):
            pass
        return chunk

    caller = threading.Thread(target=lambda: wait(a, out=b, pool=pool))
    caller.start()
    try:
        wait_until(lambda: os.path.exists(path))
        with pytest.raises(sa.KernelTimeoutError) as caught:
            double(a, out=sa.empty(a.shape, a.dtype, chunks=16), pool=pool, timeout=0.05)
        assert caught.value.chunks == tuple(range(8))
    finally:
        open(go, "w").close()
        caller.join(30)


def test_a_program_that_ends_while_a_daemon_thread_is_in_a_call_ends():
    run_python(
        """
import os, threading
import shmarray as sa
a = sa.zeros(64, chunks=8)

@sa.chunkwise(jit=False)
def forever(chunk):
    os.write(1, b"x")
    while True:
        pass

def call():
    try:
        forever(a)
    except BaseException:
        pass

threading.Thread(target=call, daemon=True).start()
while not any(w.state == "busy" for w in sa.get_pool().workers):
    pass
"""
    )


def test_ctrl_c_waits_at_the_end_of_a_held_back_block():
    done = []

    def press():
        with held_back() as outer:
            with held_back() as inner:
                signal.raise_signal(signal.SIGINT)
                done.append(inner.pressed)
            done.append(outer.pressed)

    with pytest.raises(KeyboardInterrupt):
        press()
    assert done == [True, True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_holding_back_respects_the_programs_own_handler_and_other_threads():
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with held_back():
            signal.raise_signal(signal.SIGINT)
            assert heard == []
        assert heard == [signal.SIGINT]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with held_back() as interrupt:
            signal.raise_signal(signal.SIGINT)
        assert not interrupt.pressed
    finally:
        signal.signal(signal.SIGINT, before)

    def elsewhere():
        with held_back() as interrupt:
            heard.append(interrupt.pressed)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert heard == [signal.SIGINT, False]
