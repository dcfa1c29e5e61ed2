"""Code that one process compiled runs in another."""

from __future__ import annotations

import importlib.util
import math
import pickle
import shutil
import subprocess
from pathlib import Path

import numba
import numpy as np
import pytest

from shmarray import jit
from shmarray.errors import KernelCompileError
from tests.jit.loops import apply, asserts, binary, compiled, whole

X = np.linspace(0.0, 4.0, 9)
Y = np.linspace(1.0, 2.0, 9)
FACTOR = 3.0
SMALL_TABLE = np.array([1.0, 10.0, 100.0, 1000.0, 10000.0])
LARGE_TABLE = np.arange(200_000.0)
STRIDED_TABLE = np.arange(20.0)[::-2]


@numba.njit
def helper(x):
    return x * x + FACTOR


@numba.njit
def fibonacci(n):
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)


@numba.njit
def is_even(n):
    if n == 0:
        return True
    return is_odd(n - 1)


@numba.njit
def is_odd(n):
    if n == 0:
        return False
    return is_even(n - 1)


def plain_helper(x):
    return x / 2


def recursive(x, y):
    if x < 1.0:
        return y
    return recursive(x - 1.0, y) + 1.0


def calls_recursive(x, y):
    return fibonacci(int(x)) + y


def calls_mutual(x, y):
    return y if is_even(int(x)) else -y


def calls_helpers(x, y):
    return helper(x) + plain_helper(y)


def closure_over(power):
    def kernel(x, y):
        return x**power + y

    return kernel


def reads_small_table(x, y):
    return SMALL_TABLE[int(x)] + y


def reads_large_table(x, y):
    return LARGE_TABLE[int(x) + 150_000] + y


def reads_strided_table(x, y):
    return STRIDED_TABLE[int(x)] + y


def reads_through_helper(x, y):
    return large_helper(x) + y


@numba.njit
def large_helper(x):
    return LARGE_TABLE[int(x)]


def inner_function(x, y):
    def square(value):
        return value * value

    return square(x) + square(y)


def dot(x, y):
    y[0] = np.dot(x, y)


def keyword_defaults(x, y, z=2.0):
    return x + y * z


def sorts(x, y):
    y[:] = np.sort(np.concatenate((x, y)))[: y.size]


@pytest.mark.filterwarnings("ignore::numba.NumbaPerformanceWarning")
def test_every_kind_of_kernel_travels_as_machine_code(run_elsewhere):
    elementwise = [
        (lambda x, y: 2.5 * x + y, 2.5 * X + Y),
        (closure_over(3), X**3 + Y),
        (calls_helpers, X * X + FACTOR + Y / 2),
        (recursive, np.floor(X) + Y),
        (calls_recursive, np.array([0, 0, 1, 1, 1, 1, 2, 2, 3]) + Y),
        (calls_mutual, np.where(X.astype(int) % 2 == 0, Y, -Y)),
        (reads_small_table, SMALL_TABLE[X.astype(int)] + Y),
        (reads_large_table, X.astype(int) + 150_000 + Y),
        (reads_strided_table, STRIDED_TABLE[X.astype(int)] + Y),
        (reads_through_helper, X.astype(int) + Y),
        (inner_function, X * X + Y * Y),
        (keyword_defaults, X + Y * 2),
        (lambda x, y: x / (y - 1.0), None),
        (calls_vectorized, X + 1.0 + Y),
    ]
    with np.errstate(all="ignore"):
        elementwise[-2] = (elementwise[-2][0], X / (Y - 1.0))
    on_arrays = [(sorts, np.sort(np.concatenate((X, Y)))[: X.size])]
    if importlib.util.find_spec("scipy") is not None:  # numba takes its BLAS from there
        on_arrays.append((dot, np.concatenate(([X @ Y], Y[1:]))))
    tasks, expected = [], []
    for kernels, driver in ((elementwise, binary), (on_arrays, whole)):
        for function, result in kernels:
            code = compiled(function, driver=driver)
            assert code.is_machine_code, function
            np.testing.assert_allclose(apply(code.entry, X, Y), result, rtol=1e-14)
            tasks.append((code.payload, X, Y))
            expected.append(result)
    results, statistics = run_elsewhere(*tasks)
    for got, result, (function, _) in zip(results, expected, elementwise + on_arrays, strict=True):
        np.testing.assert_allclose(got, result, rtol=1e-14, err_msg=str(function))
    assert statistics.compiled == 0
    assert statistics.received == len(tasks)


@numba.vectorize
def vectorized_helper(x, y):
    return x + 1.0 + y


def calls_vectorized(x, y):
    return vectorized_helper(x, y)


def raises_static(x, y):
    if x > 3.0:
        raise ValueError("too large")
    return y


def raises_dynamic(x, y):
    if x > 3.0:
        raise ValueError("too large", x)
    return y


def reads_outside(x, y):
    return SMALL_TABLE[int(x) + 3] + y


