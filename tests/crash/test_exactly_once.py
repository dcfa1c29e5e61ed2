"""Crash-safe calls whose workers are killed, by themselves and by others: every element is changed exactly once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time

import numpy as np
import pytest

import shmarray as sa
from shmarray.engine import commit

N_CHUNKS, CHUNK = 24, 32


@sa.elementwise
def step(x):
    return 3 * x + 1


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Windows of 8 chunks, so that a call has several."""
    monkeypatch.setattr(commit, "WINDOW_NBYTES", 8 * CHUNK * 8)
    monkeypatch.setattr(commit, "_CHUNKS_A_LANE", 2)


@pytest.fixture(params=[None, "kept"], ids=["unnamed", "named"])
def name(request):
    return request.param


def numbers(name=None):
    return sa.array(np.arange(N_CHUNKS * CHUNK), name=name, chunks=CHUNK)


def test_rows_28_and_29_killed_at_any_moment_the_result_is_exact_to_the_bit(pool, request):
    kills = request.config.getoption("--worker-kills")
    a, expected = numbers("stormed"), np.arange(N_CHUNKS * CHUNK)
    choose = random.Random(28)

    def apply():
        nonlocal expected
        step(a, out=a, crash_safe=True, pool=pool, retries=10)
        expected = 3 * expected + 1
        np.testing.assert_array_equal(a, expected)

    apply()  # compiles, and starts the workers
    began = time.monotonic()
    for _ in range(4):
        apply()
    took = (time.monotonic() - began) / 4
    killed: list[int] = []
    while len(killed) < kills:
        # Those that are up: three in a row that are killed before they did anything are taken for unable to start.
        victims = [worker.pid for worker in pool.workers if worker.state != "starting"]
        killer = threading.Timer(choose.random() * 2 * took, _kill, [choose.choice(victims) if victims else 0, killed])
        killer.start()
        apply()
        killer.join()
    print(f"{len(killed)} workers killed; every element was changed exactly once by each call")
    assert not a.dirty


def _kill(pid, killed):
    if pid:
        with contextlib.suppress(ProcessLookupError):  # it was replaced meanwhile: another call's kill was late
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)


@pytest.mark.parametrize("point", ["copy.array", "copy.done"])
def test_row_29_workers_killed_around_the_copy_leave_it_to_others_and_at_last_to_the_caller(point, monkeypatch):
    monkeypatch.setenv("SHMARRAY_FAILPOINT", f"{point}:1:kill")  # every worker, at its first copy
    a = sa.array(np.arange(3 * CHUNK), name="copied", chunks=CHUNK)
    with sa.pool.Pool(2) as doomed:
        step(a, out=a, crash_safe=True, pool=doomed, retries=0)
    np.testing.assert_array_equal(a, 3 * np.arange(a.size) + 1)
    assert not a.dirty


def test_several_outputs_are_committed_together(pool, tmp_path):
    x, y = numbers("x"), numbers("y")
    path = str(tmp_path / "killed")

    @sa.elementwise(jit=False)
    def exchanged(x, y):
        if x == 500:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return y + 1, x * 2

    exchanged(x, y, out=(x, y), crash_safe=True, pool=pool)
    np.testing.assert_array_equal(x, np.arange(x.size) + 1)
    np.testing.assert_array_equal(y, np.arange(x.size) * 2)
    assert os.path.exists(path)


