"""Callers killed in a crash-safe call: each chunk is done or as it was, and the next opener finishes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np

import shmarray as sa
from tests.crash.prelude import PRELUDE
from tests.processes import run_python

#: Two arrays of 6 chunks that one kernel changes together, in windows of 2 chunks, and what must hold after a kill.
SETTING = (
    PRELUDE
    + """
import logging
import shmarray as sa
from shmarray.engine import commit
from shmarray.pool import worker

CHUNK, N = 16, 6
commit.WINDOW_NBYTES, commit._CHUNKS_A_LANE = 2 * 2 * CHUNK * 8, 1


@sa.elementwise(jit=False)
def turn(x, y):
    return x + 1000, y * 2 + 1


def begin():
    for name in ("x", "y"):
        sa.array(np.arange(N * CHUNK), name=name, keep=True, chunks=CHUNK, if_exists="replace")


def call(alone=True):
    if alone:
        worker._current = "this process does the chunks itself"  # as inside a worker: every step is in one process
    x, y = sa.open("x"), sa.open("y")
    turn(x, y, out=(x, y), crash_safe=True)


def look():
    # How many chunks are done, after a check that these are the first, whole, in both arrays, and known.
    x, y = np.asarray(sa.open("x")).reshape(N, CHUNK), np.asarray(sa.open("y")).reshape(N, CHUNK)
    old = np.arange(N * CHUNK).reshape(N, CHUNK)
    done = int((x == old + 1000).all(axis=1).sum())
    assert (x[:done] == old[:done] + 1000).all() and (x[done:] == old[done:]).all()
    assert (y[:done] == old[:done] * 2 + 1).all() and (y[done:] == old[done:]).all()
    assert done % 2 == 0, done  # windows are committed whole
    return done


def check_pages(done):
    for name in ("x", "y"):
        info = sa.registry.info(name)
        assert info.dirty == (0 < done < N), (info, done)
        assert not info.dirty or f"chunks 0 to {done - 1} of 6 are done" in info.dirty_reason, info
        array = sa.open(name)
        assert array.dirty == info.dirty
        array.clean()
        assert not array.dirty and not sa.registry.info(name).dirty
    registry.gc()  # killed when all was done but the scratch not yet removed, there was nothing for an opener to do
    assert files() == [f"{NAMESPACE}~x", f"{NAMESPACE}~y"], files()


def end():
    for name in ("x", "y"):
        sa.unlink(name)


begin()
call()  # what children would load anew, each of them, is loaded now
worker._current = None
"""
)


def run(code: str, **keywords) -> str:
    return run_python(SETTING + code + "\nend()\n", timeout_s=100, **keywords).stdout


def test_killed_at_any_step_each_chunk_is_done_or_as_it_was_and_is_finished():
    """The steps of the call as the engine makes it; for those of journal and replay see test_failpoints.py."""
    out = run(
        """
seen = set()
for point in ("commit", "copy"):
    for n in range(1, 200):
        begin()
        status = wait(fork(call, failpoint=f"{point}:{n}:kill"))
        assert status in (0, -signal.SIGKILL), status
        if n % 2:
            registry.gc()
            assert files() == [NAMESPACE + "~x", NAMESPACE + "~y"], files()
        done = look()
        check_pages(done)
        seen.add(done)
        if not status:
            assert done == N and n > 10, (point, done, n)
            break
    else:
        raise AssertionError("it never completes")
print(sorted(seen))
"""
    )
    assert out == "[0, 2, 4, 6]\n"


def test_killed_with_workers_at_work_the_next_opener_waits_for_these_and_finishes():
    run(
        """
begin()
for _ in range(3):
    begin()
    pid = fork(call, False)
    x = np.asarray(sa.open("x"))
    share = random.random()
    deadline = time.monotonic() + 30
    while (x >= 1000).mean() < share and time.monotonic() < deadline and not os.waitpid(pid, os.WNOHANG)[0]:
        os.sched_yield()
    else:
        try:
            os.kill(pid, signal.SIGKILL)
            wait(pid)
        except (ProcessLookupError, ChildProcessError):
            pass
    del x
    check_pages(look())
"""
    )


def test_a_holder_that_never_opened_it_again_can_finish_it_too():
    run(
        """
begin()
x = sa.open("x")
assert wait(fork(call, failpoint="commit:7:kill")) == -signal.SIGKILL
assert x.dirty and "next opener" in sa.registry.info("x").dirty_reason
x.clean()
assert not x.dirty
done = look()
assert 0 < done < N
sa.open("y").clean()
check_pages_of = [sa.registry.info(name).dirty for name in ("x", "y")]
assert check_pages_of == [False, False]

