"""NumPy's functions on large SharedArrays, in parallel: NumPy's values, dtypes and errors, and the same bits always.

What is compared is mostly just above the size where the parallel versions begin; each kernel is compiled once.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import shmarray as sa

from .comparison import N, near, numbers, same

# --- statistics ---------------------------------------------------------------------------------------------

SHAPES = {"flat": (N,), "rows": (500, 600), "cube": (50, 60, 100), "tall": (75_000, 4), "short rows": (N // 10, 10)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_statistics_over_any_axis(shape):
    x = numbers("f8").reshape(shape) + 3
    y = x.copy()
    y.ravel()[::9] = np.nan
    a, b = sa.array(x), sa.array(y)
    axes = [None, *range(len(shape)), *([(0, 2)] if len(shape) == 3 else [])]
    for axis in axes:
        for keepdims in (False, True):
            near(a.std(axis, keepdims=keepdims), x.std(axis, keepdims=keepdims))
            near(np.var(a, axis, ddof=1, keepdims=keepdims), np.var(x, axis, ddof=1, keepdims=keepdims))
            near(np.nansum(b, axis, keepdims=keepdims), np.nansum(y, axis, keepdims=keepdims), rtol=1e-11)
            same(np.nanmin(b, axis, keepdims=keepdims), np.nanmin(y, axis, keepdims=keepdims))
            if not isinstance(axis, tuple):
                same(np.argmax(a, axis, keepdims=keepdims), np.argmax(x, axis, keepdims=keepdims))
        if not isinstance(axis, tuple):
            same(np.argmax(b, axis), np.argmax(y, axis))
        # Where the last axis is kept, items are gathered first, by a driver that every function is compiled into anew:
        # the functions above show what it does.
        if axis is None or axis == len(shape) - 1:
            for function in (np.nanvar, np.nanmean):
                near(function(b, axis), function(y, axis), rtol=1e-11)
            for function in (np.argmin, np.nanargmin):
                same(function(b, axis), function(y, axis))
            near(np.linalg.norm(a, axis=axis), np.linalg.norm(x, axis=axis))
            same(np.count_nonzero(a > 3, axis=axis), np.count_nonzero(x > 3, axis=axis))


def test_strides_do_not_change_the_bits():
    x = sa.array(numbers("f8").reshape(500, 600))
    wide = sa.zeros((500, 1200))
    wide[:, ::2] = x
    turned = sa.array(np.asarray(x).T.copy()).T
    for axis in (None, 0, 1):
        for view in (wide[:, ::2], turned):
            for function in (np.std, np.nansum, np.argmax):
                np.testing.assert_array_equal(function(view, axis=axis), function(x, axis=axis))


def test_statistics_of_other_dtypes():
    x = numbers("f4") + np.float32(100)
    a = sa.array(x)
    assert np.std(a).dtype == np.float32
    np.testing.assert_allclose(np.std(a), x.astype("f8").std(), rtol=1e-7)  # NumPy's own is a thousand times worse
    i = numbers("i4")
    near(np.std(sa.array(i)), np.std(i))
    same(np.argmax(sa.array(i)), np.argmax(i))
    near(np.linalg.norm(sa.array(numbers("f8")), 1), np.linalg.norm(numbers("f8"), 1))


def test_equal_extremes_have_the_first_place_and_nan_the_first_of_all():
    x = np.round(numbers("f8"))
    same(np.argmax(sa.array(x)), np.argmax(x))
    same(np.argmin(sa.array(x)), np.argmin(x))
    x[[200_000, 250_000]] = np.nan
    assert np.argmin(sa.array(x)) == np.argmax(sa.array(x)) == 200_000


def test_statistics_raise_and_warn_as_numpy_does():
    a = sa.array(np.full((2, N), np.nan))
    a[0] = 1
    with pytest.raises(ValueError, match="All-NaN"):
        np.nanargmin(a, axis=1)
    for function, message in ((np.nanmin, "All-NaN"), (np.nanmean, "empty slice"), (np.nanvar, "freedom")):
        with pytest.warns(RuntimeWarning, match=message):
            assert np.isnan(function(a, axis=1)[1])
    with pytest.raises(np.exceptions.AxisError):
        a.std(axis=2)
    with pytest.raises(TypeError):
        a.std(nothing=1)
    out = sa.empty(N)
    assert np.var(a, axis=0, out=out) is out
    assert np.isnan(out).all()


# --- sorting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "u4"])
def test_sorting(dtype):
    inputs = [numbers(dtype, special=True)]
    if dtype in ("f8", "u4"):  # those of one size have their loops in common
        inputs += [np.sort(numbers(dtype))[::-1].copy(), np.full(N, 3, dtype)]
    for x in inputs:
        a = sa.array(x)
        expected = np.sort(x)
        same(np.sort(a), expected)
        same(np.argsort(a), np.argsort(x, kind="stable"))
        stable = np.sort(a, kind="stable")
        assert np.asarray(stable).tobytes() == np.sort(x, kind="stable").tobytes()
        ranks = [5, N // 2]
        parted = np.asarray(np.partition(a, ranks))
        np.testing.assert_array_equal(parted[ranks], expected[ranks])
        np.testing.assert_array_equal(np.sort(parted), expected)
        for rank in ranks:
            assert not (parted[:rank] > parted[rank]).any()
            assert not (parted[rank:] < parted[rank]).any()
        assert a.sort() is None
        np.testing.assert_array_equal(a, expected)


def test_sorting_along_axes():
    x = numbers("f8", special=True).reshape(500, 600)
    a = sa.array(x)
    for axis in (0, 1, -2, None):
        same(np.sort(a, axis=axis), np.sort(x, axis=axis))
        same(np.argsort(a, axis=axis), np.argsort(x, axis=axis, kind="stable"))
    a.sort(axis=0)
    np.testing.assert_array_equal(a, np.sort(x, axis=0))
    tall = sa.array(numbers("f8").reshape(3, -1)[:, ::-1])
    same(np.sort(tall), np.sort(np.asarray(tall)))


def test_keys_that_agree_in_their_upper_bits_are_sorted_too():
    random = np.random.default_rng(3)
    # Exponents over the whole range, so that a cell is wide, and in one of them values that differ in their last bits.
    x = 1.0 + random.integers(0, 1 << 20, N) * 2.0**-52
    x[::1000] = 10.0 ** random.uniform(-300, 300, len(x[::1000]))
    same(np.sort(sa.array(x)), np.sort(x))
    same(np.argsort(sa.array(x)), np.argsort(x, kind="stable"))


def test_what_cannot_be_sorted_so_is_numpys():
    a = sa.array(numbers("f8"))
    with pytest.raises(ValueError, match="kind|sort"):
        np.sort(a, kind="nonsense")
    with pytest.raises(np.exceptions.AxisError):
        np.sort(a, axis=1)
    with pytest.raises(ValueError, match="kth"):
        np.partition(a, N)
    halves = numbers("f8").astype("f2")
    same(np.sort(sa.array(np.tile(halves, 3))), np.sort(np.tile(halves, 3)))
    a.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        a.sort()


def test_searching():
    x = np.sort(numbers("f8", special=True)[:5000])
    values = numbers("f8", 1, special=True)
    for side in ("left", "right"):
        same(np.searchsorted(x, sa.array(values), side=side), np.searchsorted(x, values, side=side))
        same(sa.array(x).searchsorted(sa.array(values), side), x.searchsorted(values, side))
    edges = [-1.0, 0.0, 0.0, 2.5]
    for right in (False, True):
        same(np.digitize(sa.array(values), edges, right), np.digitize(values, edges, right))
        same(np.digitize(sa.array(values), edges[::-1], right), np.digitize(values, edges[::-1], right))


def test_unique():
    x = np.round(numbers("f8", special=True) * 100)
    a = sa.array(x)
    same(np.unique(a), np.unique(x))
    same(np.unique(a, return_counts=True), np.unique(x, return_counts=True))
    by_rows, rows = a.reshape(300, -1), x.reshape(300, -1)
    same(tuple(np.unique(by_rows, True, True, True)), tuple(np.unique(rows, True, True, True)))


def test_topk():
    for x in (numbers("f8"), np.round(numbers("f8")), numbers("f8")[:50]):
        for k in (0, 1, 49, len(x)):
            for largest in (True, False):
                found = sa.ops.topk(sa.array(x), k, largest=largest)
                order = np.argsort(-x if largest else x, kind="stable")[:k]
                same(found.indices, order)
                same(found.values, x[order])
    x = numbers("f8", special=True)
    assert np.isnan(sa.ops.topk(sa.array(x), 3).values).all()
    assert (sa.ops.topk(sa.array(x), 3, largest=False).values == -np.inf).all()
    with pytest.raises(ValueError, match="k must be"):
        sa.ops.topk(sa.array(x), N + 1)
    with pytest.raises(ValueError, match="one-dimensional"):
        sa.ops.topk(sa.zeros((2, 2)), 1)


# --- histograms and groups ----------------------------------------------------------------------------------


def test_histograms():
    for x in (numbers("f8"), np.round(numbers("f8") * 4), np.full(N, 2.0)):
        a = sa.array(x)
        cases = {"bins": 256}, {"bins": 50, "range": (-1, 2)}, {"bins": 9, "density": True}, {"bins": [0, 1]}
        for options in ({}, *cases):
            same(tuple(np.histogram(a, **options)), tuple(np.histogram(x, **options)))
    with pytest.raises(ValueError, match="finite"):
        np.histogram(sa.array(numbers("f8", special=True)))


def test_bincount():
    x = np.random.default_rng(1).integers(0, 700, N)
    weights = numbers("f8")
    a = sa.array(x)
    same(np.bincount(a), np.bincount(x))
    same(np.bincount(a, minlength=1000), np.bincount(x, minlength=1000))
    near(np.bincount(a, sa.array(weights)), np.bincount(x, weights), rtol=1e-10)
    with pytest.raises(ValueError, match="negative"):
        np.bincount(sa.array(x - 1))


@pytest.mark.parametrize("kind", ["near", "far apart"])
def test_groups(kind):
    random = np.random.default_rng(2)
    keys = random.integers(-50, 50, N) * (1 if kind == "near" else 10**15)
    values = numbers("f8")
    unique, inverse = np.unique(keys, return_inverse=True)
    groups = [values[inverse == number] for number in range(len(unique))]
    for how, function in (("sum", np.sum), ("mean", np.mean), ("min", np.min), ("max", np.max), ("count", np.size)):
        found = sa.ops.group_by(sa.array(keys), sa.array(values), how)
        same(found.keys, unique)
        np.testing.assert_allclose(found.values, [function(group) for group in groups], rtol=1e-9)
    values[0] = np.nan
    assert np.isnan(sa.ops.group_by(keys, values, "min").values).sum() == 1


def test_groups_of_few_and_of_none_and_what_is_refused():
    same(sa.ops.group_by([3, 1, 3], [1, 2, 5], "max").values, np.array([2, 5]))
    assert sa.ops.group_by(np.empty(0, int), np.empty(0)).values.shape == (0,)
    with pytest.raises(TypeError, match="integers"):
        sa.ops.group_by([1.5], [1])
    with pytest.raises(ValueError, match="how"):
        sa.ops.group_by([1], [1], "median")
    with pytest.raises(ValueError, match="values"):
        sa.ops.group_by([1], [1, 2])


# --- however it runs ----------------------------------------------------------------------------------------

PROGRAM = """
import hashlib, sys
import numpy as np
import shmarray as sa
x = np.random.default_rng(0).normal(size=400_000)
a, b = sa.array(x), sa.array(x.reshape(2000, 200))
keys = sa.array(np.abs(x * 10).astype(int))
results = [a.std(), b.std(0), b.std(1), np.nansum(a), b.argmax(0), np.cumsum(a), np.sort(a), np.argsort(a),
           np.bincount(keys, a), sa.ops.group_by(keys, a).values, np.median(a), *np.histogram(a)]
print(sa.get_pool().lanes, hashlib.sha256(b"".join(np.asarray(r).tobytes() for r in results)).hexdigest())
"""


def test_bits_are_the_same_for_any_number_of_lanes(namespace):
    def start(lanes):
        environment = {**os.environ, "SHMARRAY_WORKERS": str(lanes), "SHMARRAY_NAMESPACE": namespace}
        return subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)

    outputs = []
    for lanes in (1, 5):  # one after the other: the first compiles for both
        process = start(lanes)
        outputs.append(process.communicate(timeout=300)[0].split())
        assert process.returncode == 0
    assert [int(lanes) for lanes, _ in outputs] == [1, 5]
    assert len({digest for _, digest in outputs}) == 1


def test_small_settings_change_nothing():
    x = numbers("f8")
    a = sa.array(x)
    results = []
    for parallel_nbytes in (0, 1 << 40):
        with sa.config.override(parallel_nbytes=parallel_nbytes):
            results.append([a.std(), np.nansum(a), np.cumsum(a), np.linalg.norm(a), np.argsort(a, kind="stable")])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
