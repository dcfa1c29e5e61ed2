"""Fingerprints: the same for the same code in any process, another for everything that changes it."""

from __future__ import annotations

import ctypes
import enum
import math
import types

import numba
import numpy as np
import pytest

from shmarray import jit

CONSTANT = 2.0


def reads_global(x):
    return x * CONSTANT


def reads_array(x):
    return x + TABLE[0]


TABLE = np.arange(5.0)


def test_a_constant_that_changes_changes_it(monkeypatch):
    before = jit.fingerprint(reads_global)
    monkeypatch.setitem(globals(), "CONSTANT", 3.0)
    assert jit.fingerprint(reads_global) != before
    monkeypatch.setitem(globals(), "CONSTANT", 2.0)
    assert jit.fingerprint(reads_global) == before


def test_an_element_of_a_global_array_changes_it(monkeypatch):
    before = jit.fingerprint(reads_array)
    monkeypatch.setitem(globals(), "TABLE", np.array([0.0, 1.0, 2.0, 3.0, 4.5]))
    assert jit.fingerprint(reads_array) != before
    monkeypatch.setitem(globals(), "TABLE", np.arange(5.0))
    assert jit.fingerprint(reads_array) == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ("a", b"a"),
        ((1, 2), [1, 2]),
        (("ab", "c"), ("a", "bc")),
        (np.float32(1), np.float64(1)),
        (np.zeros(3), np.zeros(3, np.int64)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros((2, 3)), np.zeros((2, 3), order="F")),
        (np.zeros(3), np.zeros(6)[::2]),
        (np.dtype("i4"), np.dtype("u4")),
        (np.exp, np.log),
        (math.exp, np.exp),
        ({1: 2}, {1: 3}),
        (frozenset("ab"), frozenset("ac")),
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x, y=1: x, lambda x, y=2: x),
        (lambda x: np.exp(x), lambda x: np.log(x)),
    ],
)
def test_different_values_have_different_ones(one, other):
    assert jit.fingerprint(one) != jit.fingerprint(other)


def test_a_closure_cell_that_differs_changes_it():
    def make(value):
        return lambda x: x + value

    assert jit.fingerprint(make(1)) == jit.fingerprint(make(1))
    assert jit.fingerprint(make(1)) != jit.fingerprint(make(2))


def test_it_reads_through_functions_and_dispatchers_and_modules():
    def kernels(constant):
        def innermost(x):
            return x + constant

        jitted = numba.njit(innermost)
        module = types.ModuleType("of_the_user")
        module.helper = jitted
        return [
            lambda x: innermost(x),
            lambda x: jitted(x),
            lambda x: module.helper(x),
            numba.njit(lambda x: jitted(x)),
            jit.scalar(lambda x: jitted(x)),
        ]

    for first, second, third in zip(kernels(1), kernels(1), kernels(2), strict=True):
        assert jit.fingerprint(first) == jit.fingerprint(second)
        assert jit.fingerprint(first) != jit.fingerprint(third)
        assert jit.fingerprint(first).stable


def test_recursive_functions_have_one():
    @numba.njit
    def even(n):
        return n == 0 or odd(n - 1)

    @numba.njit
    def odd(n):
        return n != 0 and even(n - 1)

    assert jit.fingerprint(even).stable
    assert jit.fingerprint(even) != jit.fingerprint(odd)


def test_options_that_change_code_are_part_of_it():
    def kernel(x):
        return x

    prints = {jit.fingerprint(jit.scalar(kernel, precise=p, debug=d)) for p in (0, 1) for d in (0, 1)}
    assert len(prints) == 4
    assert jit.fingerprint(numba.njit(fastmath=True)(kernel)) != jit.fingerprint(numba.njit(kernel))


class Colour(enum.IntEnum):
    RED = 1


def test_values_without_stable_bytes_make_it_local():
    thing = object()
    cosine = ctypes.CDLL(None).cos
    for value in (thing, cosine, np.array([thing])):
        local = jit.fingerprint(lambda x, value=value: value)
        assert not local.stable
        assert local == jit.fingerprint(lambda x, value=value: value)
        assert not jit.fingerprint(("in a key", local)).stable
    assert jit.fingerprint(Colour.RED).stable
    assert jit.fingerprint(lambda x: Colour.RED).stable
    assert jit.fingerprint(ValueError).stable


def test_large_arrays_are_listed():
    large = np.zeros(200_000)
    listed = jit.fingerprint(lambda i: large[i] + TABLE[i]).tables
    assert len(listed) == 1
    assert listed[0] is large


_PRINT = """
import numpy as np, numba, math
from shmarray import jit
K = {"b": 1, "a": (2.0, "x")}
NAMES = {"one", "two", "three", "four"}
T = np.arange(7)
@numba.njit
def helper(x):
    return helper(x - 1) if x > 0 else T[0]
def kernel(x, y=3):
    if x in NAMES:
        raise ValueError("no")
    return np.exp(x) + math.sin(y) + helper(x) + (lambda z: z + 1)(x) + float(x in {1, 2, 3, 400})
print(jit.fingerprint(kernel).hex(), jit.fingerprint(kernel).stable)
"""


def test_every_process_finds_the_same_one(run_program):
    printed = {run_program(_PRINT, PYTHONHASHSEED=seed) for seed in ("1", "2")}
    assert len(printed) == 1
    assert printed.pop().split()[1] == "True"


def test_it_takes_no_numba(run_program):
    script = "import sys, shmarray.jit as j; j.fingerprint(lambda x: x); print('numba' in sys.modules)"
    assert run_program(script).strip() == "False"
