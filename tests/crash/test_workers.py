"""Workers that die: the result is exact, or the error names the chunks."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import shmarray as sa
from tests.crash.chunks import CHUNK, N_CHUNKS, numbered, once, works


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT], ids=lambda n: n.name)
def test_row_27_a_worker_killed_in_a_chunk_costs_nothing_but_time(pool, tmp_path, number, caplog):
    a, b = numbered(), numbered()
    first = once(tmp_path / "killed")

    @sa.chunkwise(jit=False)
    def double(chunk):
        if chunk[0] == 5 and first():
            os.kill(os.getpid(), number)
        return chunk * 2

    double(a, out=b, pool=pool)
    np.testing.assert_array_equal(b, np.asarray(a) * 2)
    assert re.search(rf"killed by {number.name}\b.*; it is replaced", caplog.text)  # others may be short of memory
    assert works(pool)


def test_row_27_a_store_far_out_of_range_kills_a_worker_and_not_the_program(pool):
    a = numbered()

    @sa.chunkwise
    def wild(chunk):
        if chunk[0] == 3:
            chunk[1 << 40] = 1
        chunk += 100

    with pytest.raises(sa.ChunksUnknownError) as caught:
        wild(a, pool=pool)
    assert caught.value.chunks == (3,)
    assert caught.value.signal == signal.SIGSEGV
    others = np.asarray(a) >= 100
    assert others[: 3 * CHUNK].all()
    assert others[4 * CHUNK :].all()
    assert works(pool)


def test_row_30_in_place_the_chunks_of_unknown_content_are_named_and_all_others_done_once(pool):
    a = numbered()

    @sa.chunkwise(jit=False)
    def add(chunk):
        number = int(chunk[0])
        chunk += 100
        if number in (2, 6):
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(sa.ChunksUnknownError) as caught:
        add(a, pool=pool)
    error = caught.value
    assert error.chunks == (2, 6)
    assert (error.task, error.signal, error.exitcode) == ("add", signal.SIGKILL, None)
    assert "2 chunks (2, 6)" in str(error)
    expected = np.repeat(np.arange(N_CHUNKS), CHUNK)
    known = ~np.isin(expected, (2, 6))
    np.testing.assert_array_equal(np.asarray(a)[known], expected[known] + 100)
    assert np.all(np.asarray(a) <= expected + 100), "what may have been done is not done again"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.chunks, again.pid) == (type(error), error.chunks, error.pid)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_row_32_a_chunk_that_always_kills_fails_after_its_tries(pool, tmp_path, retries):
    a, b = numbered(), numbered()
    counter = str(tmp_path / "tries")

    @sa.chunkwise(jit=False)
    def deadly(chunk):
        if chunk[0] == 4:
            with open(counter, "a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return chunk

    with pytest.raises(sa.WorkerDiedError) as caught:
        deadly(a, out=b, pool=pool, retries=retries)
    error = caught.value
    assert not isinstance(error, sa.ChunksUnknownError)
    assert (error.task, error.chunk, error.signal) == ("deadly", 4, signal.SIGKILL)
    assert os.path.getsize(counter) == retries + 1
    again = pickle.loads(pickle.dumps(error))
    assert (again.chunk, again.pid, str(again)) == (4, error.pid, str(error))
    assert works(pool)


def test_a_chunk_that_kills_as_often_as_is_retried_gives_the_exact_result(pool, tmp_path):
    a, b = numbered(), numbered()
    counter = str(tmp_path / "tries")

    @sa.chunkwise(jit=False)
    def stubborn(chunk):
        if chunk[0] in (0, 7):
            with open(f"{counter}{chunk[0]}", "a") as file:
                file.write("x")
            if os.path.getsize(f"{counter}{chunk[0]}") <= 2:
                os.kill(os.getpid(), signal.SIGKILL)
        return chunk * 3

    stubborn(a, out=b, pool=pool, retries=2)
    np.testing.assert_array_equal(b, np.asarray(a) * 3)


@pytest.mark.parametrize("status", [0, 3])
def test_row_34_os_exit_in_a_chunk_is_a_death_with_its_status(pool, status):
    a, b = numbered(), numbered()

    @sa.chunkwise(jit=False)
    def leave(chunk):
        if chunk[0] == 2:
            os._exit(status)
        return chunk

    with pytest.raises(sa.WorkerDiedError, match=f"exited with status {status}") as caught:
        leave(a, out=b, pool=pool, retries=0)
    assert (caught.value.signal, caught.value.exitcode, caught.value.chunk) == (None, status, 2)
    assert works(pool)


@pytest.mark.parametrize("returns", [True, False], ids=["returned", "in place"])
def test_a_worker_killed_while_the_function_is_tried_costs_nothing(pool, tmp_path, returns):
    # Without out= chunk 0 shows what the function returns.
    a = numbered()
    first = once(tmp_path / "killed")

    @sa.chunkwise(jit=False)
    def touch(chunk):
        if chunk[0] == 0 and first():
            os.kill(os.getpid(), signal.SIGKILL)
        if returns:
            return chunk + 1
        chunk += 1

    result = touch(a, pool=pool)
    assert np.array_equal(result if returns else a, np.asarray(numbered()) + 1)


def test_a_function_that_kills_its_worker_on_the_first_chunk_changes_nothing(pool):
    a = numbered()

    @sa.chunkwise(jit=False)
    def touch(chunk):
        if chunk[0] == 0:
            os._exit(5)
        chunk += 1

    with pytest.raises(sa.WorkerDiedError, match="chunk 0 ended its worker 3 times"):
        touch(a, pool=pool)
    assert np.array_equal(a, numbered())
    assert works(pool)


def test_plain_functions_of_a_spawned_script(tmp_path):
    # In such a child the script is called __mp_main__, which no worker can import.
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, numpy as np, shmarray as sa\n"
        "def plus(chunk): return chunk + 1\n"
        "def child(): assert sa.map_chunks(plus, sa.zeros(9, chunks=3), jit=False).tolist() == [1.0] * 9\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=child)\n"
        "    process.start(); process.join(); assert process.exitcode == 0\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, str(script)], check=True, timeout=120, env=environment)


def test_a_function_whose_unpickling_kills_the_worker_is_an_error_not_a_loop(pool):
    a, b = numbered(), numbered()

    class Bomb:
        def __reduce__(self):
            return os._exit, (7,)

    bomb = Bomb()

    @sa.chunkwise(jit=False)
    def touch(chunk):
        return chunk, bomb

    with pytest.raises(sa.WorkerDiedError, match="died before they did anything") as caught:
        touch(a, out=b, pool=pool)
    assert (caught.value.task, caught.value.exitcode) == ("touch", 7)
    assert works(pool)