def test_exceptions_survive_the_journey(run_elsewhere):
    kernels = [raises_static, raises_dynamic, asserts]
    codes = [compiled(kernel) for kernel in kernels] + [compiled(reads_outside, debug=True)]
    results, _ = run_elsewhere(*((code.payload, X, Y) for code in codes))
    for result, kind, text in zip(
        results,
        (ValueError, ValueError, AssertionError, IndexError),
        ("too large", "('too large', 3.5)", "no more than three", "index is out of bounds"),
        strict=True,
    ):
        assert type(result) is kind
        assert str(result) == text
    for code, kind in zip(codes, (ValueError, ValueError, AssertionError, IndexError), strict=True):
        with pytest.raises(kind):
            apply(code.entry, X, Y)


def test_division_by_zero_gives_what_numpy_gives():
    with np.errstate(all="ignore"):
        expected = Y / (X - 1.0)
    np.testing.assert_array_equal(apply(compiled(lambda x, y: y / (x - 1.0)).entry, X, Y), expected)


def polynomial(x):
    low = ((((0.1 * x + 0.2) * x + 0.3) * x + 0.4) * x + 0.5) * x + 0.6
    high = ((((0.7 * x + 0.8) * x + 0.9) * x + 1.1) * x + 1.2) * x + 1.3
    return (low * x + high) * (high * x + low)


def of_many_instructions(x, y):
    # More than LLVM inlines on its own.
    one = polynomial(x) * polynomial(y) + polynomial(x + y) * polynomial(x - y)
    other = polynomial(x * y) * polynomial(x + 2.0 * y) + polynomial(y - 3.0 * x) * polynomial(x + 5.0 * y)
    return one * polynomial(other) + other * polynomial(one) + polynomial(one + other)


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump reads the machine code")
@pytest.mark.parametrize("kernel", [lambda x, y: 2.5 * x + y, of_many_instructions])
def test_user_function_is_inlined_and_the_loop_vectorised(tmp_path: Path, kernel):
    code = compiled(kernel)
    fields, _, _ = pickle.loads(code.payload[8:])
    from shmarray.jit.objectcode import ObjectCode

    (tmp_path / "code.o").write_bytes(ObjectCode.from_bytes(fields).elf)
    listing = subprocess.run(
        ["objdump", "-d", str(tmp_path / "code.o")], capture_output=True, text=True, check=True
    ).stdout
    assert any(packed in listing for packed in ("mulpd", "fmadd213pd", "fmadd132pd", "fmadd231pd", "fmul\tv"))


_SAME_NAMES = """
import sys
from tests.jit.loops import compiled
exec_constant = float(sys.argv[2])
def make(constant):
    def kernel(x, y):
        if x < 0.0:
            return kernel(-x, y)
        return x * constant + y
    return kernel
code = compiled(make(exec_constant))
with open(sys.argv[1], "wb") as file:
    file.write(code.payload)
"""


def test_codes_of_two_processes_with_the_same_names_do_not_mix(run_program, tmp_path):
    entries = []
    for constant in ("2", "3"):
        run_program(_SAME_NAMES, str(tmp_path / constant), constant)
        entries.append(jit.load((tmp_path / constant).read_bytes()))
    for entry, constant in zip(entries, (2.0, 3.0), strict=True):
        np.testing.assert_array_equal(apply(entry, -X, Y), X * constant + Y)


def test_code_with_a_c_functions_address_travels_as_source_or_says_that_it_cannot():
    import ctypes

    c_function = ctypes.CDLL(None).cos
    c_function.argtypes, c_function.restype = (ctypes.c_double,), ctypes.c_double
    code = compiled(lambda x, y: c_function(x) + y)
    np.testing.assert_allclose(apply(code.entry, X, Y), np.cos(X) + Y)
    assert not code.is_machine_code
    with pytest.raises(KernelCompileError, match="cannot be sent to worker processes"):
        code.payload  # noqa: B018


def with_object_mode(x, y):
    with numba.objmode(result="float64"):
        result = math.floor(x)
    return result + y


def test_object_mode_blocks_travel(run_elsewhere):
    code = compiled(with_object_mode)
    results, _ = run_elsewhere((code.payload, X, Y))
    np.testing.assert_array_equal(results[0], np.floor(X) + Y)


def recursive_over_large_table(x, y):
    if x < 1.0:
        return LARGE_TABLE[150_000] + fibonacci(7) + y
    return recursive_over_large_table(x - 1.0, y)


@pytest.mark.filterwarnings("ignore::numba.NumbaPerformanceWarning")
def test_code_over_unknown_memory_travels_as_source(run_elsewhere):
    # Nothing in this key tells what arrays the code reads.
    scalar = jit.scalar(recursive_over_large_table)
    code = jit.compile(binary(scalar), (numba.int64,) * 4, key="an array nobody knows")
    assert not code.is_machine_code
    results, statistics = run_elsewhere((code.payload, X, Y))
    np.testing.assert_array_equal(results[0], 150_013.0 + Y)
    assert statistics.compiled == 1


def test_something_else_than_a_payload_is_refused():
    with pytest.raises(ValueError, match=r"a payload of jit\.compile was expected"):
        jit.load(b"not a payload at all")


def test_the_second_request_for_a_code_calls_no_factory():
    scalar = jit.scalar(lambda x, y: x - y)
    arguments = (numba.int64,) * 4
    first = jit.compile(binary(scalar), arguments, key=("minus", jit.fingerprint(scalar)))

    def never():
        raise AssertionError("the factory was called")

    assert jit.compile(never, arguments, key=("minus", jit.fingerprint(scalar))) is first
