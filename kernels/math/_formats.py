"""The numbers that differ between float32 and float64, so that each formula is written once.

A formula is a function of a `Format`: it takes its constants from there, each of the format's own type (a
Python float among them would lift float32 arithmetic to float64), and returns a scalar function.
"""

from __future__ import annotations

import dataclasses
import fractions
import math
from typing import Any

import numpy as np

from . import _coefficients


@dataclasses.dataclass(frozen=True, slots=True)
class Format:
    """One binary floating-point format."""

    name: str  # "float32" or "float64"
    real: Any  # the NumPy scalar type
    digits: int  # bits of the significand, 24 or 53
    shift: float  # 1.5 * 2**(digits - 1): see "shifted" in _bits
    largest_exponent: int  # 2**largest_exponent is the largest power of two

    def constants(self, *values: float) -> tuple[Any, ...]:
        """The values as scalars of this format."""
        return tuple(self.real(value) for value in values)

    def polynomial(self, name: str) -> tuple[Any, ...]:
        """The coefficients of a fitted polynomial, lowest first."""
        return self.constants(*_coefficients.TABLE[name, self.name])

    def parts(self, name: str, count: int) -> tuple[Any, ...]:
        """A constant as `count` numbers, each the rest of the ones before it, rounded."""
        rest = fractions.Fraction(_coefficients.EXACT[name])
        found = []
        for _ in range(count):
            part = self.real(float(rest))
            found.append(part)
            rest -= fractions.Fraction(float(part))
        return tuple(found)

    def short_parts(self, name: str) -> tuple[Any, Any]:
        """A constant as high + low, the high part so short that its product with an exponent is exact."""
        exact = fractions.Fraction(_coefficients.EXACT[name])
        unit = fractions.Fraction(2) ** (math.frexp(float(exact))[1] - self.digits + 12)
        high = round(exact / unit) * unit
        return self.real(float(high)), self.real(float(exact - high))

    @property
    def smallest_normal(self) -> Any:
        """The smallest number of full precision."""
        return self.real(np.finfo(self.real).smallest_normal)


FLOAT32 = Format("float32", np.float32, 24, 1.5 * 2.0**23, 127)
FLOAT64 = Format("float64", np.float64, 53, 1.5 * 2.0**52, 1023)
FORMATS = {"float32": FLOAT32, "float64": FLOAT64}
