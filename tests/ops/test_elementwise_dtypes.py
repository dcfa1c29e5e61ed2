"""Items of every kind, and the dtypes of results."""

from __future__ import annotations

import math

import numpy as np
import pytest

import shmarray as sa
from tests.ops.scalar_kernels import add, fancy, identity


@sa.elementwise(precise=True)
def libm_exp(x):
    return math.exp(x)


@sa.elementwise
def quotient(x, y):
    return x // y


@pytest.mark.parametrize("code", ["?", "u2", "i8", "f4", "c16"])
def test_items_of_every_kind_pass_through_unchanged(code):
    x = (np.arange(20) % 2 if code == "?" else np.arange(20)).astype(code)
    result = identity(sa.array(x))
    assert result.dtype == x.dtype
    assert np.array_equal(result, x)


@pytest.mark.parametrize("code", ["M8[ns]", "m8[D]"])
def test_times_pass_through_unchanged(code):
    x = np.arange(20).astype(code)
    x[3] = "NaT"
    result = identity(sa.array(x))
    assert result.dtype == x.dtype
    assert np.array_equal(result.view(np.int64), x.view(np.int64))


def test_times_are_added_and_subtracted():
    moments, spans = np.arange(5).astype("M8[s]"), np.arange(5).astype("m8[s]")
    result = add(sa.array(moments), sa.array(spans))
    assert result.dtype == moments.dtype
    assert np.array_equal(result, moments + spans)


@pytest.mark.parametrize("code", ["f2", ">f8", ">i4"])
def test_items_that_numba_has_no_type_for_are_named(code):
    with pytest.raises(TypeError, match=r"identity: numba cannot compute with dtype .*\.astype\(.*jit=False"):
        identity(sa.zeros(4, code))


@pytest.mark.parametrize("code", ["S5", "U3"])
def test_text_passes_through_unchanged(code):
    x = np.array(["a", "bc"], code)
    assert np.array_equal(identity(sa.array(x)), x)


@sa.elementwise
def total_of_record(record):
    return record.a + record.b


def test_records_are_read_by_field():
    x = np.array([(1, 0.5), (2, 0.25)], [("a", "i4"), ("b", "f8")])
    assert np.array_equal(identity(sa.array(x)), x)
    assert total_of_record(sa.array(x)).tolist() == [1.5, 2.25]


@pytest.mark.parametrize(
    ("code", "number"), [("f4", 2.5), ("f4", 2), ("c8", 2.5), ("i2", 2), ("i2", 2.5), ("u1", True)]
)
def test_python_numbers_are_weak(code, number):
    x = np.arange(1, 5).astype(code)
    if np.result_type(x, number) == np.float64 and x.dtype.kind in "iu":
        expected = np.float64
    else:
        expected = np.result_type(x, number)
    result = identity_of_second(sa.array(x), number)
    assert result.dtype == expected
    assert np.all(np.asarray(result) == number)


@sa.elementwise
def identity_of_second(x, y):
    return y


def test_numpy_scalars_are_strong():
    assert identity_of_second(sa.ones(3, np.float32), np.float64(2)).dtype == np.float64


def test_a_weak_integer_that_does_not_fit_is_refused():
    with pytest.raises(OverflowError):
        add(sa.ones(3, np.uint8), 1000)


def test_whole_division_by_zero_follows_numpy():
    result = quotient(sa.array([7, -7, 0]), sa.array([0, 2, 0]))
    with np.errstate(divide="ignore"):
        assert result.tolist() == np.floor_divide([7, -7, 0], [0, 2, 0]).tolist()
    with np.errstate(all="ignore"):
        expected = np.floor_divide([1.0, 0.0, 5.0], [0.0, 0.0, 2.0])
    assert np.array_equal(quotient(sa.array([1.0, 0.0, 5.0]), sa.array([0.0, 0.0, 2.0])), expected, equal_nan=True)


def test_elementary_functions_agree_with_numpy():
    rng = np.random.default_rng(5)
    x, y = rng.random(5000) * 10, rng.random(5000)
    expected = np.sqrt(x) * np.exp(-y * y) + np.sin(x) * np.log1p(y)
    np.testing.assert_allclose(fancy(sa.array(x), sa.array(y)), expected, rtol=1e-14, atol=1e-14)


def test_precise_keeps_the_c_library():
    x = np.linspace(-20, 20, 2001)
    assert libm_exp(sa.array(x)).tolist() == [math.exp(value) for value in x]
