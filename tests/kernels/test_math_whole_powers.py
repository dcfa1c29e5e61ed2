"""Powers whose exponent the code names: products that lose nothing on the way."""

from __future__ import annotations

import mpmath
import numba
import numpy as np
import pytest

from shmarray.kernels.math import LONGEST, whole_power
from tests.kernels.ulp import error_in_ulp

EXPONENTS = (3, 6, -1, -3, 13, LONGEST, -LONGEST)


@numba.njit(error_model="numpy")
def powers(x, out):
    # The exponents of EXPONENTS; a loop could not hand over literals.
    for i in range(x.size):
        out[0, i] = whole_power(x[i], 3)
        out[1, i] = whole_power(x[i], 6)
        out[2, i] = whole_power(x[i], -1)
        out[3, i] = whole_power(x[i], -3)
        out[4, i] = whole_power(x[i], 13)
        out[5, i] = whole_power(x[i], 64)
        out[6, i] = whole_power(x[i], -64)


def test_error_is_below_one_ulp():
    rng = np.random.default_rng(30)
    for dtype in (np.float64, np.float32):
        wide = 2.0 ** rng.uniform(-15, 15, 100)
        edge = 2.0 ** (rng.uniform(-1.03, 1.0, 100) * (16 if dtype is np.float64 else 2))
        x = (np.concatenate([wide, edge]) * rng.choice([-1.0, 1.0], 200)).astype(dtype)
        out = np.empty((len(EXPONENTS), x.size), dtype)
        powers(x, out)
        for row, exponent in zip(out, EXPONENTS, strict=True):
            for at, got in zip(x, row, strict=True):
                true = mpmath.mpf(float(at)) ** exponent
                if abs(true) < float(np.finfo(dtype).max):
                    assert error_in_ulp(got, true) <= 1, (dtype, float(at), exponent)


def test_special_values_are_numpy_s():
    tiny = np.finfo(np.float64).smallest_subnormal
    values = [0.0, tiny, 1e-300, 0.5, 1.0, 2.0, 1e300, np.inf]
    x = np.array([*values, *(-value for value in values), np.nan])
    out = np.empty((len(EXPONENTS), x.size))
    powers(x, out)
    with np.errstate(all="ignore"):
        for row, exponent in zip(out, EXPONENTS, strict=True):
            expected = np.power(x, float(exponent))
            np.testing.assert_array_equal(row, expected)
            number = ~np.isnan(expected)
            np.testing.assert_array_equal(np.signbit(row[number]), np.signbit(expected[number]))


def test_other_exponents_are_refused():
    for exponent in (0, LONGEST + 1):
        with pytest.raises(numba.core.errors.TypingError):
            numba.njit(lambda x, n=exponent: whole_power(x, n))(1.0)
