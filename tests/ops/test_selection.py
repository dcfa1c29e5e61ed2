"""Selecting items of large SharedArrays by number and by mask: NumPy's results, errors and conversions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shmarray as sa

from .comparison import N, numbers, same


def test_selection():
    x = numbers("f8")
    mask = x > 0.5
    a, m = sa.array(x), sa.array(mask)
    wide, w, wide_mask = x.copy(), sa.array(x), mask
    same(np.compress(m, w), wide[wide_mask])
    same(w.compress(m), wide[wide_mask])
    same(w.compress([True, False]), wide.compress([True, False]))
    same(np.extract(m.reshape(4, -1), w.reshape(4, -1)), wide[wide_mask])
    same(np.compress(m & (w > 10), w), wide[wide_mask & (wide > 10)])
    same(np.flatnonzero(m), np.flatnonzero(wide_mask))
    same(np.nonzero(m.reshape(4, -1)), np.nonzero(wide_mask.reshape(4, -1)))
    same(np.where(m, w, -w), np.where(wide_mask, wide, -wide))
    same(np.where(m, w, 0), np.where(wide_mask, wide, 0))
    same(np.where(m), np.where(wide_mask))
    places = np.random.default_rng(1).integers(-N, N, (2, N))
    same(np.take(a, sa.array(places)), np.take(x, places))
    with pytest.raises(IndexError):
        np.take(a, sa.array(places + N))
    same(np.clip(w, -1, 0.5), np.clip(wide, -1, 0.5))
    same(w.clip(min=0), wide.clip(min=0))
    np.putmask(w, m, 7)
    np.putmask(wide, wide_mask, 7)
    same(w, wide)


MANY = 150_000  # two tasks


@pytest.fixture(autouse=True)
def _small_arrays_too():
    before = sa.config.parallel_nbytes
    sa.config.parallel_nbytes = 1 << 16
    yield
    sa.config.parallel_nbytes = before


def masked(seed, density):
    """An array, and a mask that is true so often."""
    random = np.random.default_rng(seed)
    return random.integers(-100, 100, MANY).astype(np.float64), random.random(MANY) < density


@settings(max_examples=10)
@given(
    seed=st.integers(0, 1000),
    density=st.sampled_from([0.0, 1e-5, 0.3, 0.999, 1.0]),
    shape=st.sampled_from([(MANY,), (150, 1000), (3, 50, 1000)]),
)
def test_masks_in_brackets_select_and_set_what_numpys_do(seed, density, shape):
    x, mask = masked(seed, density)
    x, mask = x.reshape(shape), mask.reshape(shape)
    a, shared_mask = sa.array(x), sa.array(mask)
    same(a[shared_mask], x[mask])
    same(a[mask], x[mask])
    same(np.nonzero(shared_mask), np.nonzero(mask))
    a[shared_mask] = 5
    x[mask] = 5
    same(a, x)
    values = np.arange(float(mask.sum()))
    a[mask] = sa.array(values) if seed % 2 else values
    x[mask] = values
    same(a, x)


def test_what_masks_convert_and_refuse_is_numpys():
    x, mask = masked(1, 0.5)
    i = x.astype("i8")
    a, m = sa.array(i), sa.array(mask)
    a[m], i[mask] = 2.75, 2.75
    a[m], i[mask] = np.float32(-1.5), np.float32(-1.5)
    same(a, i)
    with pytest.raises(OverflowError):
        a[m] = 1 << 70
    with pytest.raises(ValueError, match="assign"):
        a[m] = np.arange(3)
    with pytest.raises(IndexError, match="boolean index"):
        a[m[:-1]]
    same(a, i)
    rows, r = a.reshape(1000, -1), i.reshape(1000, -1)
    some = np.arange(1000) % 3 == 0
    same(rows[some], r[some])  # of rows
    rows[some] = np.arange(150)
    r[some] = np.arange(150)
    same(a, i)
    same(m[m], mask[mask])
    m[m] = False
    assert not m.any()
    a.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        a[m] = 1


def test_other_indices_are_left_alone():
    x = np.arange(200_000.0).reshape(400, 500)
    a = sa.array(x)
    for index in (3, (3, 4), slice(2, 9), (slice(None), 1), [1, 2], np.array([5, 6]), None, ..., True, np.True_):
        same(a[index], x[index])
    a[7], x[7] = 1, 1
    a[[8, 9], 3], x[[8, 9], 3] = 2, 2
    same(a, x)


def test_put_gives_equal_numbers_the_last_value():
    x = numbers("f8")
    places = np.random.default_rng(1).integers(-N, N, N)
    places[1::2] = places[::2]  # every number twice at least
    for values in (np.arange(float(N)), np.arange(7), 3):
        a, y = sa.array(x), x.copy()
        np.put(a, sa.array(places), values)
        np.put(y, places, values)
        same(a, y)
    a.put(sa.array(places), sa.array(np.arange(float(N))))
    y.put(places, np.arange(float(N)))
    same(a, y)
    with pytest.raises(IndexError, match="out of bounds"):
        np.put(a, sa.array(places + N), 0)
