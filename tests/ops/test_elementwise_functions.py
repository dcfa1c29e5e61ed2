"""What a scalar function may be, what is refused, and what goes wrong inside of one."""

from __future__ import annotations

import math
import pickle

import numba
import numpy as np
import pytest

import shmarray as sa
from tests.ops.scalar_kernels import axpy

SMALL_TABLE = np.array([10.0, 20.0, 30.0, 40.0])
LARGE_TABLE = np.arange(200_000, dtype=np.float64)  # more than 1 MB: numba reads it in place
OFFSET = 7


@sa.elementwise
def from_small_table(i):
    return SMALL_TABLE[i]


@sa.elementwise(debug=True)
def from_small_table_checked(i):
    return SMALL_TABLE[i]


@sa.elementwise
def from_large_table(i):
    return LARGE_TABLE[i] + OFFSET


@sa.elementwise
def positive(x):
    if x < 0:
        raise ValueError("negative")
    return x


@sa.elementwise
def looked_up(i):
    if i >= 4:
        raise IndexError("no such entry")
    return i


@numba.njit
def jitted_square(x):
    return x * x


def plain_cube(x):
    return x * x * x


@sa.elementwise
def calls_others(x):
    return jitted_square(x) + plain_cube(x)


@sa.elementwise
def fibonacci(n):
    if n < 2:
        return n
    a, b = 0, 1
    for _ in range(n - 1):
        a, b = b, a + b
    return b


@numba.njit(numba.int64(numba.int64))
def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)


@sa.elementwise
def recursive(n):
    return factorial(n)


# ---------------------------------------------------------------------- what a function may be


def test_closures_and_lambdas():
    factor = 3.5

    def scaled(x):
        return factor * x

    assert np.array_equal(sa.elementwise(scaled)(sa.array(np.arange(4.0))), 3.5 * np.arange(4.0))
    assert np.array_equal(sa.elementwise(lambda x: -x)(sa.array([1, 2])), [-1, -2])


def test_two_closures_of_one_code_differ_by_what_they_hold():
    kernels = [sa.elementwise(lambda x, n=n: x + n) for n in (1, 2)]
    del kernels  # defaults are arguments too; closure cells are not

    def make(n):
        return sa.elementwise(lambda x: x + n)

    assert [make(n)(sa.array([10])).tolist() for n in (1, 2)] == [[11], [12]]


def test_functions_that_call_others():
    assert np.array_equal(calls_others(sa.array([1.0, 2.0, 3.0])), [2.0, 12.0, 36.0])


def test_loops_and_recursion(everywhere):
    n = np.arange(15)
    assert fibonacci(sa.array(n, chunks=4)).tolist() == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377]
    assert recursive(sa.array(n, chunks=4)).tolist() == [math.factorial(i) for i in n]


def test_global_tables_small_and_large(everywhere):
    i = np.random.default_rng(6).integers(0, 4, 1000)
    assert np.array_equal(from_small_table(sa.array(i, chunks=100)), SMALL_TABLE[i])
    i = np.random.default_rng(6).integers(0, LARGE_TABLE.size, 1000)
    assert np.array_equal(from_large_table(sa.array(i, chunks=100)), LARGE_TABLE[i] + OFFSET)


def test_a_function_under_njit_may_be_decorated():
    assert sa.elementwise(jitted_square)(sa.array([3.0])).tolist() == [9.0]


def test_kernels_show_their_function():
    assert axpy.__name__ == "axpy"
    assert axpy.__wrapped__(2, 3, 4) == 10
    assert "axpy" in repr(axpy)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda *xs: 0, "fixed number"),
        (lambda **xs: 0, "fixed number"),
        (lambda x, *, y: 0, "fixed number"),
        (lambda: 0, "takes no argument"),
        (3, "takes a function; got 3"),
        (int, "takes a function"),
    ],
)
def test_functions_that_cannot_be_kernels_are_refused_when_decorated(function, message):
    with pytest.raises(TypeError, match=message):
        sa.elementwise(function)


