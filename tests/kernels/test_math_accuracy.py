"""The elementary functions against mpmath, and the special cases against NumPy."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from tests.kernels.ulp import FUNCTIONS, TWO_ARGUMENTS, error_in_ulp, evaluate

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
    reference, _, _ = FUNCTIONS[name]
    computed = evaluate(name, *arguments)
    largest = mpmath.mpf(float(np.finfo(dtype).max))
    worst, where = 0.0, ()
    with mpmath.workdps(60):
        for values in zip(*arguments, computed, strict=True):
            *point, got = values
            if not np.isfinite(got):
                continue
            exact = reference(*(mpmath.mpf(float(value)) for value in point))
            if not isinstance(exact, mpmath.mpf) or abs(exact) > largest:
                continue
            error = error_in_ulp(got, exact)
            if error > worst:
                worst, where = error, tuple(float(value) for value in point)
    return worst, where


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - TWO_ARGUMENTS))
def test_error_stays_below_the_documented_bound(name, dtype):
    _, interval, bound = FUNCTIONS[name]
    worst, where = _worst(name, dtype, _points(name, dtype, interval))
    assert worst <= bound, f"{name} is {worst} ULP off at {where}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(TWO_ARGUMENTS))
def test_error_of_two_arguments_stays_below_the_documented_bound(name, dtype):
    _, interval, bound = FUNCTIONS[name]
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
    worst, where = _worst(name, dtype, x, y)
    assert worst <= bound, f"{name} is {worst} ULP off at {where}"


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double has no more digits than float64")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - TWO_ARGUMENTS))
def test_error_over_many_points_stays_below_the_bound_by_extended_precision(name, dtype):
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
    assert error.max() <= bound, f"{name} is {error.max()} ULP off at {x[usable][error.argmax()]}"


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
        expected = getattr(np, name)(*(a.astype(np.float64) for a in arguments)).astype(dtype)
    computed = evaluate(name, *arguments)
    assert computed.dtype == dtype
    special = ~np.isfinite(expected) | (expected == 0)
    np.testing.assert_array_equal(computed[special], expected[special])
    number = special & ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(computed[number]), np.signbit(expected[number]))
    np.testing.assert_array_max_ulp(computed[~special], expected[~special], 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - TWO_ARGUMENTS))
def test_special_values_are_numpy_s(name, dtype):
    _assert_same_special_values(name, dtype, _specials(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(TWO_ARGUMENTS))
def test_special_values_of_two_arguments_are_numpy_s(name, dtype):
    specials = _specials(dtype)
    x, y = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(specials, specials))
    _assert_same_special_values(name, dtype, x, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - TWO_ARGUMENTS))
def test_a_value_has_the_same_bits_at_every_place_of_an_array(name, dtype):
    # The vector body and the scalar remainder of the loop must agree, or chunk boundaries would show.
    _, interval, _ = FUNCTIONS[name]
    x = np.random.default_rng(23).uniform(*interval, 77).astype(dtype)
    x[::7] = dtype(1e30)
    together = evaluate(name, x)
    alone = np.concatenate([evaluate(name, x[i : i + 1]) for i in range(x.size)])
    np.testing.assert_array_equal(together.view(f"u{x.itemsize}"), alone.view(f"u{x.itemsize}"))
