"""Elementary functions on one core: a numba loop over shmarray's against NumPy's ufunc.

    python benchmarks/math_functions.py [--size 1000000] [--rounds 15] [--json results.json] [exp sin ...]

Both run in turn on the same array, so that what else the machine does falls on both; the figures are medians
of single calls in microseconds, and the ratio is NumPy's time over ours (above 1: ours is faster). "errors"
verifies against extended precision: the largest error in ULP over the benchmark's own points (blank where
long double is no wider).

For figures of AVX2 on a CPU with AVX-512 set NUMBA_CPU_NAME=haswell and NPY_DISABLE_CPU_FEATURES="AVX512F
..." first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from rich.console import Console
from rich.table import Table

from shmarray.kernels import math as fast
from shmarray.kernels.vectors import wide_vectors

#: name -> interval of the arguments; two intervals for functions of two
INTERVALS: dict[str, tuple[tuple[float, float], ...]] = {
    "exp": ((-20, 20),),
    "exp2": ((-20, 20),),
    "expm1": ((-3, 3),),
    "log": ((1e-3, 1e3),),
    "log2": ((1e-3, 1e3),),
    "log10": ((1e-3, 1e3),),
    "log1p": ((-0.9, 10),),
    "sin": ((-100, 100),),
    "cos": ((-100, 100),),
    "tan": ((-100, 100),),
    "arcsin": ((-1, 1),),
    "arccos": ((-1, 1),),
    "arctan": ((-10, 10),),
    "arctan2": ((-10, 10), (-10, 10)),
    "sinh": ((-5, 5),),
    "cosh": ((-5, 5),),
    "tanh": ((-5, 5),),
    "arcsinh": ((-10, 10),),
    "arccosh": ((1, 10),),
    "arctanh": ((-1, 1),),
    "cbrt": ((-10, 10),),
    "hypot": ((-10, 10), (-10, 10)),
    "power": ((0.01, 10), (-5, 5)),
}


def loop_over(function: Callable[..., Any], arity: int) -> Callable[..., None]:
    """The loop that a user would write."""
    if arity == 2:

        @numba.njit(error_model="numpy", nogil=True)
        def pairs(x, y, out):  # type: ignore[no-untyped-def]
            wide_vectors()
            for i in range(out.size):
                out[i] = function(x[i], y[i])

        return pairs  # type: ignore[no-any-return]

    @numba.njit(error_model="numpy", nogil=True)
    def singles(x, out):  # type: ignore[no-untyped-def]
        wide_vectors()
        for i in range(out.size):
            out[i] = function(x[i])

    return singles  # type: ignore[no-any-return]


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def largest_error(ufunc: np.ufunc, arguments: list[np.ndarray], computed: np.ndarray) -> float | None:
    """In ULP of the result, against long double; None where that has no more digits."""
    info = np.finfo(computed.dtype)
    if np.finfo(np.longdouble).nmant < info.nmant + 10:
        return None
    exact = ufunc(*(a.astype(np.longdouble) for a in arguments))
    unit = np.ldexp(np.longdouble(1), np.maximum(np.frexp(np.abs(exact))[1] - 1, info.minexp) - info.nmant)
    return float(np.nanmax(np.abs(computed.astype(np.longdouble) - exact) / unit))


def measure(name: str, dtype: type[np.floating], *, size: int, rounds: int) -> dict[str, Any]:
    """One function and type: medians of both, their ratio and our error."""
    rng = np.random.default_rng(7)
    ufunc = getattr(np, name)
    arguments = [rng.uniform(*interval, size).astype(dtype) for interval in INTERVALS[name]]
    ours, theirs = np.empty(size, dtype), np.empty(size, dtype)
    loop = loop_over(getattr(fast, name), len(arguments))
    loop(*arguments, ours)
    ufunc(*arguments, out=theirs)
    pairs = [(seconds(loop, *arguments, ours), seconds(ufunc, *arguments, theirs)) for _ in range(rounds)]
    our_time, their_time = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "function": name,
        "dtype": np.dtype(dtype).name,
        "ours_us": our_time * 1e6,
        "numpy_us": their_time * 1e6,
        "ratio": their_time / our_time,
        "error_ulp": largest_error(ufunc, arguments, ours),
    }


def show(results: list[dict[str, Any]], size: int) -> None:
    table = Table(title=f"{size:,} elements, one core, medians in µs; ratio = NumPy / shmarray")
    for column in ("function", "dtype", "shmarray", "NumPy", "ratio", "error, ULP"):
        table.add_column(column, justify="left" if column in ("function", "dtype") else "right")
    for row in results:
        error = "" if row["error_ulp"] is None else f"{row['error_ulp']:.2f}"
        table.add_row(
            row["function"],
            row["dtype"],
            f"{row['ours_us']:,.0f}",
            f"{row['numpy_us']:,.0f}",
            f"{row['ratio']:.2f}",
            error,
        )
    console = Console()
    console.print(table)
    for kind in ("float64", "float32"):
        ratios = {row["function"]: row["ratio"] for row in results if row["dtype"] == kind}
        worst = min(ratios, key=lambda name: ratios[name])
        mean = statistics.geometric_mean(ratios.values())
        console.print(f"{kind}: geometric mean {mean:.2f}x, worst {worst} {ratios[worst]:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("functions", nargs="*", default=[], metavar="FUNCTION")
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file")
    options = parser.parse_args()
    unknown = set(options.functions) - set(INTERVALS)
    if unknown:
        parser.error(f"unknown functions: {', '.join(sorted(unknown))}; known: {', '.join(INTERVALS)}")
    np.seterr(all="ignore")
    results = [
        measure(name, dtype, size=options.size, rounds=options.rounds)
        for name in options.functions or INTERVALS
        for dtype in (np.float64, np.float32)
    ]
    show(results, options.size)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"size": options.size, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
