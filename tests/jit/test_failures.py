"""What numba cannot compile is one error with the line at fault."""

from __future__ import annotations

import pickle

import numba
import numpy as np
import pytest

from shmarray import jit
from shmarray.errors import KernelCompileError
from tests.jit.loops import binary, compiled


def line_of(function, text):
    import inspect

    lines, first = inspect.getsourcelines(getattr(function, "py_func", function))
    return first + next(number for number, line in enumerate(lines) if text in line)


def adds_text(x):
    text = "text"
    return x + text


def unknown_name(x):
    y = x + 1
    return undefined_thing(y)  # noqa: F821


def unknown_attribute(x):
    return np.not_there(x)


def two_types(x):
    if x > 1:
        return "a"
    return 1


@numba.njit
def users_helper(x):
    y = x + 1
    return y + "text"


def calls_helper(x):
    return users_helper(x)


def never_ends(x):
    return never_ends(x)


def opens_a_file(x):
    with open("file") as file:
        return file.read(x)


def numpy_function_that_numba_lacks(x):
    return np.einsum("i", x)


#: As far as numba's words tell, numba alone refuses these.
FINE_IN_PYTHON = (unknown_attribute, never_ends, opens_a_file, numpy_function_that_numba_lacks)


@pytest.mark.parametrize(
    ("function", "at", "text", "reason"),
    [
        (adds_text, adds_text, "x + text", r"numba has no add\(float64, str\)"),
        (unknown_name, unknown_name, "undefined_thing(y)", "'undefined_thing' is not defined"),
        (unknown_attribute, unknown_attribute, "def unknown", "'not_there'"),
        (calls_helper, users_helper, 'y + "text"', "add"),
        (never_ends, never_ends, "return never_ends(x)", "recursion"),
        (opens_a_file, opens_a_file, "def opens_a_file", "not supported"),
        (numpy_function_that_numba_lacks, numpy_function_that_numba_lacks, "np.einsum", "unsupported NumPy"),
    ],
)
def test_the_error_names_function_line_and_reason(function, at, text, reason):
    with pytest.raises(KernelCompileError, match=reason) as caught:
        jit.return_type(jit.scalar(function), (numba.float64,))
    error = caught.value
    assert error.kernel == function.__name__
    assert error.filename == __file__
    assert error.lineno == line_of(at, text)
    assert str(error).startswith(f"numba cannot compile {function.__name__} ({__file__}:{error.lineno}): ")
    assert len(str(error).splitlines()) == 1
    assert str(error).endswith("; jit=False runs it as plain Python") == (function in FINE_IN_PYTHON)
    assert isinstance(error, TypeError)
    assert error.__cause__ is not None
    assert pickle.loads(pickle.dumps(error)).lineno == error.lineno


def three_dimensional_norm(x):
    return np.linalg.norm(np.zeros((2, 2, 2))) + x


def test_the_cause_is_what_numba_says_without_how_it_searched():
    for function, shown in (
        (calls_helper, ("No implementation of function", 'y + "text"', "calls_helper", "^")),
        (three_dimensional_norm, ("only supported on 1 and 2-D arrays", "three_dimensional_norm", "^")),
        (unknown_name, ("NameError: name 'undefined_thing' is not defined",)),
    ):
        with pytest.raises(KernelCompileError) as caught:
            jit.return_type(jit.scalar(function), (numba.float64,))
        error = caught.value
        cause = str(error.__cause__)
        assert all(part in cause for part in shown)
        assert not any(noise in cause for noise in ("During: ", "Failed in nopython", "candidate impl", "Overload of"))
        assert len(cause.splitlines()) < len(error.numba_message.splitlines())
        assert "Failed in nopython mode" in pickle.loads(pickle.dumps(error)).numba_message


def test_two_result_types_name_one_of_the_lines():
    with pytest.raises(KernelCompileError, match="different kinds of values on different paths") as caught:
        jit.return_type(jit.scalar(two_types), (numba.float64,))
    assert caught.value.lineno in (line_of(two_types, '"a"'), line_of(two_types, "return 1"))


def test_a_wrong_number_of_arguments_is_told():
    with pytest.raises(KernelCompileError, match="1 argument types given, but function takes 2"):
        jit.return_type(jit.scalar(lambda x, y: x), (numba.float64,))


def test_a_driver_that_does_not_compile_names_the_kernel():
    scalar = jit.scalar(adds_text)
    with pytest.raises(KernelCompileError, match="numba cannot compile adds_text") as caught:
        jit.compile(binary(scalar), (numba.int64,) * 4, key="fails", kernel=adds_text)
    assert caught.value.kernel == "adds_text"
    with pytest.raises(KernelCompileError):  # again: a failure is no result
        jit.compile(binary(scalar), (numba.int64,) * 4, key="fails", kernel=adds_text)


def test_a_function_without_source_has_a_line_as_well(run_program):
    printed = run_program(
        "import numba\nfrom shmarray import jit\n"
        "try:\n    jit.return_type(jit.scalar(lambda x: x.nothing), (numba.int64,))\n"
        "except Exception as error:\n    print(type(error).__name__, error.filename, error.lineno)"
    )
    assert printed.split() == ["KernelCompileError", "<string>", "4"]


def test_the_program_goes_on_after_a_failure():
    with pytest.raises(KernelCompileError):
        jit.return_type(jit.scalar(adds_text), (numba.float64,))
    assert compiled(lambda x, y: x + y).is_machine_code
