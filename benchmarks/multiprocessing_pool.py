"""What does a call through a pool of processes cost beside the standard library's?

Two workers each, forked, hot; functions that do nothing; and arrays sent there and back.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
from harness import Contestant, Suite, arguments

from shmarray import multiprocessing as ours


def nothing(_: Any) -> None:
    """What the tasks do."""


def same(array: Any) -> Any:
    """Send an array back."""
    return array


def main() -> None:
    suite = Suite("pools of two processes", arguments(__doc__))
    array = np.random.default_rng(0).random(2_000_000)
    with ours.Pool(2) as pool, multiprocessing.Pool(2) as theirs:
        pools = [("shmarray.multiprocessing", pool), ("multiprocessing", theirs)]
        cases: list[tuple[str, Any, int, int]] = [
            ("map of 1,000 tasks, chunksize 1", lambda pool: pool.map(nothing, range(1000), chunksize=1), 3, 25),
            ("map of 2 tasks", lambda pool: pool.map(nothing, range(2), chunksize=1), 50, 25),
            ("apply", lambda pool: pool.apply(nothing, (0,)), 50, 25),
            (
                "1,000 apply_async",
                lambda pool: [job.get() for job in [pool.apply_async(nothing, (0,)) for _ in range(1000)]],
                1,
                15,
            ),
            ("imap of 1,000", lambda pool: list(pool.imap(nothing, range(1000))), 1, 15),
            ("16 MB there and back", lambda pool: pool.apply(same, (array,)), 1, 15),
        ]
        assert np.array_equal(pool.apply(same, (array,)), array)
        for case, run, calls, rounds in cases:
            contestants = [
                Contestant(name, lambda run=run, each=each: run(each), calls=calls)  # type: ignore[misc]
                for name, each in pools
            ]
            suite.run(case, contestants, rounds=rounds)
    suite.report()


if __name__ == "__main__":
    main()
