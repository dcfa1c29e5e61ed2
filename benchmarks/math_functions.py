"""Elementary functions on one core: a numba loop over shmarray's against the best ready-made loop for it.

    python benchmarks/math_functions.py [--isa native avx2 avx512] [--size 100000] [--rounds 40] [--json FILE] [exp ...]

The peer is NumPy's ufunc; where NumPy has none, that of scipy.special, or numba's loop over the C library if SciPy is
not installed. Both run in turn on the same array, so that what else the machine does falls on both; the figures are
the least of all calls in nanoseconds an element, and the ratio is the peer's over ours (above 1: ours is faster).
"error" verifies against extended precision: the largest error in ULP over the benchmark's own points (blank where long
double is no wider, or knows no such function).

`--isa` chooses the vector instructions, one process each: `avx2` and `avx512` for numba (its CPU settings) and
NumPy (its dispatch) alike; what this processor lacks is skipped and said. SciPy's loops and the C library's choose
for themselves.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import binding
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
    "logaddexp": ((-10, 10), (-10, 10)),
    "logaddexp2": ((-10, 10), (-10, 10)),
    "erf": ((-3, 3),),
    "erfc": ((-3, 3),),
    "lgamma": ((0.1, 20),),
}

#: scipy.special's name where NumPy has no such function
SCIPY = {"erf": "erf", "erfc": "erfc", "lgamma": "gammaln"}

#: name -> (numba's processor, the feature of it that is asked for)
INSTRUCTIONS = {"avx2": ("haswell", "avx2"), "avx512": ("skylake-avx512", "avx512vl")}


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


def peer(name: str, arity: int) -> tuple[str, Callable[..., Any]]:
    """Who is measured beside us, and a call of it that writes into its last argument."""
    ufunc = getattr(np, name, None)
    if ufunc is None:
        try:
            from scipy import special

            ufunc = getattr(special, SCIPY[name])
        except ImportError:
            return "numba, libm", loop_over(getattr(math, name), arity)
        return "SciPy", lambda *arguments: ufunc(*arguments[:-1], out=arguments[-1])
    return "NumPy", lambda *arguments: ufunc(*arguments[:-1], out=arguments[-1])


def nanoseconds(function: Callable[..., Any], *arguments: Any) -> float:
    """One call, by element of its output."""
    start = time.perf_counter()
    function(*arguments)
    return (time.perf_counter() - start) / arguments[-1].size * 1e9


def largest_error(name: str, arguments: list[np.ndarray], computed: np.ndarray) -> float | None:
    """In ULP of the result, against long double; None where that has no more digits or NumPy no such function.

    Sums of logarithms are measured from 1 upwards: they are zero on a curve.
    """
    info = np.finfo(computed.dtype)
    ufunc = getattr(np, name, None)
    if ufunc is None or np.finfo(np.longdouble).nmant < info.nmant + 10:
        return None
    exact = ufunc(*(a.astype(np.longdouble) for a in arguments))
    if name.startswith("logaddexp"):
        exact = np.where(np.abs(exact) < 1, np.nan, exact)
    unit = np.ldexp(np.longdouble(1), np.maximum(np.frexp(np.abs(exact))[1] - 1, info.minexp) - info.nmant)
    return float(np.nanmax(np.abs(computed.astype(np.longdouble) - exact) / unit))


def measure(name: str, dtype: type[np.floating], *, size: int, rounds: int) -> dict[str, Any]:
    """One function and type: the least time of both, their ratio and our error."""
    rng = np.random.default_rng(7)
    arguments = [rng.uniform(*interval, size).astype(dtype) for interval in INTERVALS[name]]
    ours, theirs = np.empty(size, dtype), np.empty(size, dtype)
    loop = loop_over(getattr(fast, name), len(arguments))
    peer_name, other = peer(name, len(arguments))
    loop(*arguments, ours)
    other(*arguments, theirs)
    pairs = [(nanoseconds(loop, *arguments, ours), nanoseconds(other, *arguments, theirs)) for _ in range(rounds)]
    our_time, their_time = (min(times) for times in zip(*pairs, strict=True))
    return {
        "function": name,
        "dtype": np.dtype(dtype).name,
        "peer": peer_name,
        "ours_ns": our_time,
        "peer_ns": their_time,
        "ratio": their_time / our_time,
        "error_ulp": largest_error(name, arguments, ours),
    }


def measure_with(instructions: str, command: list[str]) -> list[dict[str, Any]] | None:
    """The figures of a process that is bound to some instructions; None where this processor lacks them."""
    processor, feature = INSTRUCTIONS[instructions]
    if not binding.get_host_cpu_features().get(feature):
        return None
    environment = {**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    if instructions == "avx2":
        wider = [name for name in cpu_dispatch() if name.startswith("AVX512") or name == "X86_V4"]
        environment["NPY_DISABLE_CPU_FEATURES"] = " ".join(wider)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run(
            [sys.executable, __file__, *command, "--json", file.name, "--quiet"], env=environment, check=True
        )
        results: list[dict[str, Any]] = json.load(file)["results"]["native"]
    return results


def cpu_dispatch() -> list[str]:
    """The groups of instructions that this NumPy chooses among when it is imported."""
    names: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return names


def show(results: list[dict[str, Any]], instructions: str, size: int) -> None:
    table = Table(title=f"{instructions}: {size:,} elements, one core, least ns an element; ratio = peer / shmarray")
    for column in ("function", "dtype", "peer", "shmarray", "its", "ratio", "error, ULP"):
        table.add_column(column, justify="left" if column in ("function", "dtype", "peer") else "right")
    for row in results:
        error = "" if row["error_ulp"] is None else f"{row['error_ulp']:.2f}"
        figures = (f"{row[name]:.2f}" for name in ("ours_ns", "peer_ns", "ratio"))
        table.add_row(row["function"], row["dtype"], row["peer"], *figures, error)
    console = Console()
    console.print(table)
    for kind in ("float64", "float32"):
        ratios = {row["function"]: row["ratio"] for row in results if row["dtype"] == kind}
        worst = min(ratios, key=lambda name: ratios[name])
        mean = statistics.geometric_mean(ratios.values())
        console.print(f"{instructions}, {kind}: geometric mean {mean:.2f}x, worst {worst} {ratios[worst]:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("functions", nargs="*", default=[], metavar="FUNCTION")
    parser.add_argument("--isa", nargs="+", choices=["native", *INSTRUCTIONS], default=["native"])
    parser.add_argument("--size", type=int, default=100_000, help="elements; small enough to stay in the cache")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file")
    parser.add_argument("--quiet", action="store_true", help="print no table")
    options = parser.parse_args()
    unknown = set(options.functions) - set(INTERVALS)
    if unknown:
        parser.error(f"unknown functions: {', '.join(sorted(unknown))}; known: {', '.join(INTERVALS)}")
    np.seterr(all="ignore")
    found: dict[str, list[dict[str, Any]]] = {}
    for instructions in options.isa:
        if instructions == "native":
            results: list[dict[str, Any]] | None = [
                measure(name, dtype, size=options.size, rounds=options.rounds)
                for name in options.functions or INTERVALS
                for dtype in (np.float64, np.float32)
            ]
        else:
            command = [*options.functions, "--size", str(options.size), "--rounds", str(options.rounds)]
            results = measure_with(instructions, command)
        if results is None:
            print(f"{instructions}: this processor does not have it")
            continue
        found[instructions] = results
        if not options.quiet:
            show(results, instructions, options.size)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"size": options.size, "results": found}, file, indent=1)


if __name__ == "__main__":
    main()
