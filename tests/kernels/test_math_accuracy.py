"""The elementary functions against mpmath, and the special cases against NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import mpmath
import numpy as np
import pytest

from shmarray.kernels import math as fast
from tests.kernels.ulp import FAMILIES, FUNCTIONS, TWO_ARGUMENTS, error_in_ulp, evaluate, least_counted, reference

DTYPES = [np.float32, np.float64]
POINTS = 150

#: Arguments at which a careless reduction or a boundary fails.
ADVERSARIAL = {
    # multiples of pi/2 that floats come closest to, and the edges of the reduction's range
    "trigonometric": [
        6381956970095103.0 * 2.0**797,
        5.319372648326541e255,
        11.0,
        22.0,
        355.0,
        710.0,
        103993.0,
        245850922.0,
        411557987.0,
        2.0**20,
        np.nextafter(2.0**20, np.inf),
        2.0**32,
        np.nextafter(2.0**32, np.inf),
        1e22,
        1e300,
        0.7853981633974483,
        1.5707963267948966,
        3.141592653589793,
        2.356194490192345,
    ],
    "exponential": [
        *(
            709.782712893384,
            709.78,
            -708.3964185322641,
            -745.13,
            -740.0,
            88.72,
            88.7228,
            -87.3,
            -103.5,
            -100.0,
        ),
        *(0.34657359027997264, 0.3465735902799727, 1e-300, 37.0, 37.4, 17.3),
        *(1023.5, -1022.5, -1073.5, 127.5, -148.5),
    ],
    "near one": [
        *(1 - 2.0**-53, 1 + 2.0**-52, 1 - 2.0**-24, 1 + 2.0**-23, 0.7071067811865475, 0.7071067811865477),
        *(0.5, 0.55, 0.41421356237309503, 2.414213562373095, 1.4142135623730951),
        *(2.0**60, 2.0**-60, 2.0**13, 2.0**-13, 8388608.0),
    ],
    # the edges of the formulas for erf, erfc and lgamma, and where they reach their last values
    "error and gamma": [
        *(5.86, 5.94, 3.92, 27.2, 26.5, 10.05, 9.2),
        *(1.5, 2.5, 3.5, 4.5, 2.000001, 1.999999, 1.46163214496836),
    ],
}


def _points(name: str, dtype: type[np.floating], interval: tuple[float, float]) -> np.ndarray:
    """Dense points, points uniform in the bits (so over all exponents), and the adversarial ones."""
    rng = np.random.default_rng(20)
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    dense = rng.uniform(*interval, POINTS).astype(dtype)
    wide = rng.integers(0, np.iinfo(bits).max, POINTS, dtype=bits).view(dtype)
    hard = np.array([value for group in ADVERSARIAL.values() for value in group])
    with np.errstate(over="ignore", under="ignore"):
        hard = np.concatenate([hard, -hard]).astype(dtype)
    smallest = np.finfo(dtype).smallest_normal
    tiny = np.array([smallest, smallest / 2, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max], dtype)
    found = np.concatenate([dense, wide, hard, tiny, -tiny])
    return found[np.isfinite(found)]


def _worst(name: str, dtype: type[np.floating], *arguments: np.ndarray) -> tuple[float, tuple[float, ...]]:
    true, _, _ = FUNCTIONS[name]
    computed = evaluate(name, *arguments)
    largest = mpmath.mpf(float(np.finfo(dtype).max))
    worst, where = 0.0, ()
    with mpmath.workdps(60):
        for values in zip(*arguments, computed, strict=True):
            *point, got = values
            if not np.isfinite(got):
                continue
            exact = true(*(mpmath.mpf(float(value)) for value in point))
            if not isinstance(exact, mpmath.mpf) or abs(exact) > largest:
                continue
            error = error_in_ulp(got, exact, least_counted(name, *(float(value) for value in point)))
            if error > worst:
                worst, where = error, tuple(float(value) for value in point)
    return worst, where


def _pairs(name: str, dtype: type[np.floating], interval: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(21)
    x = _points(name, dtype, interval)
    y = rng.permutation(_points(name, dtype, interval))
    x, y = x[(x != 0) & (y != 0)], y[(x != 0) & (y != 0)]  # mpmath has no signed zeros
    if name == "power":
        x = np.abs(x)
        x = x[x > 0]
        # exponents that bring every base to a result anywhere in the format's range
        limit = 700.0 if dtype is np.float64 else 85.0
        with np.errstate(divide="ignore"):
            y = rng.uniform(-1, 1, x.size) * limit / np.abs(np.log(x.astype(np.float64)))
        y = np.where(np.isfinite(y), y, 1.5).astype(dtype)
    return x, y


def _functions(family: str) -> Iterator[tuple[str, type[np.floating]]]:
    for name in FAMILIES[family]:
        for dtype in DTYPES:
            yield name, dtype


def test_every_function_is_tested():
    assert sorted(FUNCTIONS) == sorted(name for names in FAMILIES.values() for name in names)
    assert set(FUNCTIONS) == set(fast.__all__) - {"LONGEST", "SUBSTITUTES", "source_digest", "whole_power"}


@pytest.mark.parametrize("family", FAMILIES)
def test_error_stays_below_the_documented_bound(family):
    for name, dtype in _functions(family):
        _, interval, bound = FUNCTIONS[name]
        points = _pairs if name in TWO_ARGUMENTS else lambda *about: (_points(*about),)
        worst, where = _worst(name, dtype, *points(name, dtype, interval))
        assert worst <= bound, f"{name} of {dtype.__name__} is {worst} ULP off at {where}"


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double has no more digits than float64")
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"log sums"}))
def test_error_over_many_points_stays_below_the_bound_by_extended_precision(family):
    for name, dtype in _functions(family):
        if name in TWO_ARGUMENTS or not hasattr(np, name):
            continue
        _, interval, bound = FUNCTIONS[name]
        rng = np.random.default_rng(22)
        x = np.concatenate([rng.uniform(*interval, 20_000), np.exp(rng.uniform(-8, 5, 20_000))]).astype(dtype)
        computed = evaluate(name, x)
        with np.errstate(all="ignore"):
            exact = getattr(np, name)(x.astype(np.longdouble))
            usable = np.isfinite(exact.astype(dtype)) & (exact != 0)
        computed, exact = computed[usable], exact[usable]
        exponent = np.maximum(np.frexp(np.abs(exact))[1] - 1, np.finfo(dtype).minexp)
        unit = np.ldexp(np.longdouble(1), exponent - np.finfo(dtype).nmant)
        error = np.abs(computed.astype(np.longdouble) - exact) / unit
        worst = x[usable][error.argmax()]
        assert error.max() <= bound, f"{name} of {dtype.__name__} is {error.max()} ULP off at {worst}"


def test_lgamma_is_right_to_the_last_bit_about_its_zeros_at_1_and_2():
    rng = np.random.default_rng(24)
    for dtype in DTYPES:
        steps = (2.0 ** rng.uniform(-np.finfo(dtype).nmant, -2, 60) * rng.choice([-1, 1], 60)).astype(dtype)
        for zero in (1, 2):
            worst, where = _worst("lgamma", dtype, dtype(zero) + steps)
            assert worst <= 1.2, f"{dtype.__name__}: {worst} ULP at {where}"


def test_lgamma_of_negative_numbers_is_right_to_a_quarter_s_last_bit_and_in_float32_to_its_own():
    # Between two poles it has two zeros; there nothing but the size of what is subtracted bounds the error.
    zeros = [-2.4570247382208006, -2.7476826467274127, -3.143580888349980, -3.955294284858598, -5.9991973211]
    zeros = np.array([*zeros, -6.001385294453, -10.5, -100.25, -0.75, -1.25])
    rng = np.random.default_rng(25)
    x = (zeros[:, None] * (1 + 2.0 ** rng.uniform(-50, -8, (10, 30)))).ravel()
    worst, where = _worst("lgamma", np.float64, x)  # in units of the last place of 1/4 at least
    assert worst <= 2, where
    single = np.concatenate([x.astype(np.float32), *(zeros.astype(np.float32) + [[0.0], [2e-7], [-2e-7]])])
    computed = evaluate("lgamma", single.astype(np.float32))
    for at, got in zip(single.astype(np.float32), computed, strict=True):
        assert error_in_ulp(got, FUNCTIONS["lgamma"][0](mpmath.mpf(float(at)))) <= 0.52, at


def test_log_sums_lose_nothing_but_the_last_bits_of_what_cancels():
    # Where the result is near zero the terms cancel: the error stays below 2**-54.
    rng = np.random.default_rng(26)
    for name, base in (("logaddexp", math.e), ("logaddexp2", 2.0)):
        x = -(2.0 ** rng.uniform(-6, 1, 300))
        y = np.log1p(-(base**x)) / math.log(base) * (1 + rng.normal(size=300) * 2.0 ** rng.uniform(-52, -4, 300))
        computed = evaluate(name, x, y)
        small = np.abs(computed) < 0.125
        assert small.sum() > 100
        with mpmath.workdps(60):
            for a, b, got in zip(x[small], y[small], computed[small], strict=True):
                true = FUNCTIONS[name][0](mpmath.mpf(float(a)), mpmath.mpf(float(b)))
                assert abs(mpmath.mpf(float(got)) - true) < 2.0**-54, (name, a, b)


def _specials(dtype: type[np.floating]) -> np.ndarray:
    info = np.finfo(dtype)
    positive = [
        0.0,
        info.smallest_subnormal,
        info.smallest_normal,
        0.5,
        1.0,
        1.5,
        2.0,
        3.0,
        4.0,
        1e6,
        2.0**60,
    ]
    positive += [2.0**53 - 1, 2.0**24 - 1, info.max, np.inf]
    return np.array([*positive, *(-value for value in positive), np.nan], dtype)


def _assert_same_special_values(name: str, dtype: type[np.floating], *arguments: np.ndarray) -> None:
    """nan where NumPy has nan; infinities and zeros with NumPy's sign; the rest close."""
    with np.errstate(all="ignore"):
        expected = reference(name)(*(a.astype(np.float64) for a in arguments)).astype(dtype)
    computed = evaluate(name, *arguments)
    assert computed.dtype == dtype
    special = ~np.isfinite(expected) | (expected == 0)
    np.testing.assert_array_equal(computed[special], expected[special])
    number = special & ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(computed[number]), np.signbit(expected[number]))
    # NumPy's logaddexp2 is itself up to 2 ULP off.
    units = 4 if name.startswith("logaddexp") else 2
    np.testing.assert_array_max_ulp(computed[~special], expected[~special], units)


