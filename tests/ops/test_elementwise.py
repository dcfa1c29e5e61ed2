"""Kernels of scalar functions: broadcasting, dtypes, outputs, and what is refused."""

from __future__ import annotations

import math
import pickle

import numba
import numpy as np
import pytest

import shmarray as sa

SMALL_TABLE = np.array([10.0, 20.0, 30.0, 40.0])
LARGE_TABLE = np.arange(200_000, dtype=np.float64)  # more than 1 MB: numba reads it in place
OFFSET = 7


@sa.elementwise
def axpy(a, x, y):
    return a * x + y


@sa.elementwise
def add(x, y):
    return x + y


@sa.elementwise
def identity(x):
    return x


@sa.elementwise
def increment(x):
    return x + 1


@sa.elementwise
def extremes(x, y):
    return min(x, y), max(x, y)


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


@sa.elementwise
def fancy(x, y):
    return np.sqrt(x) * np.exp(-y * y) + np.sin(x) * np.log1p(y)


@sa.elementwise(precise=True)
def libm_exp(x):
    return math.exp(x)


@sa.elementwise
def quotient(x, y):
    return x // y


@sa.elementwise(jit=False)
def described(x, y):
    return len(f"{int(x)}-{int(y)}")


@sa.elementwise(jit=False)
def both_ways(x):
    return x + 1, float(x) / 2


# ---------------------------------------------------------------------- broadcasting and layouts


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((3, 4), (3, 4)),
        ((3, 1), (1, 4)),
        ((4,), (3, 4)),
        ((), (3, 4)),
        ((1,), (5,)),
        ((), ()),
        ((0,), (1,)),
        ((0, 3), (3,)),
        ((2, 0), (2, 1)),
        ((2, 1, 4, 1), (3, 1, 5)),
        ((1, 1, 1), (1,)),
    ],
)
def test_arguments_broadcast_as_in_numpy(one, other):
    x, y = np.random.default_rng(1).random(one), np.random.default_rng(2).random(other)
    result = axpy(2.0, sa.array(x), sa.array(y))
    expected = 2.0 * x + y
    assert isinstance(result, sa.SharedArray)
    assert result.shape == expected.shape
    assert np.array_equal(result, expected)


def test_shapes_that_do_not_broadcast_are_refused():
    with pytest.raises(ValueError, match="broadcast"):
        add(sa.ones(3), sa.ones(4))


@pytest.mark.parametrize("n_dims", [1, 5, 20, 40])
def test_any_number_of_dimensions(n_dims):
    x = np.arange(2.0 ** min(n_dims, 5)).reshape((2,) * min(n_dims, 5) + (1,) * (n_dims - min(n_dims, 5)))
    assert np.array_equal(add(sa.array(x), sa.array(x)), 2 * x)
    assert np.array_equal(add(sa.array(x).T, 1.0), x.T + 1)


VIEWS = {
    "transposed": lambda a: a.T,
    "reversed": lambda a: a[::-1, ::-1],
    "stepped": lambda a: a[::2, 1::3],
    "middle": lambda a: a[2:-2, 3:-1],
    "one row": lambda a: a[3:4],
    "backwards rows of a transpose": lambda a: a.T[::-2],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
}


@pytest.mark.parametrize("view", VIEWS)
def test_operands_of_any_strides(view, everywhere):
    x = np.random.default_rng(3).random((12, 14))
    cut = VIEWS[view]
    assert np.array_equal(axpy(3.0, cut(sa.array(x)), cut(sa.array(x))), 3.0 * cut(x) + cut(x))


@pytest.mark.parametrize("view", [name for name in VIEWS if name != "broadcast"])
def test_outputs_of_any_strides_change_nothing_beside_them(view, everywhere):
    x, expected = np.random.default_rng(3).random((12, 14)), np.full((12, 14), -1.0)
    cut = VIEWS[view]
    out = sa.full((12, 14), -1.0)
    target = cut(out)
    assert axpy(2.0, cut(sa.array(x)), 1.0, out=target) is target
    cut(expected)[...] = 2.0 * cut(x) + 1.0
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("chunks", [None, 1, 5, (3, 4), (1, 1), (-1, 2), (100, 100), (12, 1)])
def test_chunks_of_any_geometry(chunks, everywhere):
    x = np.random.default_rng(4).random((12, 14))
    a, out = sa.array(x, chunks=chunks), sa.empty((12, 14), chunks=chunks)
    axpy(2.0, a, a, out=out)
    assert np.array_equal(out, 3 * x)
    assert np.array_equal(axpy(2.0, a.T, a.T, out=sa.empty((14, 12))), 3 * x.T)