@pytest.mark.parametrize(
    ("result", "words"),
    [(None, r"nothing \(None\)"), ((), "a tuple of 0 values"), ("a", "text"), (np.zeros(2), "an array of 1 dimension")],
    ids=["None", "empty", "text", "array"],
)
def test_a_function_that_gives_no_number_is_refused_before_anything_runs(result, words):
    def gives(x):
        return result

    with pytest.raises(TypeError, match=f"gives must return a number, or a tuple of numbers.*it returns {words}"):
        sa.elementwise(gives)(sa.ones(3))


def test_a_function_whose_paths_return_different_things_is_told_so():
    def sometimes(x):
        if x > 0:
            return x

    with pytest.raises(
        TypeError, match=r"sometimes: on some paths it returns nothing \(None\): return a value on every"
    ):
        sa.elementwise(sometimes)(sa.ones(3))

    def mixed(x):
        if x > 0:
            return "a"
        return 1

    with pytest.raises(sa.KernelCompileError, match=r"different kinds of values on different paths \(.*str"):
        sa.elementwise(mixed)(sa.ones(3))


def test_what_numba_cannot_compile_is_named_with_its_line(everywhere):
    def hopeless(x):
        y = x + 1
        return y.no_such_attribute

    line = hopeless.__code__.co_firstlineno + 2
    out = sa.full(3, -1.0)
    with pytest.raises(sa.KernelCompileError, match=r"hopeless.*jit=False") as caught:
        sa.elementwise(hopeless)(sa.ones(3), out=out)
    assert caught.value.lineno == line
    assert caught.value.filename == __file__
    assert "hopeless" in caught.value.kernel
    assert out.tolist() == [-1.0] * 3
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), TypeError)


# ---------------------------------------------------------------------- what goes wrong inside


@pytest.mark.parametrize("parallel_nbytes", [0, 10**9])
def test_exceptions_name_kernel_and_chunk(parallel_nbytes):
    x = np.ones(100)
    x[42] = -1
    with (
        sa.config.override(parallel_nbytes=parallel_nbytes),
        pytest.raises(sa.KernelError, match=r"positive raised in chunk 4 of 10: ValueError: negative") as caught,
    ):
        positive(sa.array(x, chunks=10))
    assert (caught.value.kernel, caught.value.chunk) == ("positive", 4)
    assert isinstance(caught.value.__cause__, ValueError)
    assert not isinstance(caught.value, IndexError)


def test_index_errors_are_index_errors_too(everywhere):
    with pytest.raises(IndexError, match="looked_up raised in chunk 1 of 2") as caught:
        looked_up(sa.array([0, 1, 2, 9], chunks=2))
    assert isinstance(caught.value, sa.KernelError)


def test_debug_checks_bounds(everywhere):
    assert from_small_table_checked(sa.array([0, 3])).tolist() == [10.0, 40.0]
    with pytest.raises(IndexError, match="from_small_table_checked raised in chunk 1 of 2"):
        from_small_table_checked(sa.array([0, 1, 2, 99], chunks=2))


@sa.elementwise
def takes_milliseconds(x):
    for _ in range(3_000_000):
        x = x * 0.999 + 1.0
    return x


def test_a_timeout_holds_where_nobody_can_be_killed(monkeypatch):
    # Inside a worker a call runs on its own thread: what is too slow ends between two items.
    monkeypatch.setattr("shmarray.engine.execution.current_worker", lambda: "this one")
    out = sa.full(4000, -1.0)
    with pytest.raises(sa.KernelTimeoutError, match=r"not done within its timeout of 0\.1 s: chunk 0 of 1") as caught:
        takes_milliseconds(sa.ones(4000), out=out, timeout=0.1)
    assert caught.value.chunks == (0,)
    assert out[-1] == -1.0
