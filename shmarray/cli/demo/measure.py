"""How long a step takes, for us and for the peers, and how fast this machine copies.

Invariant: contestants take turns on the same data in the same run, each keeps its best round, and what a
round needs beforehand (fresh input) is not timed. Bytes are those a step must move at least: each input read
once, each output written once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shmarray.array.transfer import copy_parallel

__all__ = ["Comparison", "compare", "copy_bandwidth"]

#: Rounds a contestant gets, and the seconds after which it gets no further one.
_ROUNDS = 3
_BUDGET_S = 1.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One step, timed for each contestant.

    Attributes
    ----------
    name : str
        What the step does.
    moved_nbytes : int
        Bytes read and written at least.
    seconds : mapping
        Contestant -> best time; `"shmarray"` is ours, a peer that has no such step is absent.
    """

    name: str
    moved_nbytes: int
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def ours_s(self) -> float:
        return self.seconds["shmarray"]

    def bandwidth(self, contestant: str = "shmarray") -> float:
        """Bytes a second."""
        return self.moved_nbytes / self.seconds[contestant]

    def speedup(self, peer: str) -> float | None:
        """How many times the peer's time ours is the shorter; None for an absent peer."""
        return self.seconds[peer] / self.ours_s if peer in self.seconds else None


def compare(
    name: str,
    moved_nbytes: int,
    *,
    contestants: Mapping[str, Callable[[], Any]],
    before: Callable[[], Any] | None = None,
) -> Comparison:
    """Time the contestants in turn; whoever comes last in the mapping leaves its result behind.

    Parameters
    ----------
    contestants : mapping
        Name -> the step. Each has been compiled and has touched its pages: call it once before, on little
        data.
    before : callable, optional
        Puts fresh input in place before each timed call.
    """
    best: dict[str, float] = {}
    last = list(contestants)[-1]
    spent = dict.fromkeys(contestants, 0.0)
    for _ in range(_ROUNDS):
        for contestant, run in contestants.items():
            # The last one always runs, for the sake of what it leaves behind.
            if spent[contestant] > _BUDGET_S and contestant != last:
                continue
            if before is not None:
                before()
            start = time.perf_counter()
            run()
            elapsed = time.perf_counter() - start
            spent[contestant] += elapsed
            best[contestant] = min(best.get(contestant, elapsed), elapsed)
    return Comparison(name, moved_nbytes, best)


def copy_bandwidth(source: np.ndarray, target: np.ndarray) -> float:
    """Bytes a second that this machine copies at its best, reading and writing counted.

    NumPy's copy, in a thread for each core and on one core alone, whichever is the faster; five runs each, the
    best counts. `target` is overwritten.
    """
    seconds = float("inf")
    for copy in (copy_parallel, np.copyto) * 5:
        start = time.perf_counter()
        copy(target, source)
        seconds = min(seconds, time.perf_counter() - start)
    return 2 * source.nbytes / seconds
