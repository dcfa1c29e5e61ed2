"""The life of pools: sizes, several at once, closing, and the programs that workers must not run again."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

import shmarray as sa
from shmarray.pool import available_cores
from tests.processes import run_python, wait_until


def ask(pool, question):
    """What a question (a function of nothing) gives in each worker of a pool, by pid; the workers are up afterwards."""
    n = 64
    a, answers = sa.zeros(n, chunks=1), sa.zeros((n, 256), np.uint8, chunks=(1, 256))

    @sa.chunkwise(jit=False)
    def put(chunk):
        text = f"{os.getpid()} {question()}".encode()[:256]
        chunk[0, : len(text)] = np.frombuffer(text, np.uint8)

    put(answers, pool=pool, chunks=(1, 256))
    del a
    found = {}
    for row in np.asarray(answers):
        pid, _, answer = bytes(row).rstrip(b"\0").decode().partition(" ")
        found[int(pid)] = answer
    return found


def test_sizes_come_from_the_argument_the_configuration_and_the_machine(monkeypatch):
    assert sa.pool.Pool(3).lanes == 3
    monkeypatch.setattr(sa.config, "workers", 5)
    assert sa.pool.Pool().lanes == 5
    monkeypatch.setattr(sa.config, "workers", None)
    assert sa.pool.Pool().lanes == available_cores()
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert sa.pool.Pool().lanes == 1
    for wrong in (0, -1, 1.5, 100_000):
        with pytest.raises(ValueError, match="processes must be an integer from 1"):
            sa.pool.Pool(wrong)


def test_a_pool_starts_no_worker_before_it_needs_one():
    with sa.pool.Pool(2) as pool:
        assert pool.crew is None
        assert "0 started" in repr(pool)
        assert len(pool.workers) == 2
        assert "2 started" in repr(pool)


def test_several_pools_work_side_by_side(pool):
    a = sa.array(np.arange(32), chunks=4)

    @sa.chunkwise(jit=False)
    def add(chunk):
        chunk += 1

    with sa.pool.Pool(1) as one:
        for _ in range(2):
            for each in (one, pool):
                add(a, pool=each)
        pids = [worker.pid for each in (one, pool) for worker in each.workers]
        assert len(set(pids)) == 1 + 2
    np.testing.assert_array_equal(a, np.arange(32) + 4)


def test_a_closed_pool_takes_no_work_and_says_so():
    pool = sa.pool.Pool(2)
    pids = [worker.pid for worker in pool.workers]
    pool.close()
    pool.close()
    pool.terminate()
    a = sa.array(np.arange(32), chunks=4)

    @sa.chunkwise(jit=False)
    def add(chunk):
        chunk += 1

    for use in (lambda: add(a, pool=pool), lambda: pool.workers):
        with pytest.raises(ValueError, match="this pool is closed; make another"):
            use()
    assert "closed" in repr(pool)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    np.testing.assert_array_equal(a, np.arange(32))


def test_a_default_pool_that_was_closed_is_made_anew(pool):
    pool.close()
    assert sa.get_pool() is not pool
    assert sa.get_pool() is sa.get_pool()


def test_a_pool_that_is_forgotten_ends_its_workers_with_a_warning():
    pool = sa.pool.Pool(2)
    pids = [worker.pid for worker in pool.workers]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del pool
        gc.collect()
    assert [str(warning.message) for warning in caught] == ["<Pool of 2 lanes, 2 started> was not closed"]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_states_of_workers(tmp_path, pool):
    a = sa.array(np.arange(2), chunks=1)
    b = sa.empty(2, a.dtype, chunks=1)
    go = str(tmp_path / "go")
    states = []

    @sa.chunkwise(jit=False)
    def wait(chunk):
        while not os.path.exists(go):
            pass
        return chunk

    def progress(done, total):
        states.append({(worker.state, worker.task) for worker in pool.workers})
        if ("busy", "wait") in states[-1]:
            open(go, "w").close()

    wait(a, out=b, pool=pool, progress=progress)
    assert any(("busy", "wait") in seen for seen in states)
    wait_until(lambda: {(worker.state, worker.task) for worker in pool.workers} == {("idle", "")})


def test_workers_have_one_thread_each_for_other_libraries(pool):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

    def question():
        import numba

        return [os.environ[name] for name in names] + [numba.config.NUMBA_NUM_THREADS]

    assert set(ask(pool, question).values()) == {"['1', '1', '1', '1', 1]"}


def test_workers_are_told_of_the_namespace_as_it_is_now(pool, namespace):
    assert set(ask(pool, lambda: sa.config.namespace).values()) == {namespace}


SCRIPT = """
import os, sys
import numpy as np
import shmarray as sa

print("main runs", flush=True)
SCALE = 3

class Point:
    def __init__(self, x):
        self.x = x

def helper(x):
    return Point(x * SCALE).x

@sa.chunkwise(jit=False)
def scale(chunk):
    return helper(chunk)

a = sa.array(np.arange(32), chunks=4)
b = sa.empty(a.shape, a.dtype, chunks=4)
sa.config.workers = 2
scale(a, out=b)
assert np.array_equal(b, np.arange(32) * 3)

@sa.elementwise
def twice(x):
    return 2 * x

c = sa.ones(1 << 19)
assert np.all(np.asarray(twice(c)) == 2)
"""


@pytest.mark.parametrize("how", ["file", "input"])
def test_scripts_need_no_guard_and_are_not_run_again_by_workers(tmp_path, how):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    command = {"file": [str(path)], "input": ["-"]}[how]  # `-c` is how tests run programs
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        input=SCRIPT if how == "input" else "",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "main runs\n"


def test_importing_the_package_loads_neither_numba_nor_logging():
    run_python(
        """
import sys, numpy
before = set(sys.modules)
import shmarray
loaded = {"numba", "cloudpickle", "click", "rich", "logging"} & (set(sys.modules) - before)
assert not loaded, loaded
"""
    )


def test_a_module_beside_the_script_that_is_called_as_one_of_the_standard_library_does_no_harm(tmp_path):
    for name in ("array", "socket", "select", "pickle"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not this one')")
    run_python(
        """
import sys
import cloudpickle, numba
import numpy as np
import shmarray as sa
a = sa.zeros(8, chunks=1)
sa.get_pool()
sys.path.insert(0, sys.argv[1])  # after the imports of this program, before those of the workers

@sa.chunkwise(jit=False)
def add(chunk):
    import sys
    assert sys.path[0] == folder
    chunk += 1

folder = sys.argv[1]
add(a)
assert np.all(np.asarray(a) == 1)
""",
        str(tmp_path),
    )
