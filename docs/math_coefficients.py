"""Regenerate kernels/math/_coefficients.py: every polynomial and constant of the elementary functions.

    python docs/math_coefficients.py > kernels/math/_coefficients.py

Each polynomial interpolates its function at the Chebyshev nodes of the interval, in 60 digits (mpmath). That
is within a factor of about two of the minimax polynomial of the same degree: one bit, cheaper than the
search. The degree is the smallest one whose error, weighted as it enters the result, is below 2**-58 of the
result (2**-28 for float32). The formulas keep the leading terms apart and exact, so the rounding of the
coefficients hardly matters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.dps = 60


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """`function(z)` on an interval; an error `e` there enters the result as `e * weight(z)`."""

    name: str
    function: Callable[[mp.mpf], mp.mpf]
    low: mp.mpf
    high: mp.mpf
    weight: Callable[[mp.mpf], mp.mpf]
    bits64: int = 58
    bits32: int = 28
    high32: mp.mpf | None = None  # where float32's interval ends, if earlier


def odd(inner: Callable[[mp.mpf], mp.mpf]) -> Callable[[mp.mpf], mp.mpf]:
    """`(f(x) - x) / x**3` as a function of `z = x**2`."""

    def tail(z: mp.mpf) -> mp.mpf:
        x = mp.sqrt(z)
        return (inner(x) - x) / (x * z)

    return tail


def odd_weight(inner: Callable[[mp.mpf], mp.mpf]) -> Callable[[mp.mpf], mp.mpf]:
    def weight(z: mp.mpf) -> mp.mpf:
        x = mp.sqrt(z)
        return x * z / inner(x)

    return weight


def odd_share(inner: Callable[[mp.mpf], mp.mpf]) -> Callable[[mp.mpf], mp.mpf]:
    return lambda z: mp.sqrt(z) / inner(mp.sqrt(z))


def log_ratio(s: mp.mpf) -> mp.mpf:
    return mp.log((1 + s) / (1 - s))


def _log1p_tail(z: mp.mpf) -> mp.mpf:
    s = mp.sqrt(z)
    return (log_ratio(s / 2) / s - 1) / z


def _scaled_erfc(t: mp.mpf) -> mp.mpf:
    """`exp(x**2) erfc(x) (x + 7/8)` as a function of `t = (x - 4) / (x + 4)`: nearly flat, for all x >= 0."""
    x = 4 * (1 + t) / (1 - t)
    return mp.exp(x * x) * mp.erfc(x) * (x + mp.mpf("0.875"))


ERFC_FIRST = _scaled_erfc(mp.mpf(0))


def _lgamma_beyond_two(w: mp.mpf) -> mp.mpf:
    return (mp.loggamma(2 + w) / w - ONE_MINUS_EULER) / w


def _stirling(z: mp.mpf) -> mp.mpf:
    """What Stirling's formula leaves of `lgamma(x)`, times x, as a function of `z = 1 / x**2`."""
    x = 1 / mp.sqrt(z)
    return x * (mp.loggamma(x) - ((x - 0.5) * (mp.log(x) - 1) + STIRLING))


def _sin_pi(z: mp.mpf) -> mp.mpf:
    r = mp.sqrt(z)
    return (mp.sin(mp.pi * r) / r - mp.pi - z * SIN_PI_CUBIC) / z**2


SIN_PI_CUBIC = -(mp.pi**3) / 6
ONE_MINUS_EULER = 1 - mp.euler
STIRLING = mp.log(2 * mp.pi) / 2 - mp.mpf("0.5")
LN2_2 = mp.log(2) / 2 * mp.mpf("1.001")
S_MAX = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1) * mp.mpf("1.0001")
QUARTER = (mp.pi / 4) ** 2 * mp.mpf("1.002")
TAN = (mp.sqrt(2) - 1) ** 2 * mp.mpf("1.0001")

