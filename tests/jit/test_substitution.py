"""Elementary functions are replaced by what the table says, and only where the types allow it."""

from __future__ import annotations

import cmath
import math
import operator
import re
import types
from math import log as math_log

import numba
import numpy as np
import numpy as renamed
import pytest
from numpy import exp as from_numpy

from shmarray import jit
from shmarray.jit import substitution
from shmarray.kernels import math as fast  # its import registers the products, which no stub stands for
from tests.jit.loops import apply, compiled, whole

X = np.array([0.5, 1.0, 2.0])
Y = np.array([1.0, 2.0, 3.0])

alias = np.exp
user_module = types.ModuleType("user_module")


@numba.njit
def fake_exp(x):
    return type_of(x)(1000.0) + x


def type_of(x):
    raise NotImplementedError


@numba.extending.overload(type_of)
def _type_of(x):
    if x == numba.float32:
        return lambda x: np.float32
    return lambda x: np.float64


@numba.njit
def fake_power(x, y):
    return x * 100.0 + y


@numba.njit
def wrong_type(x):
    return 1


def overloaded(x):
    raise NotImplementedError


@numba.extending.overload(overloaded)
def _overloaded(x):
    return lambda x: x + 2000.0


@pytest.fixture(autouse=True)
def table(monkeypatch):
    stub = {
        np.exp: fake_exp,
        math.exp: fake_exp,
        np.power: fake_power,
        operator.pow: fake_power,
        np.sin: wrong_type,
        math.log: overloaded,
    }
    monkeypatch.setattr(substitution, "substitutes", lambda: stub)
    return stub


@numba.njit
def users_helper(x):
    return np.exp(x)


user_module.helper = users_helper


@numba.njit
def helper_of_helper(x):
    return users_helper(x)


@numba.njit
def takes_function(function, x):
    return function(x)


def plain_helper(x):
    return math.exp(x)


def through_local_module(x, y):
    module = np
    return module.exp(x)


def through_inner_function(x, y):
    def inner(value):
        return np.exp(value)

    return inner(x)


def through_escaping_lambda(x, y):
    return takes_function(lambda value: np.exp(value), x)


def in_branches(x, y):
    if x > 100.0:
        return np.exp(x) - 1.0
    value = 0.0
    for _ in range(1):
        value += np.exp(x)
    return value


def from_closure(function):
    return lambda x, y: function(x)


def negative_from_closure(function):
    return lambda x, y: -function(x)


def module_from_closure(module):
    return lambda x, y: module.exp(x)


@pytest.mark.parametrize(
    "kernel",
    [
        lambda x, y: np.exp(x),
        lambda x, y: math.exp(x),
        lambda x, y: renamed.exp(x),
        lambda x, y: from_numpy(x),
        lambda x, y: alias(x),
        from_closure(np.exp),
        from_closure(math.exp),
        module_from_closure(np),
        module_from_closure(math),
        through_local_module,
        through_inner_function,
        through_escaping_lambda,
        in_branches,
        lambda x, y: users_helper(x),
        lambda x, y: helper_of_helper(x),
        lambda x, y: plain_helper(x),
        lambda x, y: user_module.helper(x),
        lambda x, y: takes_function(users_helper, x),
        numba.njit(lambda x, y: np.exp(x)),
        numba.njit(fastmath=True)(lambda x, y: users_helper(x)),
    ],
)
def test_every_way_to_say_exp_is_replaced(kernel):
    np.testing.assert_array_equal(apply(compiled(kernel).entry, X, Y), X + 1000.0)


@pytest.mark.parametrize(
    "kernel", [lambda x, y: np.exp(x), from_closure(math.exp), lambda x, y: helper_of_helper(x), through_local_module]
)
def test_precise_functions_are_left_as_they_are(kernel):
    np.testing.assert_allclose(apply(compiled(kernel, precise=True).entry, X, Y), np.exp(X), rtol=1e-15)


def test_substitutes_may_be_overloaded_python_functions():
    np.testing.assert_array_equal(apply(compiled(lambda x, y: math_log(x)).entry, X, Y), X + 2000.0)


def test_two_arguments_and_the_operator():
    for kernel in (lambda x, y: np.power(x, y), lambda x, y: x**y):
        np.testing.assert_array_equal(apply(compiled(kernel).entry, X, Y), X * 100 + Y)

    def in_place(x, y):
        x **= y
        return x

    np.testing.assert_array_equal(apply(compiled(in_place).entry, X, Y), X * 100 + Y)


