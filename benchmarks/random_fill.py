"""How fast are arrays filled with random numbers, 20 million float64 into touched pages?

NumPy fills private memory on one core, by its default generator and by its own counting one.
"""

from __future__ import annotations

import numpy as np
from harness import Contestant, Suite, arguments, touched

import shmarray as sa


def main() -> None:
    options = arguments(__doc__, count={"type": int, "default": 20_000_000, "help": "elements (20 million)"})
    suite = Suite(f"random fill, {options.count:,} float64", options)
    ours, numpys = sa.ops.random.Generator(0), np.random.default_rng(0)
    counting = np.random.Generator(np.random.Philox(0))
    shared, private = touched(sa.empty(options.count)), touched(np.empty(options.count))
    ours.normal(out=shared)
    numpys.standard_normal(out=private)
    for name, array in (("shmarray", shared), ("NumPy", private)):
        sample = np.asarray(array)[:1_000_000]
        if abs(sample.mean()) > 0.01 or abs(sample.std() - 1) > 0.01:
            raise SystemExit(f"{name}: these are no normal numbers")
    suite.run(
        "normal",
        [
            Contestant("shmarray", lambda: ours.normal(out=shared)),
            Contestant("NumPy, PCG64", lambda: numpys.standard_normal(out=private)),
            Contestant("NumPy, Philox", lambda: counting.standard_normal(out=private)),
        ],
        rounds=9,
    )
    suite.run(
        "uniform",
        [
            Contestant("shmarray", lambda: ours.uniform(out=shared)),
            Contestant("NumPy, PCG64", lambda: numpys.random(out=private)),
            Contestant("NumPy, Philox", lambda: counting.random(out=private)),
        ],
        rounds=9,
    )
    suite.report()


if __name__ == "__main__":
    main()
