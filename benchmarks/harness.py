"""The one way benchmarks are run here: contestants take turns, and ratios are of the same run.

A machine's speed drifts while it is measured (clocks, neighbours, page placement), so no contestant runs to
its end before the next begins: every round runs each of them once, in a new order each time (a fixed seed),
and a ratio is the median of the rounds' ratios. Absolute times are medians, with the spread of the middle
half.

Invariant: nothing that only one side pays is left out of, or slipped into, the timed part. What a contestant
needs beforehand is its `prepare`, run untimed before each of its turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

__all__ = ["Contestant", "Result", "Suite", "arguments", "touched"]

OURS = "shmarray"


@dataclass(slots=True)
class Contestant:
    """Something to be timed.

    Attributes
    ----------
    name : str
        `"shmarray"`, or a name that begins so, is ours.
    run : callable
        The timed call.
    calls : int
        How often it is called in one timed turn; the turn's time is divided by it. For what takes
        microseconds.
    prepare : callable, optional
        Untimed, before each turn.
    """

    name: str
    run: Callable[[], Any]
    calls: int = 1
    prepare: Callable[[], Any] | None = None


@dataclass(slots=True)
class Result:
    """Times of one contestant in one case, in seconds a call, one a round."""

    case: str
    contestant: str
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.seconds) < 4:
            return min(self.seconds), max(self.seconds)
        first, _, third = statistics.quantiles(self.seconds, n=4)
        return first, third


class Suite:
    """The cases of one script, their results, and how they are told.

    Parameters
    ----------
    title : str
        What the script measures.
    options : argparse.Namespace
        From :func:`arguments`.
    """

    def __init__(self, title: str, options: argparse.Namespace) -> None:
        self.title = title
        self.options = options
        self.results: list[Result] = []
        self.notes: dict[str, Any] = {}
        self._turns = random.Random(20240229)

    def run(self, case: str, contestants: Sequence[Contestant], *, rounds: int, warm_up: int = 2) -> dict[str, Result]:
        """Run each contestant once a round, in shuffled order, and keep the times.

        Parameters
        ----------
        case : str
            What all of them do.
        rounds : int
            Timed rounds; `--rounds` overrides it.
        warm_up : int
            Rounds before that are not timed: compilation, first touch, pools starting up.
        """
        rounds = self.options.rounds or rounds
        found = {contestant.name: Result(case, contestant.name) for contestant in contestants}
        order = list(contestants)
        for number in range(warm_up + rounds):
            self._turns.shuffle(order)
            for contestant in order:
                seconds = _turn(contestant)
                if number >= warm_up:
                    found[contestant.name].seconds.append(seconds)
            if sys.stderr.isatty():
                print(f"\r{case}: round {number + 1} of {warm_up + rounds}", end="", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        self.results += found.values()
        return found

    def add(self, case: str, contestant: str, seconds: Sequence[float]) -> None:
        """Times that were taken elsewhere (in processes of their own), one a round."""
        self.results.append(Result(case, contestant, list(seconds)))

    def note(self, name: str, value: Any) -> None:
        """A figure that is not a time: page faults, bytes, processor seconds while idle."""
        self.notes[name] = value

    # -- telling
    # ----------------------------------------------------------------------------------------------

    def ratios(self, case: str) -> dict[str, float]:
        """Peer -> how many times our time it takes: the median over rounds of peer / ours."""
        here = [result for result in self.results if result.case == case]
        ours = next((result for result in here if result.contestant.startswith(OURS)), None)
        if ours is None:
            return {}
        return {
            result.contestant: statistics.median(
                theirs / mine for theirs, mine in zip(result.seconds, ours.seconds, strict=False)
            )
            for result in here
            if result is not ours
        }

    def report(self) -> None:
        """Print the results: a table, or one JSON document with `--json`."""
        if self.options.json:
            print(json.dumps(self._document(), indent=2))
            return
        from rich.console import Console
        from rich.table import Table

        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = 130
        console.print(f"\n[bold]{self.title}[/]")
        console.print(f"[dim]{machine_line()}[/]")
        table = Table()
        for heading in ("case", "contestant"):
            table.add_column(heading)
        for heading in ("median", "middle half", "time / ours"):
            table.add_column(heading, justify="right")
        last = None
        for result in self.results:
            ratio = self.ratios(result.case).get(result.contestant)
            first, third = result.quartiles
            table.add_row(
                result.case if result.case != last else "",
                f"[bold]{result.contestant}[/]" if result.contestant.startswith(OURS) else result.contestant,
                format_seconds(result.median),
                f"{format_seconds(first)} - {format_seconds(third)}",
                "" if ratio is None else f"{ratio:.2f}x",
                end_section=False,
            )
            last = result.case
        console.print(table)
        for name, value in self.notes.items():
            console.print(f"{name}: {value}")

    def _document(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "machine": machine(),
            "results": [
                {
                    "case": result.case,
                    "contestant": result.contestant,
                    "median_s": result.median,
                    "quartiles_s": result.quartiles,
                    "rounds": len(result.seconds),
                    "peer_over_ours": self.ratios(result.case).get(result.contestant),
                }
                for result in self.results
            ],
            "notes": self.notes,
        }


def _turn(contestant: Contestant) -> float:
    if contestant.prepare is not None:
        contestant.prepare()
    run, calls = contestant.run, contestant.calls
    if calls == 1:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    turns = range(calls)
    start = time.perf_counter()
    for _ in turns:
        run()
    return (time.perf_counter() - start) / calls


def format_seconds(seconds: float) -> str:
    """A time with a fitting unit and three digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def machine() -> dict[str, Any]:
    """What the figures hold for: processor, cores, kernel, and the versions of all that takes part."""
    model = platform.processor() or "unknown"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as cpus:
            names = [line.split(":", 1)[1].strip() for line in cpus if line.startswith("model name")]
        model = names[0] if names else model
    except OSError:
        pass
    versions = {}
    for package in ("numpy", "numba", "numexpr", "shmarray-engine"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    import shmarray

    versions["shmarray-engine"] = shmarray.__version__
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
        "shmem_huge_pages": _chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        "private_huge_pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "versions": versions,
    }


def machine_line() -> str:
    """The same in one line."""
    facts = machine()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    pages = f"huge pages {facts['private_huge_pages']} (private) {facts['shmem_huge_pages']} (shared)"
    where = f"{facts['processor']}, {facts['cores']} cores, load {facts['load_1min']}, Linux {facts['kernel']}"
    return f"{where}, {pages}; Python {facts['python']}, {versions}"


def _chosen(path: str) -> str:
    """The choice in brackets of a /sys file such as `always [madvise] never`."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return "unknown"
    return text.partition("[")[2].partition("]")[0] or text.strip()


def arguments(description: str | None, **more: Any) -> argparse.Namespace:
    """Parse the command line that all scripts share: `--rounds`, `--json`.

    Parameters
    ----------
    more : dict
        Name -> keyword arguments of further options.
    """
    parser = argparse.ArgumentParser(description=(description or "").split("\n\n", 1)[0])
    parser.add_argument("--rounds", type=int, help="timed rounds, instead of the script's own number")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    for name, settings in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)
    return parser.parse_args()


def touched(array: Any) -> Any:
    """The array, every page written once: for contestants whose subject is not the first touch."""
    flat = array.reshape(-1).view("u1")
    flat[::4096] = flat[::4096]
    return array