@pytest.mark.parametrize("family", FAMILIES)
def test_special_values_are_numpy_s(family):
    for name, dtype in _functions(family):
        specials = _specials(dtype)
        if name in TWO_ARGUMENTS:
            x, y = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(specials, specials))
            _assert_same_special_values(name, dtype, x, y)
        else:
            _assert_same_special_values(name, dtype, specials)


def test_log_sums_of_equal_numbers_are_exact():
    x = np.array([-1.0, 0.0, 3.0, -np.inf, np.inf])
    for dtype in DTYPES:
        np.testing.assert_array_equal(evaluate("logaddexp2", x.astype(dtype), x.astype(dtype)), x.astype(dtype) + 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_value_has_the_same_bits_at_every_place_of_an_array(family):
    # The vector body and the scalar remainder of the loop must agree, or chunk boundaries would show.
    for name, dtype in _functions(family):
        _, interval, _ = FUNCTIONS[name]
        rng = np.random.default_rng(23)
        arguments = [rng.uniform(*interval, 77).astype(dtype) for _ in range(2 if name in TWO_ARGUMENTS else 1)]
        arguments[0][::7] = dtype(1e30)
        arguments[0][3::11] = dtype(-3.7)
        together = evaluate(name, *arguments)
        alone = np.concatenate([evaluate(name, *(a[i : i + 1] for a in arguments)) for i in range(77)])
        kind = f"u{together.itemsize}"
        np.testing.assert_array_equal(together.view(kind), alone.view(kind), f"{name} of {kind}")
