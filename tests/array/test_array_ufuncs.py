"""Operators and ufuncs: NumPy's values, NumPy's bits, SharedArrays."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray.array import results
from shmarray.errors import OutOfSharedMemoryError

SIZES = [16, 5_000, 300_000]  # private result; shared result; large enough for the engine


def same(result: Any, expected: Any) -> None:
    assert type(result) is (sa.SharedArray if isinstance(expected, np.ndarray) else type(expected))
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    assert np.asarray(result).tobytes() == np.asarray(expected).tobytes()


def pair(size: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(size)
    return rng.normal(size=size), rng.normal(size=size) + 3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", [np.add, np.multiply, np.arctan2, np.less, np.copysign, np.logaddexp])
def test_binary_ufuncs_are_numpys(function: np.ufunc, size: int) -> None:
    x, y = pair(size)
    a, b = sa.array(x), sa.array(y)
    same(function(a, b), function(x, y))
    same(function(a, y), function(x, y))
    same(function(x, b), function(x, y))
    same(function(a, 2), function(x, 2))
    same(function(1.5, b), function(1.5, y))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", [np.exp, np.sin, np.sqrt, np.isfinite, np.modf, np.frexp, np.rint, np.signbit])
def test_unary_ufuncs_are_numpys(function: np.ufunc, size: int) -> None:
    _, y = pair(size)
    result, expected = function(sa.array(np.abs(y))), function(np.abs(y))
    if isinstance(expected, tuple):
        for part, wanted in zip(result, expected, strict=True):
            same(part, wanted)
    else:
        same(result, expected)


@pytest.mark.parametrize("size", SIZES)
def test_divmod_gives_two_arrays(size: int) -> None:
    x, y = pair(size)
    for part, wanted in zip(divmod(sa.array(x), y), divmod(x, y), strict=True):
        same(part, wanted)


def test_results_are_shared_from_inline_nbytes_on() -> None:
    a = sa.ones(100)
    assert not (a + a).is_shared
    with sa.config.override(inline_nbytes=800):
        assert (a + a).is_shared
        assert np.sort(a).is_shared
        assert a.copy().is_shared
    with sa.config.override(inline_nbytes=0):
        assert (a[:3] + 1).is_shared
    assert (sa.ones(5000) * 2).is_shared
    small, wide = sa.ones((3000, 1)), sa.ones((1, 30))
    assert (small + wide).is_shared


@pytest.mark.parametrize("size", SIZES)
def test_python_numbers_stay_weak(size: int) -> None:
    a = sa.ones(size, "f4")
    assert (a + 1.5).dtype == np.float32
    assert (a + np.float64(1.5)).dtype == np.float64
    assert (sa.ones(size, "u1") + 1).dtype == np.uint8
    with pytest.raises(OverflowError):
        sa.ones(size, "u1") + 300


@pytest.mark.parametrize("size", SIZES)
def test_in_place_operators_keep_the_array(size: int) -> None:
    x, y = pair(size)
    a = kept = sa.array(x)
    a += y
    a *= 2
    a -= sa.array(y)
    assert a is kept
    expected = (x + y) * 2 - y
    assert np.array_equal(a, expected)
    view = a[::2]
    view /= 3
    expected[::2] /= 3
    assert np.array_equal(a, expected)


@pytest.mark.parametrize("size", SIZES)
def test_overlapping_out_is_as_if_copied(size: int) -> None:
    x, _ = pair(size)
    a = sa.array(x)
    a[1:] += a[:-1]
    x[1:] += x[:-1].copy()
    assert np.array_equal(a, x)
    np.add(a[::-1], a, out=a)
    assert np.array_equal(a, x[::-1] + x)


@pytest.mark.parametrize("size", SIZES)
def test_out_and_where(size: int) -> None:
    x, y = pair(size)
    a, b, mask = sa.array(x), sa.array(y), x > 0
    out = sa.zeros(size)
    assert np.add(a, b, out=out) is out
    assert np.array_equal(out, x + y)
    out[:] = -1
    assert np.add(a, b, out=out, where=sa.array(mask)) is out
    assert np.array_equal(out, np.where(mask, x + y, -1))
    plain = np.zeros(size)
    assert np.add(a, b, out=plain) is plain
    assert np.array_equal(plain, x + y)
    assert np.add(x, y, out=out) is out
    fraction = sa.empty(size)
    got = np.modf(a, out=(None, fraction))
    assert got[1] is fraction
    assert type(got[0]) is sa.SharedArray
    assert np.array_equal(got[0], np.modf(x)[0])


@pytest.mark.parametrize("size", SIZES)
def test_out_of_another_dtype_casts_as_numpy_does(size: int) -> None:
    x, y = pair(size)
    out = sa.empty(size, "f4")
    np.add(sa.array(x), y, out=out)
    expected = np.empty(size, "f4")
    np.add(x, y, out=expected)
    assert np.array_equal(out, expected)
    counts = sa.ones(size, int)
    with pytest.raises(TypeError, match="same_kind"):
        counts += 0.5
    same(np.add(sa.array(x), y, dtype="f4"), np.add(x, y, dtype="f4"))
    same(np.add(sa.array(x), y, dtype="f4", casting="unsafe"), np.add(x, y, dtype="f4", casting="unsafe"))
    same(np.add(sa.array(x), y, order="F"), np.add(x, y, order="F"))


def test_read_only_out_is_refused() -> None:
    for size in SIZES:
        a = sa.ones(size)
        a.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            a += 1
        with pytest.raises(ValueError, match="read-only"):
            np.add(a, 1, out=a)


@pytest.mark.parametrize("size", [16, 600, 1000])
def test_memory_order_of_results_is_numpys(size: int) -> None:
    x = np.arange(size * size, dtype=float).reshape(size, size)
    for view in (x.T, x, x[:, ::-1], x[::2, ::2].T):
        same_order = sa.array(x)
        result = (same_order.T if view is x.T else same_order) + 1
        assert np.array_equal(result, (x.T if view is x.T else x) + 1)
    f = sa.array(x).T
    assert (f * 2).flags.f_contiguous
    assert np.array_equal(f * 2, x.T * 2)


@pytest.mark.parametrize("size", SIZES)
def test_reduce_accumulate_at_outer_reduceat(size: int) -> None:
    x, y = pair(size)
    a = sa.array(x)
    # Sums of floats: from many chunks on, the order of additions is the chunks', so the last bits may be others.
    np.testing.assert_allclose(np.add.reduce(a), np.add.reduce(x), rtol=1e-11)
    assert np.add.reduce(sa.array(np.arange(size))) == np.add.reduce(np.arange(size))
    assert type(np.add.reduce(a)) is np.float64
    rows = np.add.reduce(a.reshape(-1, 4), axis=1)
    assert type(rows) is sa.SharedArray
    np.testing.assert_allclose(rows, np.add.reduce(x.reshape(-1, 4), axis=1), atol=1e-11)
    same(
        np.maximum.reduce(a.reshape(4, -1), axis=0, keepdims=True),
        np.maximum.reduce(x.reshape(4, -1), axis=0, keepdims=True),
    )
    masked = np.add.reduce(a, where=sa.array(x > 0), initial=10)
    np.testing.assert_allclose(masked, np.add.reduce(x, where=x > 0, initial=10), rtol=1e-11)
    same(np.multiply.accumulate(a[:50]), np.multiply.accumulate(x[:50]))
    same(np.add.accumulate(a), np.add.accumulate(x))
    same(np.add.accumulate(sa.ones(size, "i1")), np.add.accumulate(np.ones(size, "i1")))
    same(np.add.reduceat(a, [0, 3, 5]), np.add.reduceat(x, [0, 3, 5]))
    same(np.subtract.outer(a[:200], y[:300]), np.subtract.outer(x[:200], y[:300]))
    same(np.subtract.outer(a[:2], 3), np.subtract.outer(x[:2], 3))
    np.add.at(a, [0, 0, 1], 5)
    np.add.at(x, [0, 0, 1], 5)
    assert np.array_equal(a, x)
    out = sa.zeros(4)
    assert np.add.reduce(a.reshape(4, -1), axis=1, out=out) is out
    np.testing.assert_allclose(out, x.reshape(4, -1).sum(axis=1), rtol=1e-11)


@pytest.mark.parametrize("shape", [(3, 4), (80, 90)])
def test_matmul(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(1).normal(size=shape)
    a = sa.array(x)
    same(a @ a.T, x @ x.T)
    same(a @ x[0], x @ x[0])
    assert (a[0] @ a[0]) == (x[0] @ x[0])
    with pytest.raises(ValueError, match="matmul"):
        a @ a


def test_scalars_come_out_as_numpy_gives_them() -> None:
    a = sa.array([1.0, 2.0])
    zero_dim = sa.array(3.0)
    assert type(a[0]) is np.float64
    assert type(a.sum()) is np.float64
    assert type(zero_dim + 1) is np.float64
    assert type(np.sqrt(zero_dim)) is np.float64
    assert isinstance(zero_dim[...], sa.SharedArray)
    assert type(a.mean()) is np.float64
    assert type(a.argmax()) is np.int64


def test_lists_and_strings_and_nonsense() -> None:
    a = sa.array([1, 2, 3])
    same(np.add(a, [1, 2, 3]), np.arange(1, 4) * 2)
    same(np.add([1, 2, 3], a), np.arange(1, 4) * 2)
    assert (a == "x").tolist() == [False] * 3
    with pytest.raises(TypeError):
        a + object()
    with pytest.raises(ValueError, match="broadcast"):
        a + sa.ones(4)
    with pytest.raises(ValueError, match="broadcast"):
        sa.ones(300_000) + sa.ones(300_001)
    with pytest.raises(TypeError):
        np.sin(sa.array(["a"]))
    words = sa.array(["a", "bc"])
    assert np.strings.add(words, "d").tolist() == ["ad", "bcd"]


def test_foreign_classes_get_their_turn() -> None:
    class Loud:
        def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> str:
            return f"{ufunc.__name__} {[type(x).__name__ for x in inputs]}"

    assert sa.ones(3) + Loud() == "add ['ndarray', 'Loud']"
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    assert isinstance(sa.ones(2) + masked, np.ma.MaskedArray)


def test_subclasses_by_users_work() -> None:
    class Mine(sa.SharedArray):
        pass

    mine = sa.ones(3).view(Mine)
    assert np.array_equal(mine + 1, [2, 2, 2])
    assert isinstance(mine + mine, sa.SharedArray)


@pytest.mark.parametrize("size", SIZES)
def test_floating_point_errors_follow_the_callers_errstate(size: int) -> None:
    a = sa.zeros(size)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        1 / a
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        1 / a
    with np.errstate(divide="ignore"):
        assert np.isinf(1 / a).all()


def test_short_memory_warns_once_and_stays_private(monkeypatch: pytest.MonkeyPatch) -> None:
    a = sa.ones(50_000)

    def refuse(*_: Any, **__: Any) -> None:
        raise OutOfSharedMemoryError("no room", nbytes=1)

    monkeypatch.setattr(results, "_warned", False)
    monkeypatch.setattr(results.registry, "create", refuse)
    with pytest.warns(RuntimeWarning, match="shared memory is short"):
        b = a + a
    assert not b.is_shared
    assert b[0] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not np.sort(a).is_shared
        assert not a.copy().is_shared
        assert a.astype("f4").sum() == 50_000


@pytest.mark.parametrize("mode", ["r", "c"])
def test_large_operations_on_other_mappings(mode: Any) -> None:
    a = sa.ones(300_000, name="source")
    b = sa.open("source", mode)
    if mode == "c":
        b += 1
        assert b[-1] == 2
    assert (b * 2)[0] == (4 if mode == "c" else 2)
    assert b.sum() == (600_000 if mode == "c" else 300_000)
    assert a[0] == 1


def test_every_operator_is_numpys() -> None:
    x, y = np.array([5, 7, -9]), np.array([2, -3, 4])
    a, b = sa.array(x), sa.array(y)
    for op in (
        operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
        operator.and_, operator.or_, operator.xor, operator.eq, operator.ne, operator.lt, operator.ge, operator.matmul,
    ):  # fmt: skip
        assert np.array_equal(op(a, b), op(x, y))
    same(-a, -x)
    same(abs(a), abs(x))
    same(~a, ~x)
    same(a**2, x**2)
    same(2 ** abs(b), 2 ** abs(y))
    same(a << 1, x << 1)


@pytest.mark.parametrize("size", [1000, 200_000])
def test_a_reduction_computes_in_the_dtype_of_out_as_numpy_does(size: int) -> None:
    singles, integers = np.full(size, 3e38, np.float32), np.full((size, 2), 2**60)
    for array, axis, shape in ((singles, None, ()), (integers, 0, (2,))):
        expected = array.sum(axis=axis, out=np.zeros(shape))
        np.testing.assert_array_equal(sa.array(array).sum(axis=axis, out=sa.zeros(shape)), expected)
        np.testing.assert_array_equal(np.add.reduce(sa.array(array), axis=axis, out=np.zeros(shape)), expected)


def test_a_cast_that_numpy_refuses_is_an_error_not_a_crash() -> None:
    with pytest.raises(TypeError, match="equiv"):
        np.add(sa.zeros(100_000), 1, casting="equiv")
