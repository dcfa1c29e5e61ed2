"""What the demonstration says: progress as it goes, the table of times, and the list of checks.

Invariant: the exit status follows from the list of checks alone, and each check that was begun is on it: one
that raises is one that did not hold.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from shmarray.cli.demo.measure import Comparison
from shmarray.cli.rendering import format_nbytes

__all__ = ["Check", "Report"]

_PEERS = ("NumPy", "numba threads")


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold, whether it did, and the figure that shows it."""

    claim: str
    held: bool
    shown: str = ""


class Report:
    """Collects checks and times, and prints them.

    Parameters
    ----------
    console : rich.console.Console
        Where to print. On a terminal the running step has a spinner; elsewhere each step is one line.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.checks: list[Check] = []
        self.comparisons: list[Comparison] = []
        self.copy_bandwidth = 0.0
        self._began = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._began

    @property
    def all_held(self) -> bool:
        return bool(self.checks) and all(check.held for check in self.checks)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show that a step is under way; its line stays, with the time it took."""
        start = time.perf_counter()
        with self.console.status(f"{title} ..."):
            yield
        self.console.print(f"[dim]{self.elapsed_s:5.1f} s[/]  {title} [dim]({time.perf_counter() - start:.1f} s)[/]")

    def say(self, text: str) -> None:
        """A line of explanation under the step."""
        self.console.print(f"         {text}", highlight=False)

    def check(self, claim: str, held: bool, shown: str = "") -> bool:
        """Note whether a claim held."""
        self.checks.append(Check(claim, bool(held), shown))
        if not held:
            self.console.print(f"         [bold red]does not hold:[/] {claim} {shown}")
        return bool(held)

    def print_table(self, lanes: int) -> None:
        """The times of each step beside the peers'."""
        table = Table(
            title=f"Each step beside its peers: same data, same run, {lanes} lanes",
            title_justify="left",
            caption=(
                f"GB/s: bytes read and written once, by the time of shmarray. The best copy in this run: "
                f"{self.copy_bandwidth / 1e9:.1f} GB/s."
            ),
            caption_justify="left",
        )
        table.add_column("step")
        table.add_column("bytes", justify="right")
        for peer in _PEERS:
            table.add_column(f"{peer}\nms", justify="right")
        table.add_column("shmarray\nms", justify="right", style="bold")
        table.add_column("GB/s", justify="right")
        table.add_column("% of\ncopy", justify="right")
        for peer in _PEERS:
            table.add_column(f"{peer}\n/ shmarray", justify="right")
        for comparison in self.comparisons:
            table.add_row(*self._row(comparison))
        self.console.print()
        self.console.print(table)

    def _row(self, comparison: Comparison) -> Sequence[str]:
        bandwidth = comparison.bandwidth()
        times = [comparison.seconds.get(peer) for peer in _PEERS]
        ratios = [comparison.speedup(peer) for peer in _PEERS]
        share = 100 * bandwidth / self.copy_bandwidth if self.copy_bandwidth else float("nan")
        return [
            comparison.name,
            format_nbytes(comparison.moved_nbytes),
            *("-" if seconds is None else f"{seconds * 1e3:.1f}" for seconds in times),
            f"{comparison.ours_s * 1e3:.1f}",
            f"{bandwidth / 1e9:.1f}",
            f"{share:.0f}",
            *("-" if ratio is None else f"{ratio:.2f}x" for ratio in ratios),
        ]

    def print_checks(self) -> None:
        """The list of checks and what follows from it."""
        self.console.print()
        for check in self.checks:
            mark = "[green]yes[/]" if check.held else "[bold red]NO [/]"
            shown = f" [dim]({check.shown})[/]" if check.shown else ""
            self.console.print(f"  {mark}  {check.claim}{shown}", highlight=False)
        count = sum(check.held for check in self.checks)
        verdict = "[bold green]All" if self.all_held else f"[bold red]Only {count} of"
        self.console.print(f"\n{verdict} {len(self.checks)} checks held[/], in {self.elapsed_s:.1f} s.")
