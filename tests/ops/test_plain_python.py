"""Kernels with jit=False: plain Python in the workers, never in the caller."""

from __future__ import annotations

import operator
import os
from types import CodeType

import cloudpickle
import numpy as np
import pytest

import shmarray as sa


@sa.elementwise(jit=False)
def described(x, y):
    return len(f"{int(x)}-{int(y)}")


@sa.elementwise(jit=False)
def both_ways(x):
    return x + 1, float(x) / 2


def test_plain_python_item_by_item():
    x = np.array([[1, 10], [100, 1000]])
    assert described(sa.array(x, chunks=1), 5).tolist() == [[3, 4], [5, 6]]
    whole, half = both_ways(sa.array([1, 2, 3]))
    assert whole.dtype == np.int64
    assert half.dtype == np.float64
    assert (whole.tolist(), half.tolist()) == ([2, 3, 4], [0.5, 1.0, 1.5])


def test_plain_python_in_place_and_into_other_dtypes():
    a = sa.array([1.0, 2.0, 3.0])
    kernel = sa.elementwise(lambda x: x * 2, jit=False)
    kernel(a, out=a)
    assert a.tolist() == [2.0, 4.0, 6.0]
    out = sa.empty(3, np.float32)
    kernel(a, out=out)
    assert out.tolist() == [4.0, 8.0, 12.0]


def test_plain_python_of_nothing():
    assert described(sa.empty((0, 3)), 1).shape == (0, 3)


def test_plain_python_that_raises():
    kernel = sa.elementwise(lambda x: 1 // int(x), jit=False)
    with pytest.raises(sa.KernelError, match=r"chunk 1 of 2: ZeroDivisionError"):
        kernel(sa.array([1, 1, 0, 1], chunks=2))


def test_tracebacks_of_plain_python_show_the_file_and_the_line(monkeypatch):
    table = cloudpickle.Pickler.dispatch_table
    reduce = table[CodeType]

    def reduce_without_file(code):  # as cloudpickle does from 3.1.3 on
        make, arguments = reduce(code)
        return make, tuple("<dynamic-code>" if each == code.co_filename else each for each in arguments)

    monkeypatch.setitem(table, CodeType, reduce_without_file)

    def divide(x):
        return (lambda y: 1 // y)(int(x))  # the very line

    with pytest.raises(sa.KernelError) as caught:
        sa.elementwise(divide, jit=False)(sa.array([1, 0]))
    (note,) = caught.value.__cause__.__notes__
    assert f'File "{__file__}"' in note
    assert "# the very line" in note
    with sa.Pool(1) as pool, pytest.raises(ZeroDivisionError) as caught:
        pool.apply(divide, (0,))
    assert f'File "{__file__}"' in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: 0 if x == 0 else x + 0.5, "float64"),
        (lambda x: "a" * (1 + int(x)), "<U3"),
        (lambda x: x or 7.0, None),
    ],
    ids=["float", "text", "same"],
)
def test_plain_python_whose_first_result_is_narrower_than_others(function, kind):
    kernel = sa.elementwise(function, jit=False)
    if kind is None:
        assert kernel(sa.array([0.0, 1.0, 2.0])).tolist() == [7.0, 1.0, 2.0]
        return
    with pytest.raises(sa.KernelError, match=f"returned {kind} for some items.*give out="):
        kernel(sa.array([0.0, 1.0, 2.0]))


def test_plain_python_is_never_run_in_the_caller():
    pids = sa.elementwise(lambda x: os.getpid(), jit=False)(sa.array([1, 2, 3]))
    assert os.getpid() not in pids
    with pytest.raises(sa.WorkerDiedError, match="exited with status 4"):
        sa.elementwise(lambda x: os._exit(4), jit=False)(sa.array([1, 2, 3]))


def test_plain_python_that_cannot_travel_is_refused_before_dispatch():
    import threading

    lock = threading.Lock()

    def locked(x):
        with lock:
            return x

    with pytest.raises(TypeError, match="locked cannot be sent to the workers"):
        sa.elementwise(locked, jit=False)(sa.ones(3))


# ---------------------------------------------------------------------- folds

SINGLES = np.random.default_rng(1).random(1500).astype("f4") * 100 - 3
WHOLE = np.random.default_rng(1).integers(-3, 99, (30, 70), "i4")

FOLDS = {
    "sums in float32": (lambda acc, x: np.float32(acc + x), np.float32(0), operator.add, SINGLES),
    "maxima": (lambda acc, x: max(acc, x), -np.inf, max, WHOLE),
    "truth": (lambda acc, x: acc and x > 0, True, operator.and_, SINGLES.reshape(30, 50)),
    "complex sums": (lambda acc, x: acc + complex(x, -x), 0j, operator.add, WHOLE),
}