def test_an_item_that_spans_pages_and_an_empty_call(everywhere):
    assert axpy(2.0, sa.empty((0, 5)), 1.0).shape == (0, 5)
    out = sa.empty((0, 5))
    assert axpy(2.0, sa.empty((0, 5)), 1.0, out=out) is out


# ---------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("code", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "c8", "c16"])
def test_items_of_every_kind_pass_through_unchanged(code):
    x = (np.arange(20) % 2 if code == "?" else np.arange(20)).astype(code)
    result = identity(sa.array(x))
    assert result.dtype == x.dtype
    assert np.array_equal(result, x)


@pytest.mark.parametrize("code", ["M8[s]", "M8[ns]", "m8[us]", "m8[D]"])
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


@pytest.mark.parametrize("code", ["f4", "f8", "c8", "i2", "u1"])
@pytest.mark.parametrize("number", [2, 2.5, True])
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


# ---------------------------------------------------------------------- outputs


def test_several_results(everywhere):
    x, y = np.random.default_rng(7).random((2, 10, 10))
    low, high = extremes(sa.array(x, chunks=3), sa.array(y))
    assert np.array_equal(low, np.minimum(x, y))
    assert np.array_equal(high, np.maximum(x, y))
    out = sa.empty((10, 10)), sa.empty((10, 10), np.float32)
    assert extremes(sa.array(x), sa.array(y), out=out) is out
    assert np.array_equal(out[0], np.minimum(x, y))
    assert np.array_equal(out[1], np.maximum(x, y).astype(np.float32))


def test_in_place_on_one_of_several_operands(everywhere):
    x = np.arange(100.0)
    a, b = sa.array(x, chunks=7), sa.array(x)
    assert axpy(2.0, a, b, out=a) is a
    assert np.array_equal(a, 3 * x)
    extremes(a, b, out=(b, a))  # swapped: both in place
    assert np.array_equal(a, 3 * x)
    assert np.array_equal(b, x)


def test_in_place_on_a_view(everywhere):
    a = sa.array(np.arange(20.0))
    increment(a[::2], out=a[::2])
    assert a.tolist() == [i + (i % 2 == 0) for i in range(20)]


def test_a_remembered_call_sees_new_values_and_new_geometry():
    a, out = sa.ones(50), sa.empty(50)
    for value in (1.0, 2.0, 3.0):
        a[...] = value
        increment(a, out=out)
        assert np.all(out == value + 1)
    a.shape, out.shape = (5, 10), (5, 10)
    a[...] = 9.0
    increment(a, out=out)
    assert np.all(out == 10.0)


@pytest.mark.parametrize(("code", "accepted"), [("f4", True), ("f8", True), ("c16", True), ("i8", False), ("?", False)])
def test_outputs_of_other_dtypes_take_same_kind_casts(code, accepted):
    out = sa.empty(4, code)
    if accepted:
        assert np.all(axpy(2.0, sa.ones(4), 1.0, out=out) == 3)
    else:
        with pytest.raises(TypeError, match=r"axpy: out has dtype .*same-kind"):
            axpy(2.0, sa.ones(4), 1.0, out=out)


