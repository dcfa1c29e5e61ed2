"""Kernels that raise, and those that cannot begin: the error names the chunk, and nothing else is lost."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback

import numpy as np
import pytest

import shmarray as sa
from tests.crash.chunks import numbered, works


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_row_34_exceptions_that_end_programs_do_not_end_workers(pool, kind):
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


def test_row_36_a_kernel_that_raises_tells_the_chunk_and_where_it_was(pool):
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
    shown = [os.path.basename(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    assert shown == ["test_kernel_errors.py", "chunkwise.py"], "where it was called, and nothing of what is in between"
    assert note.count("File ") == 1
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
    with sa.pool.Pool(5) as many:
        a = sa.zeros(20, chunks=1)

        @sa.chunkwise(jit=False)
        def fail(chunk, chunk_info):
            raise ValueError(f"in {chunk_info.number}")

        for _ in range(3):
            with pytest.raises(sa.KernelError) as caught:
                fail(a, out=sa.zeros(20, chunks=1), pool=many)
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


def test_row_35_what_cannot_be_pickled_or_compiled_fails_before_anything_runs(pool):
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
    with pytest.raises(sa.KernelCompileError, match=r"test_kernel_errors\.py"):
        uncompilable(a, pool=pool)
    np.testing.assert_array_equal(a, before)


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
