"""`shmarray ls` and `shmarray info`: which arrays there are, how large, and who holds them.

Both only look: they attach nothing and change nothing, so they may run beside any program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shmarray.cli.options import complete_names, json_option, namespace_option
from shmarray.cli.rendering import age_of, echo_json, format_nbytes, format_shape, print_list

if TYPE_CHECKING:
    from shmarray.registry import SegmentInfo

__all__ = ["info", "ls"]

#: The facts of an array in JSON, in this order. Programs read them: add, never rename.
_FACTS = (
    "name",
    "shape",
    "dtype",
    "nbytes",
    "chunks",
    "keep",
    "created",
    "creator_pid",
    "holders",
    "dirty",
    "dirty_reason",
    "in_flight",
)


def _facts(entry: SegmentInfo) -> dict[str, Any]:
    return {fact: getattr(entry, fact) for fact in _FACTS}


def _holders(entry: SegmentInfo, most: int | None = None) -> str:
    """The pids visible from here. None visible does not mean none: another container's cannot be seen."""
    shown = [str(pid) for pid in entry.holders[:most]]
    if len(shown) < len(entry.holders):
        shown.append(f"{len(entry.holders) - len(shown)} more")
    if not shown:
        shown.append("in flight" if entry.in_flight else "nobody, kept" if entry.keep else "nobody visible")
    return ", ".join(shown)


def _dtype(entry: SegmentInfo) -> str:
    """In a few characters; `info` has the fields."""
    return str(entry.dtype) if entry.dtype.names is None else f"{len(entry.dtype.names)} fields"


@click.command()
@namespace_option
@json_option
def ls(as_json: bool) -> None:
    """List the arrays of the namespace, named and unnamed.

    Unnamed ones have been published for a handle, or by asking for `.shm.name`; what was never shared with another
    process is in no list. "in flight" means that nobody holds it and a handle may still be taken.
    """
    from shmarray import registry
    from shmarray.configuration import config

    entries = sorted(registry.list(), key=lambda entry: entry.name or "")
    if as_json:
        echo_json([_facts(entry) for entry in entries])
        return
    if not entries:
        click.echo(f"no arrays in namespace {config.namespace!r}")
        return
    from rich.markup import escape

    print_list(
        [("SHAPE", "right"), "DTYPE", ("SIZE", "right"), "KEEP", ("AGE", "right"), "HOLDERS", "NAME"],
        [
            (
                format_shape(entry.shape),
                escape(_dtype(entry)),  # "[ns]" would be taken for markup
                format_nbytes(entry.nbytes),
                "keep" if entry.keep else "",
                age_of(entry.created),
                _holders(entry, most=4),
                entry.name or "(unnamed)",
            )
            for entry in entries
        ],
    )
    total = sum(entry.nbytes for entry in entries)
    noun = "array" if len(entries) == 1 else "arrays"
    click.echo(f"{len(entries)} {noun}, {format_nbytes(total)}, in namespace {config.namespace!r}")


@click.command()
@click.argument("name", shell_complete=complete_names)
@namespace_option
@json_option
def info(name: str, as_json: bool) -> None:
    """Show the array NAME in detail."""
    from shmarray import registry
    from shmarray.errors import ShmArrayError

    try:
        entry = registry.info(name)
    except ValueError as error:
        if isinstance(error, ShmArrayError):  # a corrupt segment is one too: no mistake of the user
            raise
        raise click.BadParameter(str(error), param_hint="NAME") from None
    if as_json:
        echo_json(_facts(entry))
        return
    age = age_of(entry.created)
    lines = [
        ("name", entry.name or "(unnamed)"),
        ("shape", format_shape(entry.shape)),
        ("dtype", str(entry.dtype)),
        ("size", f"{format_nbytes(entry.nbytes)} ({entry.nbytes:,} bytes)"),
        ("chunks", format_shape(entry.chunks)),
        ("lifetime", "kept until removed" if entry.keep else "until its last holder ends"),
        ("created", f"{'just now' if age == 'now' else age + ' ago'} by process {entry.creator_pid}"),
        ("held by", _holders(entry)),
        ("state", f"dirty: {entry.dirty_reason or 'some of its content is unknown'}" if entry.dirty else "clean"),
    ]
    for label, text in lines:
        click.echo(f"{click.style(f'{label:<9}', bold=True)} {text}")