@pytest.mark.parametrize(
    "shift",
    [
        lambda a: (a[1:], a[:-1]),
        lambda a: (a[:-1], a[1:]),
        lambda a: (a, a[::-1]),
        lambda a: (a[::2], a[: a.size // 2]),
    ],
)
def test_overlap_without_identity_is_refused(shift):
    a = sa.array(np.arange(10.0))
    source, out = shift(a)
    with pytest.raises(ValueError, match=r"increment: out shares memory with argument 0"):
        increment(source, out=out)
    assert a.tolist() == list(range(10))


def test_a_transpose_of_the_input_is_refused_as_output():
    a = sa.array(np.arange(16.0).reshape(4, 4))
    with pytest.raises(ValueError, match="out shares memory"):
        increment(a, out=a.T)


def test_interleaved_views_do_not_overlap():
    a = sa.array(np.arange(10.0))
    increment(a[::2], out=a[1::2])
    assert a.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_two_outputs_that_share_memory_are_refused():
    out = sa.empty(10)
    with pytest.raises(ValueError, match="two outputs share memory"):
        extremes(sa.ones(10), sa.ones(10), out=(out, out))


def test_an_output_that_overlaps_itself_is_refused():
    out = np.lib.stride_tricks.as_strided(sa.empty(4), (3, 4), (0, 8), subok=True)
    with pytest.raises(ValueError, match="increment: out"):
        increment(sa.ones((3, 4)), out=out)


def test_wrong_outputs_are_named():
    a = sa.ones((2, 3))
    with pytest.raises(TypeError, match=r"increment: out must be a SharedArray.*got ndarray.*shmarray\.empty"):
        increment(a, out=np.empty((2, 3)))
    with pytest.raises(TypeError, match="got list"):
        increment(a, out=[1, 2])
    with pytest.raises(ValueError, match=r"out has shape \(3, 2\); the result has shape \(2, 3\)"):
        increment(a, out=sa.empty((3, 2)))
    with pytest.raises(ValueError, match=r"out has shape \(1, 3\)"):  # nothing is broadcast into an output
        increment(a, out=sa.empty((1, 3)))
    with pytest.raises(ValueError, match="gives 2 arrays, so out must be a tuple of 2; got 1"):
        extremes(a, a, out=sa.empty((2, 3)))
    with pytest.raises(ValueError, match="must be one array; got 2"):
        increment(a, out=(sa.empty((2, 3)), sa.empty((2, 3))))


def test_a_read_only_output_is_refused(namespace):
    sa.array(np.arange(4.0), name="fixed", keep=True)
    out = sa.open("fixed", "r")
    with pytest.raises(ValueError, match="increment: out is read-only"):
        increment(sa.ones(4), out=out)
    sa.unlink("fixed")


# ---------------------------------------------------------------------- inputs


def test_plain_arrays_and_lists_are_copied_in(everywhere):
    x = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(axpy(2.0, x, x), 3 * x)
    assert np.array_equal(axpy(2.0, x.T, sa.array(x.T)), 3 * x.T)
    assert add([1, 2, 3], sa.array([1, 1, 1])).tolist() == [2, 3, 4]
    assert add([[1.5], [2.5]], (1, 2)).tolist() == [[2.5, 3.5], [3.5, 4.5]]


def test_scalars_alone_give_an_array_without_dimensions():
    result = axpy(2.0, 3.0, 4.0)
    assert result.shape == ()
    assert float(result) == 10.0


def test_private_copies_are_read_as_they_are(namespace, everywhere):
    sa.array(np.arange(4.0), name="origin", keep=True)
    mine = sa.open("origin", "c")
    mine[...] = 5.0
    assert increment(mine).tolist() == [6.0] * 4
    out = sa.open("origin", "c")
    increment(mine, out=out)
    assert out.tolist() == [6.0] * 4
    assert sa.open("origin").tolist() == [0.0, 1.0, 2.0, 3.0]
    sa.unlink("origin")


def test_objects_are_refused():
    with pytest.raises(TypeError, match="axpy: argument 1 has dtype object"):
        axpy(1.0, np.array([object()]), sa.ones(1))
    with pytest.raises(TypeError, match="axpy: argument 2 has dtype object"):
        axpy(1.0, sa.ones(1), None)
    with pytest.raises(OverflowError):
        increment(10**30)


def test_the_number_of_arguments_is_checked():
    with pytest.raises(TypeError, match="axpy takes 3 arguments; got 2"):
        axpy(1.0, sa.ones(3))
    with pytest.raises(TypeError, match="axpy takes 3 arguments; got 0"):
        axpy()


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


@pytest.mark.parametrize("result", [None, (), "text", np.zeros(2)])
def test_a_function_that_gives_no_number_is_refused_before_anything_runs(result):
    def gives(x):
        return result

    with pytest.raises(TypeError, match="gives"):
        sa.elementwise(gives)(sa.ones(3))


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


# ---------------------------------------------------------------------- plain Python


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
    import os

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


# ---------------------------------------------------------------------- lanes


@pytest.mark.parametrize("lanes", [1, 2, 3, 8])
def test_results_do_not_depend_on_the_number_of_lanes(lanes, everywhere):
    rng = np.random.default_rng(8)
    x, y = rng.random((2, 64, 33))
    expected = fancy(sa.array(x), sa.array(y)).tobytes()
    with sa.Pool(lanes) as pool:
        for chunks in (1, (10, 7), None):
            assert fancy(sa.array(x, chunks=chunks), sa.array(y), pool=pool).tobytes() == expected