@pytest.mark.parametrize("jit", [True, False])
def test_functions_that_change_their_chunk_are_given_its_old_content_again(pool, tmp_path, jit, name):
    a, b = numbers(name), numbers()
    if not jit:
        b.flags.writeable = False  # plain Python may change whatever it can
    path = str(tmp_path / "killed")

    def add(chunk, other):
        chunk += other

    def add_and_die(chunk, other):
        chunk += other
        if chunk[0] in (2 * 3 * CHUNK, 2 * 20 * CHUNK):
            try:
                os.close(os.open(f"{path}{chunk[0]}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

    sa.map_chunks(add if jit else add_and_die, a, b, jit=jit, crash_safe=True, pool=pool)
    np.testing.assert_array_equal(a, 2 * np.arange(a.size))
    np.testing.assert_array_equal(b, np.arange(a.size))
    assert jit or len(os.listdir(tmp_path)) == 2


def test_in_place_with_a_halo_every_chunk_sees_the_old_values(pool, name):
    a = numbers(name)

    @sa.chunkwise(halo=1, jit=False)
    def spread(chunk, chunk_info):
        before, after = chunk_info.before[0], chunk_info.after[0]
        wide = np.pad(chunk, (1 - before, 1 - after))
        return wide[:-2] + wide[2:]

    with pytest.raises(ValueError, match="crash_safe=True"):
        spread(a, out=a, pool=pool)
    spread(a, out=a, crash_safe=True, pool=pool)
    wide = np.pad(np.arange(a.size), 1)
    np.testing.assert_array_equal(a, wide[:-2] + wide[2:])


def test_row_36_a_kernel_that_raises_leaves_chunks_done_or_untouched_and_says_which(pool, name):
    a = numbers(name)

    @sa.elementwise(jit=False)
    def fail(x):
        if x == 10 * CHUNK:
            raise ValueError("in chunk ten")
        return x + 1

    with pytest.raises(sa.KernelError, match="in chunk 10 of 24") as caught:
        fail(a, out=a, crash_safe=True, pool=pool)
    assert any("chunks 0 to 7 of 24 are done" in note for note in caught.value.__notes__)
    old = np.arange(a.size)
    np.testing.assert_array_equal(a, np.where(old < 8 * CHUNK, old + 1, old))
    assert a.dirty
    a.clean()
    with pytest.raises(sa.KernelError) as caught:
        fail(a[10 * CHUNK :], out=a[10 * CHUNK :], crash_safe=True, pool=pool)
    assert any("has changed nothing" in note for note in caught.value.__notes__)
    np.testing.assert_array_equal(a, np.where(old < 8 * CHUNK, old + 1, old))
    assert not a.dirty


def test_a_timeout_leaves_chunks_done_or_untouched(pool):
    a = numbers()

    @sa.chunkwise(jit=False)
    def stall(chunk):
        chunk += 1
        while chunk[0] == 12 * CHUNK + 1:
            pass

    with pytest.raises(sa.KernelTimeoutError) as caught:
        stall(a, crash_safe=True, timeout=4, pool=pool)
    assert caught.value.unknown == ()
    old = np.arange(a.size)
    np.testing.assert_array_equal(a, np.where(old < 8 * CHUNK, old + 1, old))


def test_views_of_any_strides_and_private_arrays_are_changed_once(pool):
    a = sa.array(np.arange(600).reshape(20, 30), chunks=(4, 7))
    view, expected = a.T[::-2, 1::3], np.arange(600).reshape(20, 30)
    step(view, out=view, crash_safe=True, pool=pool)
    expected.T[::-2, 1::3] = 3 * expected.T[::-2, 1::3] + 1
    np.testing.assert_array_equal(a, expected)
    private = sa.array(np.arange(10)) + 0
    assert not private.is_shared
    for _ in range(2):
        step(private, out=private, crash_safe=True, pool=pool)
    np.testing.assert_array_equal(private, 9 * np.arange(10) + 4)


def test_arguments_that_share_memory_are_refused_where_both_cannot_be_changed_safely(pool):
    a = numbers()

    @sa.chunkwise
    def add(chunk, other):
        chunk += other

    with pytest.raises(ValueError, match="arguments 0 and 1 share memory"):
        add(a, a, crash_safe=True, pool=pool)
    with pytest.raises(TypeError, match="crash_safe must be True or False"):
        step(a, out=a, crash_safe=1, pool=pool)


def test_progress_counts_over_all_parts(pool):
    a, seen = numbers(), []
    step(a, out=a, crash_safe=True, pool=pool, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (N_CHUNKS, N_CHUNKS)


# ---------------------------------------------------------------------- without it


def test_row_30_the_array_remembers_that_chunks_are_unknown_until_somebody_accepts_it(pool):
    a = numbers("spoilt")

    @sa.chunkwise(jit=False)
    def die(chunk):
        first = int(chunk[0])
        chunk += 1
        if first in (2 * CHUNK, 6 * CHUNK):
            os.kill(os.getpid(), signal.SIGKILL)

    assert not a.dirty
    with pytest.raises(sa.ChunksUnknownError) as caught:
        die(a, pool=pool)
    assert caught.value.chunks == (2, 6)
    info = sa.registry.info("spoilt")
    assert info.dirty
    assert info.dirty_reason.startswith("die changed it in place, and ")
    assert "SIGKILL" in info.dirty_reason
    assert sa.open("spoilt", mode="r").dirty
    with pytest.raises(sa.SegmentAccessError):
        sa.open("spoilt", mode="r").clean()
    a.clean()
    assert not a.dirty
    assert not sa.registry.info("spoilt").dirty


def test_results_that_are_new_or_elsewhere_make_nothing_dirty(pool, tmp_path):
    a, b = numbers(), numbers()

    @sa.chunkwise(jit=False)
    def fail(chunk):
        if chunk[0] == 5 * CHUNK:
            raise ValueError
        return chunk

    with pytest.raises(sa.KernelError):
        fail(a, out=b, pool=pool)
    assert not a.dirty
    assert not b.dirty
