"""What kernels of scalar functions take and where they write; what of that is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import shmarray as sa
from tests.ops.scalar_kernels import add, axpy, extremes, increment

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


def test_scalars_alone_give_a_scalar_as_numpys_ufuncs_do():
    for result in (axpy(2.0, 3.0, 4.0), axpy(sa.array(2.0), 3.0, np.float64(4.0))):
        assert (type(result), result) == (np.float64, 10.0)
    out = sa.zeros(())
    assert axpy(2.0, 3.0, 4.0, out=out) is out
    assert out[()] == 10.0


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


def test_a_warning_names_the_line_that_led_to_it(monkeypatch):
    monkeypatch.setattr(sys.modules["shmarray.array.results"], "_warned", False)
    a = sa.zeros(200_000)
    used = sa.registry.usage().used
    with sa.config.override(max_nbytes=used + 4096), pytest.warns(RuntimeWarning, match="room stay private") as caught:
        assert not increment(a).is_shared
    assert [warning.filename for warning in caught] == [__file__]