def test_exponents_that_one_instruction_answers_stay_numbas_own(table):
    table[pow] = fake_power

    def kernel(x, y):
        return x**2 + pow(y, 2.0) + x**0.5 + np.power(y, -1) + x**1

    expected = X**2 + Y**2 + np.sqrt(X) + 1 / Y + X
    np.testing.assert_allclose(apply(compiled(kernel).entry, X, Y), expected, rtol=1e-15)


def test_other_whole_exponents_are_products_where_the_code_names_them_and_powers_where_not():
    for kernel in (lambda x, y: x**7, lambda x, y: np.power(x, 7)):
        np.testing.assert_array_equal(apply(compiled(kernel).entry, X, Y), X**7)
    np.testing.assert_array_equal(apply(compiled(lambda x, y: x ** int(y)).entry, X, Y), X * 100 + Y)
    # Beyond the longest product that is worth it, and fractions.
    np.testing.assert_array_equal(apply(compiled(lambda x, y: x**1000).entry, X, Y), X * 100 + 1000)
    np.testing.assert_array_equal(apply(compiled(lambda x, y: x**-0.5).entry, X, Y), X * 100 - 0.5)
    # A power of integers stays one.
    assert jit.scalar(lambda x: x**3)(5) == 125
    assert jit.return_type(jit.scalar(lambda x: x**3), (numba.int64,)) == numba.int64


def test_the_real_table_leaves_no_power_to_the_c_library(monkeypatch):
    monkeypatch.undo()
    # Functions of other tests would be found in the cache, with what the table above made of them.
    for kernel in (
        lambda x, y: 2 * x**y,
        lambda x, y: 2 * pow(x, y),
        lambda x, y: 2 * math.pow(x, y),
        lambda x, y: 2 * np.float_power(x, y),
        lambda x, y: 2 * x ** int(y),
    ):
        np.testing.assert_array_equal(apply(compiled(kernel).entry, X, Y), 2 * X**Y)
        single = jit.scalar(kernel)
        single.compile((numba.float64, numba.float64))
        assert not re.search(r"\bpowf?\b", single.inspect_asm()[single.signatures[0]])
        arguments = (numba.float32, numba.float32)
        unchanged = jit.return_type(jit.scalar(kernel, precise=True), arguments)
        assert jit.return_type(single, arguments) == unchanged


def test_functions_that_numpy_lacks_are_replaced_too(monkeypatch):
    monkeypatch.undo()
    for name in ("erf", "erfc", "lgamma"):
        standard = getattr(math, name)
        kernel = negative_from_closure(standard)
        exact = [-standard(value) for value in X]
        np.testing.assert_allclose(apply(compiled(kernel).entry, X, Y), exact, rtol=1e-15, atol=1e-16)
        assert standard in fast.SUBSTITUTES


def test_types_stay_as_they_are():
    single = jit.scalar(lambda x: np.exp(x))
    assert jit.return_type(single, (numba.float32,)) == numba.float32
    assert single(np.float32(1)) == np.float32(1001)
    # One that would give an integer for a float is not used.
    np.testing.assert_allclose(apply(compiled(lambda x, y: np.sin(x)).entry, X, Y), np.sin(X))


def test_complex_numbers_and_arrays_keep_numpys_meaning():
    assert jit.scalar(lambda x: np.exp(x))(1j) == pytest.approx(cmath.exp(1j))
    np.testing.assert_allclose(jit.scalar(lambda x: np.exp(x))(X), np.exp(X))

    def on_arrays(x, y):
        y[:] = np.exp(x)

    np.testing.assert_allclose(apply(compiled(on_arrays, driver=whole).entry, X, Y), np.exp(X))


def test_integers_become_what_numpy_makes_of_them():
    assert jit.scalar(lambda x: np.exp(x))(2) == 1002.0
    assert jit.return_type(jit.scalar(lambda x: np.exp(x)), (numba.int64,)) == numba.float64


def test_nothing_is_changed_for_others():
    compiled(lambda x, y: users_helper(x))
    assert users_helper(1.0) == pytest.approx(math.e)
    assert numba.njit(lambda x: np.exp(x))(1.0) == pytest.approx(math.e)


def test_without_a_hit_nothing_more_is_compiled(monkeypatch):
    def unused():
        raise AssertionError("the table was asked for")

    monkeypatch.setattr(substitution, "substitutes", unused)
    np.testing.assert_array_equal(apply(compiled(lambda x, y: x * y + 1).entry, X, Y), X * Y + 1)


def test_users_options_that_change_meaning_are_kept():
    @numba.njit(fastmath=True, error_model="python", boundscheck=True, parallel=False)
    def helper(x):
        return x

    member = jit.scalar(helper)
    assert member.targetoptions["fastmath"] is True
    assert member.targetoptions["error_model"] == "numpy"
    assert member.targetoptions["boundscheck"] is False
