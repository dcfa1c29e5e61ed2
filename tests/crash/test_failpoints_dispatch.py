"""Every step of a dispatch, on the caller's side and in a worker: killed there, stopped there, refused there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.prelude import PRELUDE
from tests.processes import run_python

BEGIN = """
import contextlib, io, threading
import shmarray as sa
from shmarray.errors import ShmArrayError, WorkerDiedError

action = sys.argv[1]

@sa.chunkwise(jit=False)
def double(chunk):
    return chunk * 2

def call(pool, work=double, value=1):
    "One call with arrays of its own, so that segments are mapped and given back; its result is exact."
    a = sa.full(64, value, "i8", chunks=64)
    b = sa.empty(64, "i8", chunks=64)
    work(a, out=b, pool=pool)
    told, result = np.divmod(np.asarray(b), 1000)
    assert np.all(result == 2 * value), result
    return int(told[0])

def state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
"""

CALLER = """
import numba, shmarray.pool.dispatch   # once, before the children are forked
shmarray_calls = shmarray.pool.dispatch.calls()
assert libc.prctl(36, 1, 0, 0, 0) == 0   # PR_SET_CHILD_SUBREAPER: workers whose caller was killed become ours

def run_to_the_end():
    with shmarray.pool.Pool(1) as pool:
        call(pool)
    registry.trim()

def killed_at(*steps):
    "The exit codes of callers killed at these steps, once their workers are gone too."
    callers = [fork(run_to_the_end, failpoint=f"dispatch:{n}:kill") for n in steps]
    codes = []
    until = time.monotonic() + 30
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return codes
        if pid in callers:
            codes.append(os.waitstatus_to_exitcode(status))
        assert time.monotonic() < until, "a worker outlives its caller"
        time.sleep(0.002 if pid == 0 else 0)

n = 0
while True:
    codes = killed_at(n + 1, n + 2)   # two at once: most of the time they wait for an interpreter to start
    assert set(codes) <= {0, -signal.SIGKILL}, codes
    registry.gc()
    assert files() == [], (n, files())
    if 0 in codes:
        break
    n += 2
print(n)
"""

# In one process, whose pool lives on: what is refused or stopped is a call on a pool that is up.
CALLER_ALIVE = """
import shmarray.pool
me = os.getpid()
if action == "stop":
    def wake_me():
        while True:
            time.sleep(0.001)
            if state(me) == "T":
                os.kill(me, signal.SIGCONT)
    waker = fork(wake_me)
with shmarray.pool.Pool(1) as pool, contextlib.redirect_stderr(io.StringIO()):
    call(pool)
    for n in range(1, 300):
        number = (24, 28)[n % 2]   # EMFILE, ENOSPC
        failpoints._passed = 0
        failpoints._SPEC = f"dispatch:{n}:{'stop' if action == 'stop' else f'errno={number}'}"
        try:
            call(pool)
        except (ShmArrayError, OSError) as error:
            assert action == "errno" and str(error), error
        passed = failpoints._passed
        failpoints._SPEC = ""
        call(pool, value=5)
        if passed < n:
            break
print(n - 1)
if action == "stop":
    os.kill(waker, signal.SIGKILL)
    wait(waker)
"""

WORKER = """
import shmarray.pool
def armed_once(point, n):
    token = f"{sys.argv[2]}/{point}-{n}"
    spec = f"{point}:{n}:{action if action != 'errno' else 'errno=5'}"
    @sa.chunkwise(jit=False)
    def double(chunk):
        import os
        from shmarray.segment import failpoints
        try:
            os.close(os.open(token, os.O_CREAT | os.O_EXCL))
            failpoints._SPEC, failpoints._passed = spec, 0
        except FileExistsError:
            pass
        return chunk * 2
    return double

@sa.chunkwise(jit=False)
def double_and_tell(chunk):
    "Doubles, and adds a thousand for each step passed since the arming."
    from shmarray.segment import failpoints
    failpoints._SPEC = ""
    return chunk * 2 + 1000 * failpoints._passed

with shmarray.pool.Pool(1) as pool, contextlib.redirect_stderr(io.StringIO()):
    call(pool)
    over = threading.Event()
    def wake():
        while not over.wait(0.002):
            for worker in pool.workers:
                if state(worker.pid) == "T":
                    os.kill(worker.pid, signal.SIGCONT)
    waker = threading.Thread(target=wake, daemon=True)
    if action == "stop":
        waker.start()
    count = 0
    # An error of the wait or of the socket ends a worker, which is what a kill does too.
    for point in ("worker.map", "worker.finish") if action == "errno" else ("worker",):
        for n in range(1, 300):
            before = pool.workers[0].pid
            passed = n
            try:
                call(pool, armed_once(point, n), 1)
                passed = call(pool, double_and_tell, 2)
            except (ShmArrayError, OSError) as error:
                assert action == "errno" and str(error), error
            call(pool)
            if pool.workers[0].pid == before and passed < n:
                break
            count += 1
    over.set()
    if action == "stop":
        waker.join()
print(count)
"""


@pytest.mark.parametrize("action", ["kill", "stop", "errno"])
def test_a_caller_at_every_step_of_a_dispatch(action: str) -> None:
    code = "libc = ctypes.CDLL(None)\n" + CALLER if action == "kill" else CALLER_ALIVE
    done = run_python(PRELUDE + BEGIN + code, action, timeout_s=240.0)
    assert int(done.stdout) >= 8


@pytest.mark.parametrize("action", ["kill", "stop", "errno"])
def test_a_worker_at_every_step_of_a_dispatch(action: str, tmp_path: Path) -> None:
    done = run_python(PRELUDE + BEGIN + WORKER, action, str(tmp_path), timeout_s=240.0)
    assert int(done.stdout) >= (3 if action == "errno" else 8)