FITS = [
    Fit("exp", lambda r: (mp.expm1(r) - r) / r**2, -LN2_2, LN2_2, lambda r: r**2),
    Fit(
        "exp2",
        lambda r: (mp.expm1(r * mp.log(2)) / r - mp.log(2)) / r,
        mp.mpf("-0.501"),
        mp.mpf("0.501"),
        lambda r: r**2,
    ),
    Fit("log", lambda z: (log_ratio(mp.sqrt(z)) / mp.sqrt(z) - 2) / z, mp.mpf(0), S_MAX**2, lambda z: z / 2),
    Fit(
        "log_tail",
        lambda z: ((log_ratio(mp.sqrt(z)) / mp.sqrt(z) - 2) / z - mp.mpf(2) / 3) / z,
        mp.mpf(0),
        S_MAX**2,
        lambda z: z**2 / 2,
        68,
        34,
    ),
    # For float32 powers, which are computed in float64.
    Fit(
        "log_medium",
        lambda z: (log_ratio(mp.sqrt(z)) / mp.sqrt(z) - 2) / z,
        mp.mpf(0),
        S_MAX**2,
        lambda z: z / 2,
        42,
        42,
    ),
    Fit(
        "exp2_medium",
        lambda r: mp.expm1(r * mp.log(2)) / r,
        mp.mpf("-0.501"),
        mp.mpf("0.501"),
        lambda r: abs(r),
        36,
        36,
    ),
    Fit("sin", odd(mp.sin), mp.mpf(0), QUARTER, odd_weight(mp.sin)),
    Fit(
        "cos",
        lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2,
        mp.mpf(0),
        QUARTER,
        lambda z: z**2 / mp.cos(mp.sqrt(z)),
    ),
    Fit("arctan", odd(mp.atan), mp.mpf(0), TAN, odd_weight(mp.atan)),
    Fit("arcsin", odd(mp.asin), mp.mpf(0), mp.mpf("0.25001"), odd_weight(mp.asin)),
    Fit("sinh", odd(mp.sinh), mp.mpf(0), mp.mpf("1.0001"), odd_weight(mp.sinh)),
    Fit("tanh", odd(mp.tanh), mp.mpf(0), mp.mpf("0.3026"), odd_weight(mp.tanh)),
    Fit("arcsinh", odd(mp.asinh), mp.mpf(0), mp.mpf("0.25001"), odd_weight(mp.asinh)),
    Fit("arctanh", odd(mp.atanh), mp.mpf(0), mp.mpf("0.25001"), odd_weight(mp.atanh)),
    Fit("erf", lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, mp.mpf(0), mp.mpf("1.0001"), odd_share(mp.erf)),
    # The logarithm of erfc beyond 1, for erf: what it is worth there falls with erfc itself. float64's needs 25
    # terms for 2**-57, one more bit two more.
    Fit(
        "log_erfc",
        lambda t: -mp.log(mp.erfc(1 + t)),
        mp.mpf(0),
        mp.mpf("4.95"),
        lambda t: mp.erfc(1 + t),
        57,
        28,
        high32=mp.mpf(3),
    ),
    Fit(
        "erfc",
        lambda t: (_scaled_erfc(t) - ERFC_FIRST) / t,
        mp.mpf(-1),
        mp.mpf("0.7443"),  # x = 27.28
        lambda t: abs(t) / _scaled_erfc(t),
        high32=mp.mpf("0.433"),  # x = 10.11
    ),
    # log1p(e) = S + S Z P(Z) with S = 2 e / (2 + e) up to 2/3; the second one for float32, in float64
    Fit("log1p", _log1p_tail, mp.mpf(0), mp.mpf(4) / 9, lambda z: z, 59),
    Fit("log1p_medium", _log1p_tail, mp.mpf(0), mp.mpf(4) / 9, lambda z: z, 42, 42),
    *(
        Fit(name, _lgamma_beyond_two, mp.mpf("-0.5"), mp.mpf("0.5"), lambda w: abs(w * w / mp.loggamma(2 + w)), *bits)
        for name, bits in (("lgamma", (60, 28)), ("lgamma_medium", (36, 36)))
    ),
    *(
        Fit(name, _stirling, mp.mpf("1e-6"), mp.mpf(4) / 81, lambda z: mp.sqrt(z) / mp.loggamma(1 / mp.sqrt(z)), *bits)
        for name, bits in (("stirling", (60, 28)), ("stirling_medium", (36, 36)))
    ),
    Fit("sin_pi", _sin_pi, mp.mpf(0), mp.mpf("0.2501"), lambda z: z**2 / 2, 59),
    # A first guess only: Newton's steps triple and double its bits.
    Fit("inverse_cbrt", lambda m: mp.cbrt(1 / m), mp.sqrt("0.5"), mp.sqrt(2), lambda m: mp.cbrt(m), 19, 10),
]

