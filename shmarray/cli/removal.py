"""`shmarray rm` and `shmarray gc`: taking arrays away, by name or because nobody is left to use them.

`rm` takes the name away at once and the memory when the last holder ends: no program crashes by it. `gc`
frees only what the kernel says nobody holds.
"""

from __future__ import annotations

import click

from shmarray.cli.options import complete_names, json_option, namespace_option
from shmarray.cli.rendering import echo_json, format_nbytes

__all__ = ["gc", "rm"]


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_names)
@click.option("-f", "--force", is_flag=True, help="Say nothing of names that do not exist.")
@namespace_option
def rm(names: tuple[str, ...], force: bool) -> None:
    """Remove the arrays called NAME...

    Programs that hold one keep their data; the memory goes with the last of them. Every name is tried: one
    that cannot be removed is reported, and makes the exit status 1.
    """
    from shmarray import registry
    from shmarray.errors import SegmentNotFoundError, ShmArrayError

    failed = False
    for name in dict.fromkeys(names):
        try:
            registry.unlink(name)
        except SegmentNotFoundError as error:
            if not force:
                failed = True
                click.echo(f"Error: {error}", err=True)
        except (ShmArrayError, ValueError) as error:
            failed = True
            click.echo(f"Error: {error}", err=True)
        else:
            click.echo(f"removed {name}")
    if failed:
        raise click.exceptions.Exit(1)


@click.command()
@namespace_option
@json_option
def gc(as_json: bool) -> None:
    """Free arrays whose holders have all died.

    Arrays made with keep=True stay until they are removed by name.
    """
    from shmarray import registry
    from shmarray.configuration import config

    reclaimed = list(registry.gc())
    if as_json:
        echo_json({"namespace": config.namespace, "reclaimed": reclaimed})
        return
    for name in reclaimed:
        click.echo(f"reclaimed {name}")
    noun = "array" if len(reclaimed) == 1 else "arrays"
    click.echo(f"{len(reclaimed)} {noun} reclaimed in namespace {config.namespace!r}")
    if waiting := [entry for entry in registry.list() if entry.in_flight and not entry.holders]:
        count = f"{len(waiting)} {'array' if len(waiting) == 1 else 'arrays'}"
        size = format_nbytes(sum(entry.nbytes for entry in waiting))
        click.echo(
            f"{count} ({size}) in flight: pickled, and kept until somebody unpickles them or their time has passed "
            "(SHMARRAY_HANDLE_TTL_S of the sender, 60 s unless set)"
        )
