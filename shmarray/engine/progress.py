"""Showing how far a call is: a bar for `progress=True`, or any function of (done, total)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["Progress", "watching"]

#: What `progress=` takes.
Progress: TypeAlias = bool | Callable[[int, int], object]


@contextmanager
def watching(
    progress: Progress, total: int, label: str, *, before: int = 0
) -> Iterator[Callable[[int], object] | None]:
    """A function to be told the number of chunks done; None where nobody wants to know.

    Of `total` chunks, `before` were done by an earlier part of the same call.
    """
    if progress is False or progress is None:
        yield None
    elif callable(progress):
        yield lambda done: progress(before + done, total)
    elif progress is True:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Bar(*columns, transient=False) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done: bar.update(task, completed=before + done)
    else:
        raise TypeError(f"progress must be True, False or a function of (done, total); got {progress!r}")