CONSTANTS = {
    "ln2": mp.log(2),
    "log2e": 1 / mp.log(2),
    "log10e": 1 / mp.log(10),
    "log10_2": mp.log10(2),
    "half_pi": mp.pi / 2,
    "quarter_pi": mp.pi / 4,
    "pi": mp.pi,
    "two_over_pi": 2 / mp.pi,
    "two_thirds": mp.mpf(2) / 3,
    "one_third": mp.mpf(1) / 3,
    "cbrt2": mp.cbrt(2),
    "cbrt4": mp.cbrt(4),
    "inverse_cbrt2": 1 / mp.cbrt(2),
    "inverse_cbrt4": 1 / mp.cbrt(4),
    "erfc_first": ERFC_FIRST,
    "one_minus_euler": ONE_MINUS_EULER,
    "stirling": STIRLING,
    "log_pi": mp.log(mp.pi),
    "sin_pi_cubic": SIN_PI_CUBIC,
}


def interpolate(fit: Fit, count: int) -> list[mp.mpf]:
    """The coefficients of the polynomial through `count` Chebyshev nodes."""
    centre, radius = (fit.low + fit.high) / 2, (fit.high - fit.low) / 2
    nodes = [centre + radius * mp.cos(mp.pi * (2 * i + 1) / (2 * count)) for i in range(count)]
    # A node in the middle is zero but for rounding, and there the functions would cancel.
    nodes = [node if abs(node) > mp.mpf("1e-15") else mp.mpf("1e-15") for node in nodes]
    return list(
        mp.lu_solve(mp.matrix([[node**j for j in range(count)] for node in nodes]), [fit.function(n) for n in nodes])
    )


def worst(fit: Fit, coefficients: list[mp.mpf]) -> mp.mpf:
    """The largest weighted error on a grid."""
    grid = [fit.low + (fit.high - fit.low) * (i + mp.mpf("0.37")) / 200 for i in range(200)]
    return max(abs(mp.polyval(coefficients[::-1], z) - fit.function(z)) * fit.weight(z) for z in grid)


def main() -> None:
    print('"""Coefficients of the elementary functions; written by docs/math_coefficients.py, not by hand.\n')
    print("Beside each polynomial: the largest error of its fit, as it enters the result.")
    print('"""\n')
    print("TABLE: dict[tuple[str, str], tuple[float, ...]] = {")
    for whole in FITS:
        for name, real, bits in (("float32", np.float32, whole.bits32), ("float64", np.float64, whole.bits64)):
            fit = whole
            if name == "float32" and fit.high32 is not None:
                fit = dataclasses.replace(fit, high=fit.high32)
            for count in range(2, 28):
                coefficients = interpolate(fit, count)
                error = worst(fit, coefficients)
                if error < mp.mpf(2) ** -bits:
                    break
            print(f'    ("{fit.name}", "{name}"): (  # 2**{mp.nstr(mp.log(error, 2), 4)}')
            for coefficient in coefficients:
                print(f"        {float(real(float(coefficient)))!r},")
            print("    ),")
    print("}\n")
    print("EXACT: dict[str, str] = {")
    for name, value in CONSTANTS.items():
        print(f'    "{name}": "{mp.nstr(value, 58)}",')
    print("}\n")
    with mp.workdps(420):
        digits = f"{int(mp.floor(2 / mp.pi * mp.mpf(2) ** 1280)):0320x}"
    print("#: The first 1,280 binary digits of 2/pi.")
    print("TWO_OVER_PI = (")
    for start in range(0, len(digits), 80):
        print(f'    "{digits[start : start + 80]}"')
    print(")")


if __name__ == "__main__":
    main()
