"""How fast are NumPy's functions on SharedArrays, beside NumPy's own and what else is installed?

One array of 20 million float64 for all. Peers work on the same numbers in memory of their own kind; polars and torch
take part where they can be imported. The memory bandwidth that the machine has for all cores is measured in the same
run, with the same pool: a sum by a compiled loop that does nothing else (reading), and a copy (reading and writing).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import Contestant, Suite, arguments, touched

import shmarray as sa


@sa.elementwise
def copy(x):  # type: ignore[no-untyped-def]
    return x


@sa.reduction(identity=np.int64(0), combine=lambda one, other: one | other)
def read_all(acc, x):  # type: ignore[no-untyped-def]
    return acc | x


#: What reads all of the array, and what also writes as much: memory is their limit, so they are told as shares of it.
READING = {"sum", "min", "max", "argmax", "mean", "std", "nanmean", "count_nonzero", "norm"}
COPYING = {"cumsum"}


def optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def main() -> None:
    options = arguments(__doc__, count={"type": int, "default": 20_000_000, "help": "elements (20 million)"})
    n = options.count
    suite = Suite(f"NumPy's functions, {n:,} float64", options)
    a = sa.empty(n)
    np.random.default_rng(0).random(out=np.asarray(a))
    x = np.array(a)  # private memory
    out = touched(sa.empty(n))
    keys = sa.array((x * 1000).astype(np.int64))
    private_keys = np.array(keys)
    mask, private_mask = a > 0.5, x > 0.5
    values = sa.array(np.linspace(0, 1, 1001))
    private_values = np.array(values)

    cases: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "sum": (lambda: np.sum(a), lambda: np.sum(x)),
        "min": (lambda: np.min(a), lambda: np.min(x)),
        "max": (lambda: np.max(a), lambda: np.max(x)),
        "argmax": (lambda: np.argmax(a), lambda: np.argmax(x)),
        "mean": (lambda: np.mean(a), lambda: np.mean(x)),
        "std": (lambda: np.std(a), lambda: np.std(x)),
        "nanmean": (lambda: np.nanmean(a), lambda: np.nanmean(x)),
        "count_nonzero": (lambda: np.count_nonzero(a), lambda: np.count_nonzero(x)),
        "norm": (lambda: np.linalg.norm(a), lambda: np.linalg.norm(x)),
        "sort": (lambda: np.sort(a), lambda: np.sort(x)),
        "argsort": (lambda: np.argsort(a), lambda: np.argsort(x)),
        "unique": (lambda: np.unique(a), lambda: np.unique(x)),
        "median": (lambda: np.median(a), lambda: np.median(x)),
        "quantiles": (lambda: np.quantile(a, [0.1, 0.9]), lambda: np.quantile(x, [0.1, 0.9])),
        "top 100": (lambda: sa.ops.topk(a, 100), lambda: np.argpartition(x, n - 100)[-100:]),
        "cumsum": (lambda: np.cumsum(a), lambda: np.cumsum(x)),
        "histogram 256": (lambda: np.histogram(a, 256), lambda: np.histogram(x, 256)),
        "bincount": (lambda: np.bincount(keys), lambda: np.bincount(private_keys)),
        "group sums": (
            lambda: sa.ops.group_by(keys, a, "sum"),
            lambda: np.bincount(private_keys, x),
        ),
        "searchsorted": (lambda: np.searchsorted(values, a), lambda: np.searchsorted(private_values, x)),
        "where": (lambda: np.where(mask, a, 0.0), lambda: np.where(private_mask, x, 0.0)),
        "a[mask]": (lambda: a[mask], lambda: x[private_mask]),
        "median of rows": (
            lambda: np.median(a[: n // 1000 * 1000].reshape(-1, 1000), axis=1),
            lambda: np.median(x[: n // 1000 * 1000].reshape(-1, 1000), axis=1),
        ),
        "nonzero": (lambda: np.nonzero(mask), lambda: np.nonzero(private_mask)),
    }
    peers: dict[str, dict[str, Callable[[], Any]]] = {}
    if (polars := optional("polars")) is not None:
        series = polars.Series(x)
        peers["polars"] = {
            "sum": series.sum,
            "min": series.min,
            "max": series.max,
            "argmax": series.arg_max,
            "mean": series.mean,
            "std": lambda: series.std(ddof=0),
            "sort": series.sort,
            "argsort": series.arg_sort,
            "unique": lambda: series.unique().sort(),
            "median": series.median,
            "quantiles": lambda: (series.quantile(0.1, "linear"), series.quantile(0.9, "linear")),
            "cumsum": series.cum_sum,
            "top 100": lambda: series.top_k(100),
        }
    if (torch := optional("torch")) is not None:
        tensor = torch.from_numpy(x)
        peers["torch"] = {
            "sum": tensor.sum,
            "min": tensor.min,
            "max": tensor.max,
            "argmax": tensor.argmax,
            "mean": tensor.mean,
            "std": lambda: tensor.std(correction=0),
            "sort": tensor.sort,
            "cumsum": lambda: tensor.cumsum(0),
            "histogram 256": lambda: torch.histc(tensor, 256),
            "top 100": lambda: tensor.topk(100),
        }

    words = a.view(np.int64)
    bandwidth = suite.run(
        "bandwidth",
        [Contestant("shmarray read", lambda: read_all(words)), Contestant("shmarray copy", lambda: copy(a, out=out))],
        rounds=9,
    )
    read, copying = bandwidth["shmarray read"].median, bandwidth["shmarray copy"].median
    suite.note("GB/s, reading", round(8 * n / read / 1e9, 1))
    suite.note("GB/s, copying (read + written)", round(16 * n / copying / 1e9, 1))
    for name, (ours, numpys) in cases.items():
        contestants = [Contestant("shmarray", ours), Contestant("NumPy", numpys)]
        contestants += [Contestant(peer, runs[name]) for peer, runs in peers.items() if name in runs]
        found = suite.run(name, contestants, rounds=5, warm_up=1)
        if name in READING:
            suite.note(f"{name}: share of the reading bandwidth", f"{read / found['shmarray'].median:.2f}")
        elif name in COPYING:
            suite.note(f"{name}: share of the copying bandwidth", f"{copying / found['shmarray'].median:.2f}")
        else:
            suite.note(f"{name}: passes of reading that it takes", round(found["shmarray"].median / read, 1))
    suite.report()


if __name__ == "__main__":
    main()
