"""The validation sets that NumPy ships for its own functions."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests.kernels.ulp import FAMILIES, FUNCTIONS, evaluate

DATA = pathlib.Path(np.__file__).parent / "_core" / "tests" / "data"
SETS = sorted(path.stem.removeprefix("umath-validation-set-") for path in DATA.glob("umath-validation-set-*.csv"))


def _read(name: str) -> dict[type[np.floating], tuple[np.ndarray, np.ndarray]]:
    rows: dict[type[np.floating], list[tuple[int, int]]] = {np.float32: [], np.float64: []}
    for line in (DATA / f"umath-validation-set-{name}.csv").read_text().splitlines():
        kind, _, rest = line.partition(",")
        if kind in ("np.float32", "np.float64"):
            given, expected, _ = rest.split(",")
            rows[getattr(np, kind[3:])].append((int(given, 16), int(expected, 16)))
    found = {}
    for dtype, pairs in rows.items():
        table = np.array(pairs, dtype=f"u{np.dtype(dtype).itemsize}").reshape(-1, 2)
        found[dtype] = tuple(np.ascontiguousarray(column).view(dtype) for column in table.T)
    return found


@pytest.mark.skipif(not SETS, reason="this NumPy comes without its tests' data")
@pytest.mark.parametrize("family", FAMILIES)
def test_numpy_s_validation_sets_are_met(family):
    for name in set(FAMILIES[family]) & set(SETS):
        # The expected values are rounded, so an error below 1 ULP may show as one unit, below 2 as two.
        units = 1 if FUNCTIONS[name][2] <= 1 else 2
        for x, expected in _read(name).values():
            computed = evaluate(name, x)
            finite = np.isfinite(expected)
            np.testing.assert_array_equal(computed[~finite], expected[~finite], name)
            np.testing.assert_array_max_ulp(computed[finite], expected[finite], units)


def test_every_validation_set_has_a_family():
    assert set(SETS) <= set(FUNCTIONS)
