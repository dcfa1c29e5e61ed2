"""Workers that die, raise, or never end: the result is exact, or the error names the chunks."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import shmarray as sa

N_CHUNKS, CHUNK = 8, 16


def numbered() -> sa.SharedArray:
    """An array whose items are the numbers of their chunks."""
    return sa.array(np.repeat(np.arange(N_CHUNKS), CHUNK), chunks=CHUNK)


def once(path):
    """A function that is true at its first call with `path`, whichever process asks."""

    def first(path=str(path)):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    return first


def works(pool) -> bool:
    """Whether the pool does a call on all of its lanes."""
    a, b = numbered(), numbered()

    @sa.chunkwise(jit=False)
    def double(chunk):
        return chunk * 2

    double(a, out=b, pool=pool)
    return np.array_equal(b, np.asarray(a) * 2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT], ids=lambda n: n.name)
def test_a_worker_killed_in_a_chunk_costs_nothing_but_time(pool, tmp_path, number, caplog):
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


def test_a_store_far_out_of_range_kills_a_worker_and_not_the_program(pool):
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


def test_in_place_the_chunks_of_unknown_content_are_named_and_all_others_done_once(pool):
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
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.chunks, again.pid) == (type(error), error.chunks, error.pid)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_chunk_that_always_kills_fails_after_its_tries(pool, tmp_path, retries):
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


def test_an_endless_kernel_is_killed_at_its_timeout_and_others_finish(pool):
    a, b = numbered(), numbered()
    b[:] = -1

    @sa.chunkwise
    def endless(chunk):
        n = 0
        while chunk[0] == 1:
            n += 1
            if n < 0:
                break
        return chunk * 2

    endless(numbered()[:CHUNK], out=numbered()[:CHUNK], pool=pool)  # compiled and told
    with pytest.raises(sa.KernelTimeoutError) as caught:
        endless(a, out=b, pool=pool, timeout=0.5, chunks=CHUNK)
    error = caught.value
    assert error.chunks == (1,)
    assert error.unknown == ()
    assert (error.kernel, error.timeout_s) == ("endless", 0.5)
    expected = np.repeat(np.arange(N_CHUNKS), CHUNK) * 2
    done = np.arange(N_CHUNKS * CHUNK) // CHUNK != 1
    np.testing.assert_array_equal(np.asarray(b)[done], expected[done])
    assert pickle.loads(pickle.dumps(error)).chunks == (1,)
    assert works(pool)


def test_a_timeout_names_every_chunk_that_is_not_done_also_beyond_the_first_dispatch(pool):
    a = sa.zeros(70_000, np.int8, chunks=1)

    @sa.chunkwise
    def endless(chunk):
        while chunk[0] == 0:
            pass
        chunk[0] = 1

    with pytest.raises(sa.KernelTimeoutError) as caught:
        endless(a, pool=pool, timeout=0.3)
    assert caught.value.chunks == tuple(range(70_000))
    assert set(caught.value.unknown) <= {0, 1}
    assert works(pool)


def test_a_timeout_that_is_not_reached_changes_nothing(pool):
    a, b = numbered(), numbered()

    @sa.elementwise
    def triple(x):
        return 3 * x

    np.testing.assert_array_equal(triple(a, pool=pool, timeout=60), np.asarray(a) * 3)
    triple(a, out=b, pool=pool, timeout=60)
    np.testing.assert_array_equal(b, np.asarray(a) * 3)
    np.testing.assert_array_equal(triple(np.arange(4), pool=pool, timeout=60), [0, 3, 6, 9])


@pytest.mark.parametrize("status", [0, 3])
def test_os_exit_in_a_chunk_is_a_death_with_its_status(pool, status):
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


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_exceptions_that_end_programs_do_not_end_workers(pool, kind):
    a, b = numbered(), numbered()
    pids = {worker.pid for worker in pool.workers}

    @sa.chunkwise(jit=False)
    def leave(chunk):
        if chunk[0] == 2:
            raise kind("bye")
        return chunk

    with pytest.raises(sa.KernelError, match="bye") as caught:
        leave(a, out=b, pool=pool)
    assert caught.value.chunk == 2
    assert isinstance(caught.value.__cause__, kind)
    assert {worker.pid for worker in pool.workers} == pids


def test_a_kernel_that_raises_tells_the_chunk_and_where_it_was(pool):
    a, b = numbered(), numbered()

    @sa.chunkwise(jit=False)
    def careful(chunk):
        if chunk[0] == 6:
            raise LookupError("nothing of that kind")
        return chunk * 2

    with pytest.raises(
        sa.KernelError, match="careful raised in chunk 6 of 8: LookupError: nothing of that kind"
    ) as caught:
        careful(a, out=b, pool=pool)
    error = caught.value
    assert (error.kernel, error.chunk) == ("careful", 6)
    assert isinstance(error.__cause__, LookupError)
    (note,) = error.__cause__.__notes__
    assert 'raise LookupError("nothing of that kind")' in note or "in careful" in note
    assert pickle.loads(pickle.dumps(error)).chunk == 6
    assert works(pool)


def test_an_exception_class_of_the_program_itself_comes_back_as_that_class(pool):
    class Peculiar(Exception):
        def __init__(self, number):
            super().__init__(f"number {number}")
            self.number = number

        def __reduce__(self):
            return Peculiar, (self.number,)

    a, b = numbered(), numbered()

    @sa.chunkwise(jit=False)
    def fail(chunk):
        raise Peculiar(int(chunk[0]))

    with pytest.raises(sa.KernelError) as caught:
        fail(a, out=b, pool=pool)
    cause = caught.value.__cause__
    assert isinstance(cause, Peculiar)
    assert cause.number == caught.value.chunk


def test_an_exception_that_does_not_pickle_is_told_as_text(pool):
    a, b = numbered(), numbered()

    @sa.chunkwise(jit=False)
    def fail(chunk):
        raise ValueError("with a frame", sys._getframe())

    with pytest.raises(sa.KernelError, match="with a frame") as caught:
        fail(a, out=b, pool=pool)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert works(pool)


def test_an_exception_that_does_not_unpickle_in_the_caller_is_told_as_text(pool):
    caller = os.getpid()

    def make():
        if os.getpid() == caller:
            raise ZeroDivisionError("not here")
        return Odd()

    class Odd(Exception):
        def __reduce__(self):
            return make, ()

    a, b = numbered(), numbered()

    @sa.chunkwise(jit=False)
    def fail(chunk):
        raise Odd("only there")

    with pytest.raises(sa.KernelError, match="only there") as caught:
        fail(a, out=b, pool=pool)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_every_lane_may_fail_at_once():
    with sa.pool.Pool(10) as many:
        a = sa.zeros(40, chunks=1)

        @sa.chunkwise(jit=False)
        def fail(chunk, chunk_info):
            raise ValueError(f"in {chunk_info.number}")

        for _ in range(3):
            with pytest.raises(sa.KernelError) as caught:
                fail(a, out=sa.zeros(40, chunks=1), pool=many)
            assert str(caught.value.chunk) in str(caught.value.__cause__)
        assert works(many)


def test_a_compiled_kernel_that_raises_names_its_chunk_wherever_it_ran(pool):
    a, b = sa.array(np.arange(512)), sa.empty(512, np.int64)

    @sa.elementwise
    def check(x):
        if x == 300:
            raise ValueError("300 is not taken")
        return x

    with sa.config.override(parallel_nbytes=0, chunk_nbytes=64):
        for _ in range(20):
            with pytest.raises(sa.KernelError, match="300 is not taken") as caught:
                check(a, out=b, pool=pool)
            assert caught.value.chunk == 37


def test_after_deaths_and_failures_in_one_call_the_unknown_chunks_are_named_too(pool, tmp_path):
    a = numbered()
    dead = str(tmp_path / "dead")

    @sa.chunkwise(jit=False)
    def both(chunk):
        number = int(chunk[0])
        chunk += 100
        if number == 2:
            open(dead, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 7:
            while not os.path.exists(dead):
                pass
            raise ValueError("chunk seven")

    with pytest.raises(sa.KernelError, match="chunk seven") as caught:
        both(a, pool=pool)
    assert caught.value.chunk == 7
    assert any("chunk 2 in place: the content is unknown" in note for note in caught.value.__notes__)


def test_what_cannot_be_pickled_or_compiled_fails_before_anything_runs(pool):
    a = numbered()
    before = np.asarray(a).copy()
    lock = threading.Lock()

    @sa.chunkwise(jit=False)
    def unpicklable(chunk):
        with lock:
            chunk += 1

    @sa.chunkwise
    def uncompilable(chunk):
        chunk += chunk.no_such_attribute

    with pytest.raises(TypeError, match="unpicklable cannot be sent to the workers"):
        unpicklable(a, pool=pool)
    with pytest.raises(sa.KernelCompileError, match=r"test_workers\.py"):
        uncompilable(a, pool=pool)
    np.testing.assert_array_equal(a, before)


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


def test_a_function_whose_unpickling_raises_is_an_error_of_the_call(pool):
    a, b = numbered(), numbered()

    class Bad:
        def __reduce__(self):
            return int, ("not a number",)

    bad = Bad()

    @sa.chunkwise(jit=False)
    def touch(chunk):
        return chunk, bad

    with pytest.raises(sa.KernelError, match="before its first chunk: ValueError"):
        touch(a, out=b, pool=pool)
    assert works(pool)


def test_row_37_bad_arguments_fail_before_dispatch(pool):
    a = numbered()
    before = np.asarray(a).copy()

    @sa.chunkwise(jit=False)
    def double(chunk):
        return chunk * 2

    with pytest.raises(TypeError):
        double(a, out=np.empty(a.shape, a.dtype), pool=pool)
    with pytest.raises(ValueError, match="shape"):
        double(a, out=sa.empty(3, a.dtype), pool=pool)
    with pytest.raises(ValueError, match="shares memory"):
        double(a[:-1], out=a[1:], pool=pool)
    frozen = numbered()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        double(a, out=frozen, pool=pool)
    with pytest.raises(ValueError, match="timeout"):
        double(a, out=numbered(), timeout=0)
    with pytest.raises(ValueError, match="retries"):
        double(a, out=numbered(), retries=-1)
    with pytest.raises(TypeError, match="pool"):
        double(a, out=numbered(), pool=3)
    np.testing.assert_array_equal(a, before)


def test_a_timeout_ends_endless_work_on_small_private_operands_too(pool):
    @sa.elementwise
    def stuck(x):
        while x == 3:
            pass
        return x

    @sa.reduction(identity=0, combine=lambda a, b: a + b)
    def stuck_sum(total, x):
        while x == 3:
            pass
        return total + x

    private = sa.array([1, 2, 3]) + 0
    assert not private.is_shared
    # Not at the first call's price: the compiler's time counts, and starts before the kernel's.
    np.testing.assert_array_equal(stuck(private[:2], timeout=60, pool=pool), [1, 2])
    assert stuck_sum([1, 2], timeout=60, pool=pool) == 3
    for call in (
        lambda: stuck(private, timeout=0.3, pool=pool),
        lambda: stuck(private, out=private, timeout=0.3, pool=pool),
        lambda: stuck_sum([1, 2, 3], timeout=0.3, pool=pool),
    ):
        with pytest.raises(sa.KernelTimeoutError):
            call()
    np.testing.assert_array_equal(private, [1, 2, 3])
    assert works(pool)


def test_a_plan_made_on_copies_of_private_operands_is_not_used_again(pool):
    @sa.elementwise
    def shifted(x):
        return x + 1

    private, b = sa.array([1, 2, 3]) + 0, sa.empty(3, np.int64)
    for start in (1, 10):
        private[:] = start
        shifted(private, out=b, timeout=60, pool=pool)
        np.testing.assert_array_equal(b, np.full(3, start + 1))
        private[:] = start + 5
        shifted(private, out=b)
        np.testing.assert_array_equal(b, np.full(3, start + 6))
