"""What the tests of NumPy's functions compare: arrays just large enough for the parallel versions, and how."""

from __future__ import annotations

import numpy as np

import shmarray as sa

N = 300_000


def numbers(dtype, seed=0, *, special=False):
    """Items of a dtype; with `special` also nan, infinities, both zeros and many equal ones."""
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, N, dtype=dtype, endpoint=True)
    x = random.normal(size=N)
    if special:
        for step, value in ((5, np.nan), (7, np.inf), (11, -np.inf), (13, 0.0), (17, -0.0), (19, 1.5)):
            x[step::step] = value
        x[3] = -np.nan
    return x.astype(dtype)


def same(result, expected):
    """The same values, dtypes and kinds of objects."""
    if isinstance(expected, tuple):
        for one, other in zip(result, expected, strict=True):
            same(one, other)
        return
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))
    assert np.asarray(result).dtype == np.asarray(expected).dtype
    assert type(result) is (sa.SharedArray if type(expected) is np.ndarray else type(expected))


def near(result, expected, *, rtol=1e-12):
    assert np.asarray(result).dtype == np.asarray(expected).dtype
    assert type(result) is (sa.SharedArray if type(expected) is np.ndarray else type(expected))
    np.testing.assert_allclose(np.asarray(result), np.asarray(expected), rtol=rtol, atol=1e-13)
