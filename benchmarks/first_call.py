"""How long does a program wait for its first kernel, once the kernel is in the cache on disk?

Each turn is a new interpreter that imports, makes an array of a million float64 and calls one kernel on it.
It reports how long the call took until its result was there (with numba's import, in ours), and how long all
took from the start of its first import. The peers: numba with `cache=True`, with and without threads, and
numba compiling anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import OURS, Suite, arguments

_OURS = """
import time; start = time.perf_counter()
import numpy as np
import shmarray as sa
@sa.elementwise
def f(x): return np.sqrt(x) * 2.5 + x
x = sa.ones(1_000_000)
called = time.perf_counter()
result = f(x)
end = time.perf_counter()
"""

_NUMBA = """
import time; start = time.perf_counter()
import numpy as np
x = np.ones(1_000_000)
called = time.perf_counter()
import numba
@numba.vectorize(["float64(float64)"], cache={cache}{target})
def f(x): return np.sqrt(x) * 2.5 + x
result = f(x)
end = time.perf_counter()
"""

_REPORT = """
assert result[0] == 3.5
import json; print(json.dumps([end - called, end - start]))
"""

PROGRAMS = {
    OURS: _OURS,
    "numba.vectorize, cached": _NUMBA.format(cache=True, target=""),
    "numba.vectorize parallel, cached": _NUMBA.format(cache=True, target=", target='parallel'"),
    "numba.vectorize, compiling": _NUMBA.format(cache=False, target=""),
}


def main() -> None:
    options = arguments(__doc__)
    suite = Suite("the first kernel call of a program, cache warm", options)
    calls: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    wholes: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as folder:
        root = str(Path(__file__).resolve().parent.parent)
        environment = {
            **os.environ,
            "PYTHONPATH": root,
            "SHMARRAY_CACHE_DIR": os.path.join(folder, "ours"),
            "NUMBA_CACHE_DIR": os.path.join(folder, "numba"),
        }
        scripts = {}
        for number, (name, program) in enumerate(PROGRAMS.items()):
            scripts[name] = Path(folder, f"program{number}.py")
            scripts[name].write_text(program + _REPORT, encoding="utf-8")
        warm_up, rounds = 2, options.rounds or 15
        for turn in range(warm_up + rounds):
            for name, script in scripts.items():
                done = subprocess.run(
                    [sys.executable, str(script)],
                    check=True,
                    env=environment,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                )
                call, whole = json.loads(done.stdout)
                if turn >= warm_up:
                    calls[name].append(call)
                    wholes[name].append(whole)
    for case, times in (
        ("the call alone, numba imported in it", calls),
        ("from the first import on", wholes),
    ):
        for name, seconds in times.items():
            suite.add(case, name, seconds)
    suite.report()


if __name__ == "__main__":
    main()