@pytest.mark.parametrize("name", FOLDS)
def test_plain_folds_have_the_dtypes_and_the_bits_of_compiled_ones(name):
    function, identity, combine, x = FOLDS[name]
    compiled = sa.reduction(function, identity=identity, combine=combine)
    plain = sa.reduction(function, identity=identity, combine=combine, jit=False)
    a = sa.array(x)
    for axis in (None, *range(x.ndim), ()) if x.ndim > 1 else (None,):
        for keepdims in (False, True):
            expected = np.asarray(compiled(a, axis, keepdims=keepdims))
            result = np.asarray(plain(a, axis, keepdims=keepdims))
            assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
            assert result.tobytes() == expected.tobytes()


plain_total = sa.reduction(lambda acc, x: acc + x, identity=0.0, combine=operator.add, jit=False)


def test_plain_folds_have_the_same_bits_for_any_number_of_lanes_and_any_layout():
    x = np.random.default_rng(2).random((90, 2000))
    with sa.config.override(parallel_nbytes=10**9):
        expected = [np.asarray(plain_total(sa.array(x), axis)).tobytes() for axis in (None, 0, 1)]
    for lanes in (1, 5):
        with sa.Pool(lanes) as pool:
            for same in (sa.array(x), sa.array(np.ascontiguousarray(x.T)).T, x[::-1, ::-1].copy()[::-1, ::-1]):
                assert [np.asarray(plain_total(same, axis, pool=pool)).tobytes() for axis in (None, 0, 1)] == expected


def test_plain_folds_take_out_and_give_the_identity_for_nothing():
    x = np.arange(12.0).reshape(3, 4)
    out = sa.empty(4, np.float32)
    assert plain_total(sa.array(x), axis=0, out=out) is out
    assert np.array_equal(out, x.sum(0))
    with pytest.raises(ValueError, match="out shares memory with argument 0"):
        a = sa.array(x)
        plain_total(a, axis=0, out=a[0])
    assert type(plain_total(sa.array(x))) is np.float64
    assert plain_total(sa.empty((0, 3)), axis=0).tolist() == [0.0] * 3


def test_plain_folds_may_use_what_numba_cannot_compile():
    digits = sa.reduction(lambda acc, x: acc + len(f"{x:.3g}"), identity=0, combine=operator.add, jit=False)
    assert digits(sa.array([0.5, 12.0, 1e9])) == len("0.5" + "12" + "1e+09")


def test_plain_folds_that_raise_or_return_something_else_are_named():
    def inverse(acc, x):
        return acc + 1 // int(x)

    x = np.ones(300_000, np.int8)
    x[299_999] = 0
    with pytest.raises(sa.KernelError, match=r"inverse raised in chunk 2 of 3: ZeroDivisionError") as caught:
        sa.reduction(inverse, identity=0, combine=operator.add, jit=False)(sa.array(x))
    assert caught.value.chunk == 2
    for function, words in ((lambda acc, x: None, r"nothing \(None\)"), (lambda acc, x: (acc, x), "a tuple")):
        with pytest.raises(TypeError, match=f"must return a number, the new accumulator; it returned {words}"):
            sa.reduction(function, identity=0, combine=operator.add, jit=False)(sa.ones(3))
    grows = sa.reduction(lambda acc, x: acc + 0.5 if x else acc, identity=0, combine=operator.add, jit=False)
    with pytest.raises(sa.KernelError, match=r"returned float64 for some items, which an accumulator of int64 cannot"):
        grows(sa.array([0, 0, 1]))


@pytest.mark.parametrize(
    "kernel",
    [
        sa.reduction(lambda acc, x: acc + os.getpid(), identity=0, combine=max, jit=False),
        sa.stencil(lambda u: u[0] * 0 + os.getpid(), jit=False),
    ],
    ids=["reduction", "stencil"],
)
def test_plain_folds_and_stencils_are_never_run_in_the_caller(kernel):
    assert os.getpid() not in np.atleast_1d(kernel(sa.array([1], np.int64)))


@pytest.mark.parametrize("jit", [True, False])
def test_decorators_take_the_same_keywords(jit):
    facts = {"jit": jit, "precise": True, "debug": True}
    a = sa.array([1.0, 2.0, 3.0])
    by_item, by_window = sa.elementwise(lambda x: x + 1, **facts), sa.stencil(lambda u: u[0] + 1, **facts)
    by_chunk = sa.chunkwise(lambda chunk: chunk + 1, **facts)
    assert sa.reduction(lambda acc, x: acc + x, identity=0.0, combine=operator.add, **facts)(a) == 6.0
    assert sa.map_chunks(lambda chunk: chunk + 1, a, **facts).tolist() == [2.0, 3.0, 4.0]
    if not jit:  # the others compiled with bounds checks have tests of their own
        for kernel in (by_item, by_window, by_chunk):
            assert kernel(a).tolist() == [2.0, 3.0, 4.0]
