"""Measure the errors that docs/math.md states: the elementary functions against extended precision.

    python docs/math_accuracy.py [--points 4000000] [exp sin ...]

For each function and type: points uniform over the interval where it does its work, points log-uniform from
2**-40 to 2**20 with both signs, and random bit patterns (so every exponent), a third each. The reference is
NumPy's long double (x87: 64 digits), whose own error adds at most 0.001 ULP in float64. Where the reference
itself is in doubt the tests use mpmath.

For erf, erfc, lgamma and the sums of logarithms long double has nothing to compare with: their reference is mpmath,
which is slow, so they get a hundredth of the points. The sums' error is counted from results of 1/8 upwards, that of
lgamma from 1/4 where x is below -1/2; near the curves and points where they are zero docs/math.md states its size.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import mpmath
import numpy as np

BY_MPMATH = {"erf", "erfc", "lgamma", "logaddexp", "logaddexp2"}
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "kernels"))

from ulp import FUNCTIONS, TWO_ARGUMENTS, error_in_ulp, evaluate, least_counted  # noqa: E402


def points(dtype: type[np.floating], interval: tuple[float, float], count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    third = count // 3
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    dense = rng.uniform(*interval, third).astype(dtype)
    wide = (2.0 ** rng.uniform(-40, 20, third) * rng.choice([-1.0, 1.0], third)).astype(dtype)
    anything = rng.integers(0, np.iinfo(bits).max, third, dtype=bits, endpoint=True).view(dtype)
    return rng.permutation(np.concatenate([dense, wide, anything]))


def largest_error_by_mpmath(name: str, dtype: type[np.floating], count: int) -> tuple[float, tuple[float, ...]]:
    true, interval, _ = FUNCTIONS[name]
    arguments = [points(dtype, interval, count, seed) for seed in range(2 if name in TWO_ARGUMENTS else 1)]
    finite = np.all([np.isfinite(a) for a in arguments], axis=0)
    arguments = [a[finite] for a in arguments]
    worst, where = 0.0, ()
    with mpmath.workdps(50):
        for *point, got in zip(*arguments, evaluate(name, *arguments), strict=True):
            exact = true(*(mpmath.mpf(float(value)) for value in point))
            if np.isfinite(got) and mpmath.isfinite(exact):
                place = tuple(float(value) for value in point)
                error = error_in_ulp(got, exact, least_counted(name, *place))
                worst, where = max((worst, where), (error, place))
    return worst, where


def largest_error(name: str, dtype: type[np.floating], count: int) -> tuple[float, tuple[float, ...]]:
    if name in BY_MPMATH:
        return largest_error_by_mpmath(name, dtype, max(count // 100, 1000))
    _, interval, _ = FUNCTIONS[name]
    arguments = [points(dtype, interval, count, seed) for seed in range(2 if name in TWO_ARGUMENTS else 1)]
    if name == "power":
        x = np.abs(arguments[0])
        exponent = np.random.default_rng(9).uniform(-1, 1, x.size) * np.log(float(np.finfo(dtype).max))
        y = exponent / np.abs(np.log(x.astype(np.float64)))
        arguments = [x, np.where(np.isfinite(y), y, 0.5).astype(dtype)]
    computed = evaluate(name, *arguments)
    exact = getattr(np, name)(*(a.astype(np.longdouble) for a in arguments))
    info = np.finfo(dtype)
    usable = np.isfinite(exact.astype(dtype)) & (exact != 0)
    unit = np.ldexp(np.longdouble(1), np.maximum(np.frexp(np.abs(exact))[1] - 1, info.minexp) - info.nmant)
    error = np.where(usable, np.abs(computed.astype(np.longdouble) - exact) / unit, 0)
    worst = int(error.argmax())
    return float(error[worst]), tuple(float(a[worst]) for a in arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("functions", nargs="*", metavar="FUNCTION")
    parser.add_argument("--points", type=int, default=4_000_000)
    options = parser.parse_args()
    if np.finfo(np.longdouble).nmant < 63:
        parser.error("long double has no more digits than float64 on this machine")
    np.seterr(all="ignore")
    for name in options.functions or FUNCTIONS:
        for dtype in (np.float64, np.float32):
            error, where = largest_error(name, dtype, options.points)
            print(f"{name:10} {np.dtype(dtype).name}  {error:.3f}  at {where}", flush=True)


if __name__ == "__main__":
    main()