begin()
x, y = sa.open("x"), sa.open("y")
assert wait(fork(call, failpoint="commit:7:kill")) == -signal.SIGKILL
worker._current = "alone"
turn(x, y, out=(x, y), crash_safe=True)  # finishes the other's, and then does its own
assert x[0] == 2000 and x[-1] == N * CHUNK - 1 + 1000
assert x.dirty  # what the other left half done stays known
x.clean(), y.clean()
del x, y
"""
    )


def test_while_a_call_is_under_way_others_see_that_and_change_nothing():
    run(
        """
begin()
pid = fork(call, failpoint="commit:7:stop")
os.waitpid(pid, os.WUNTRACED)
x, y = sa.open("x"), sa.open("y")
before = np.asarray(x).copy()
assert x.dirty and "is under way" in sa.registry.info("x").dirty_reason
assert registry.gc() == []
for refused in (x.clean, lambda: turn(x, y, out=(x, y), crash_safe=True)):
    try:
        refused()
    except sa.ShmArrayError as error:
        assert "under way" in str(error)
    else:
        raise AssertionError("it was not refused")
assert (np.asarray(x) == before).all()
os.kill(pid, signal.SIGCONT)
assert wait(pid) == 0
assert not x.dirty
del x, y
check_pages(look())
"""
    )


def test_a_scratch_that_somebody_removed_leaves_the_array_dirty():
    run(
        """
begin()
assert wait(fork(call, failpoint="commit:7:kill")) == -signal.SIGKILL
for name in files():
    if "~." in name:
        os.unlink(f"/dev/shm/{name}")
assert sa.open("x").dirty
assert "has been removed" in sa.registry.info("x").dirty_reason
sa.open("x").clean()
"""
    )


def test_a_child_forked_in_a_call_neither_ends_it_nor_keeps_it_from_being_finished():
    run(
        """
def call_and_fork(die):
    "Forks in the middle of a window; the child unwinds through the call, as if the program went on in it."
    me, children = os.getpid(), []
    def fork_once(done, total):
        if done >= 3 and not children and os.getpid() == me:
            children.append(os.fork())
            if not children[0]:
                raise ChildProcessError
            if die:
                # The child lives on with all that it inherited, and the caller is killed.
                os.write(told, children[0].to_bytes(4, "little"))
                os.read(go_on, 1)
                os.kill(os.getpid(), signal.SIGKILL)
    x, y = sa.open("x"), sa.open("y")
    worker._current = "alone"
    try:
        turn(x, y, out=(x, y), crash_safe=True, progress=fork_once)
    except ChildProcessError:
        assert not children[0]
        del x, y
        if die:
            ctypes.CDLL(None).prctl(1, 0)
            os.write(told, b"free")
            signal.pause()
        os._exit(0)
    assert os.waitpid(children[0], 0)[1] == 0

begin()
assert wait(fork(call_and_fork, False)) == 0
assert look() == N
check_pages(N)

begin()
hear, told = os.pipe()
go_on, go = os.pipe()
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0   # PR_SET_CHILD_SUBREAPER
caller = fork(call_and_fork, True)
words = b""
while len(words) < 8:
    words += os.read(hear, 8)
assert b"free" in words
child = int.from_bytes(words.replace(b"free", b""), "little")
assert "is under way" in sa.registry.info("x").dirty_reason
os.write(go, b"x")
assert wait(caller) == -signal.SIGKILL
check_pages(look())
os.kill(child, signal.SIGKILL)
wait(child)
"""
    )


def test_a_program_killed_in_an_ordinary_call_leaves_the_array_marked(namespace: str) -> None:
    code = """
import os, signal
import numpy as np
import shmarray as sa

@sa.chunkwise(jit=False)
def change(chunk, chunk_info=None):
    if chunk_info.start[0] == 200 and os.environ.get("KILL"):
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    chunk += 1

a = sa.open("x") if "KILL" in os.environ else sa.zeros(400, name="x", keep=True, chunks=100)
change(a)
assert not a.dirty
"""
    run_python(code)
    assert not sa.registry.info("x").dirty
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "KILL": "1"}, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    array = sa.open("x")
    assert set(np.asarray(array)) <= {1.0, 2.0}
    assert array.dirty
    assert "its program was ended in the middle" in sa.registry.info("x").dirty_reason
    array.clean()
    assert not array.dirty
    assert sa.registry.info("x").dirty_reason == ""
    sa.unlink("x")
