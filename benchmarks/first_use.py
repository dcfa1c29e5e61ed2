"""How long does the first call of each ready-made function take: with nothing compiled yet, and from the cache on disk?

Every figure is of a process of its own, in which numba is imported and has compiled something (its registries take a
quarter of a second to fill, once), and the pool runs. The cache is empty for the cold one and filled by it for the
cached one. What the call itself takes on an array of a million items is told beside: the time of a second call.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Suite, arguments

_SETUP = """
import json, time
import numba, numpy as np
numba.njit("int64(int64)")(lambda x: x + 1)
import shmarray as sa
x = np.random.default_rng(0).random(1_000_000)
a, i = sa.array(x), sa.array((x * 1000).astype(np.int64))
b, f, m = a.reshape(1000, 1000), sa.array(x.astype("f4")), sa.array(np.tile(x > 0.5, 4))
w, values = sa.array(np.tile(x, 4)), sa.array(np.linspace(0, 1, 101))
np.add(a, 1)
numbers = sa.ops.random.Generator(seed=1)
def run():
    return {call}
times = []
for _ in range(2):
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
print(json.dumps(times))
"""

CALLS = {
    "std": "a.std()",
    "std, axis 0": "b.std(0)",
    "std, float32": "f.std()",
    "nanmean": "np.nanmean(a)",
    "nansum": "np.nansum(a)",
    "nanstd": "np.nanstd(a)",
    "argmax": "a.argmax()",
    "nanargmax": "np.nanargmax(a)",
    "count_nonzero": "np.count_nonzero(a)",
    "norm": "np.linalg.norm(a)",
    "sort": "np.sort(a)",
    "sort, float32": "np.sort(f)",
    "sort rows": "np.sort(b)",
    "argsort": "np.argsort(a)",
    "argsort rows": "np.argsort(b)",
    "partition": "np.partition(a, 1000)",
    "median": "np.median(a)",
    "quantile": "np.quantile(a, [0.1, 0.9])",
    "unique": "np.unique(i)",
    "unique, all": "np.unique(i, True, True, True)",
    "searchsorted": "np.searchsorted(values, a)",
    "topk": "sa.ops.topk(a, 100)",
    "cumsum": "np.cumsum(a)",
    "histogram": "np.histogram(a, 256)",
    "bincount": "np.bincount(i)",
    "group_by sum": "sa.ops.group_by(i, a)",
    "group_by max": "sa.ops.group_by(i, a, 'max')",
    "where": "np.where(m, w, 0.0)",
    "take": "np.take(a, i)",
    "compress": "np.compress(m, w)",
    "nonzero": "np.nonzero(m)",
    "putmask": "np.putmask(w, m, 7)",
    "gaussian_filter": "sa.ops.gaussian_filter(b, 2)",
    "uniform_filter": "sa.ops.uniform_filter(b, 5)",
    "median_filter": "sa.ops.median_filter(b, 3)",
    "maximum_filter": "sa.ops.maximum_filter(b, 5)",
    "correlate": "sa.ops.correlate(b, np.ones((3, 3)))",
    "rolling_sum": "sa.ops.rolling_sum(a, 10)",
    "rolling_std": "sa.ops.rolling_std(a, 10)",
    "uniform": "numbers.uniform(size=1_000_000)",
    "normal": "numbers.normal(size=1_000_000)",
    "integers": "numbers.integers(0, 6, size=1_000_000)",
}


def main() -> None:
    options = arguments(
        __doc__,
        only={"nargs": "*", "metavar": "NAME", "help": "functions whose name begins so; all without"},
    )
    suite = Suite("the first call of a function, numba warm", options)
    chosen = [name for name in CALLS if not options.only or name.startswith(tuple(options.only))]
    slow: list[str] = []
    for name in chosen:
        cold, cached, again = [], [], []
        for _ in range(options.rounds or 3):
            with tempfile.TemporaryDirectory() as folder:
                cold.append(_first_and_second(CALLS[name], folder)[0])
                first, second = _first_and_second(CALLS[name], folder)
            cached.append(first)
            again.append(second)
        suite.add(name, "cold", cold)
        suite.add(name, "cached", cached)
        suite.add(name, "second call", again)
        if statistics.median(cold) > 0.5 or statistics.median(cached) > 0.05:
            slow.append(name)
        if sys.stderr.isatty():
            print(f"{name}: {statistics.median(cold):.3f} {statistics.median(cached):.3f}", file=sys.stderr)
    suite.note("over 0.5 s cold or 50 ms cached", ", ".join(slow) or "none")
    suite.report()


def _first_and_second(call: str, cache: str) -> tuple[float, float]:
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", _SETUP.replace("{call}", call)],
        check=True,
        env={**os.environ, "PYTHONPATH": root, "SHMARRAY_CACHE_DIR": cache},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    first, second = json.loads(done.stdout)
    return first, second


if __name__ == "__main__":
    main()
