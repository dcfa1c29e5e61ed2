"""How facts of the registry are written: for people (sizes, ages, tables) and for programs (JSON).

Invariant: JSON holds plain numbers and full precision (`nbytes`, seconds since the epoch); rounding and words
are for the tables alone. rich is imported only when a table is drawn.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["echo_json", "format_age", "format_nbytes", "format_shape", "plain", "print_list", "print_table"]


def format_nbytes(nbytes: int | float) -> str:
    """A number of bytes with a decimal unit and three digits.

    Examples
    --------
    >>> format_nbytes(0), format_nbytes(999), format_nbytes(400_000_000), format_nbytes(1_234_000_000)
    ('0 B', '999 B', '400 MB', '1.23 GB')
    """
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        # 999.5 would be written as 1000 with three digits, so it belongs to the next unit already.
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 100 else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def format_age(seconds: float) -> str:
    """How long ago, in the two largest units that matter.

    Examples
    --------
    >>> format_age(0.4), format_age(75), format_age(3 * 3600 + 59), format_age(90_000)
    ('now', '1m 15s', '3h 0m', '1d 1h')
    """
    whole = int(seconds)
    if whole < 1:
        return "now"
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, secs = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (secs, "s")]
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2])


def format_shape(shape: Sequence[int]) -> str:
    """A shape as people read it: `12 x 403`, and `scalar` for no dimension.

    Examples
    --------
    >>> format_shape((12, 403)), format_shape((5,)), format_shape(())
    ('12 x 403', '5', 'scalar')
    """
    return " x ".join(str(length) for length in shape) if len(shape) else "scalar"


def age_of(created: Any) -> str:
    """The age of what was created at `created`: seconds since the epoch, or a datetime."""
    stamp = created.timestamp() if hasattr(created, "timestamp") else float(created)
    return format_age(max(0.0, time.time() - stamp))


def plain(value: Any) -> Any:
    """The same fact in types that JSON has: arrays' dtypes by name or by field list, tuples as lists.

    Examples
    --------
    >>> import numpy as np
    >>> plain({"dtype": np.dtype("f4"), "shape": (2, 3)})
    {'dtype': 'float32', 'shape': [2, 3]}
    >>> plain(np.dtype([("x", "<i4")]))
    [['x', '<i4']]
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "names") and hasattr(value, "itemsize"):  # a dtype, told without importing NumPy
        return plain(value.descr) if value.names else str(value)
    if hasattr(value, "isoformat"):
        return value.timestamp()
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def echo_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps(plain(document), indent=2))


def print_table(columns: Sequence[str | tuple[str, str]], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings; a column is a heading, or a heading and its justification.

    Cells are rich's markup: escape what comes from elsewhere.
    """
    console, table = _console_and_table(columns, rows)
    if console.is_terminal:
        console.print(table)
        return
    # In a pipe there is no width to respect, a folded name could not be read back by a program, and nobody looks at
    # what fills the last column up.
    _widen(console, table)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def print_list(columns: Sequence[str | tuple[str, str]], rows: Sequence[Sequence[str]]) -> None:
    """The same with nothing folded or cut: the last column is plain text of any length, such as a name to be copied."""
    console, table = _console_and_table(columns[:-1], [row[:-1] for row in rows])
    _widen(console, table)
    with console.capture() as capture:
        console.print(table)
    ends = [click.style(columns[-1], bold=True), *(row[-1] for row in rows)]
    for line, end in zip(capture.get().splitlines(), ends, strict=True):
        click.echo(f"{line}  {end}")


def _console_and_table(
    columns: Sequence[str | tuple[str, str]], rows: Iterable[Sequence[str]]
) -> tuple[Console, Table]:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        heading, justify = (column, "left") if isinstance(column, str) else column
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    return Console(highlight=False), table


def _widen(console: Console, table: Table) -> None:
    console.width = max(console.measure(table, options=console.options.update(width=10_000)).maximum, 1)
