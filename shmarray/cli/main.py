"""Which subcommand is meant, and what becomes of an error.

Each subcommand lives in a module of its own that is imported when it is asked for, and rich and numba later
still, where they are used: `shmarray ls` is for looking around while a program runs, and answers in the time
NumPy takes to import.

Exit status: 0 done; 1 an error of the package, said in one line on standard error; 2 a wrong command line.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import click

from shmarray._version import __version__
from shmarray.errors import ShmArrayError

__all__ = ["cli", "main"]

#: Subcommand -> where it is defined. The order is the order of the help text.
_COMMANDS: Mapping[str, str] = {
    "demo": "shmarray.cli.demo.command:demo",
    "ls": "shmarray.cli.listing:ls",
    "info": "shmarray.cli.listing:info",
    "rm": "shmarray.cli.removal:rm",
    "gc": "shmarray.cli.removal:gc",
    "doctor": "shmarray.cli.doctor.command:doctor",
}

#: What `shmarray --help` prints beside the name. Kept here so that asking for help imports no subcommand.
_SUMMARIES: Mapping[str, str] = {
    "demo": "Process real terrain data end to end, and check every step.",
    "ls": "List the arrays, named and unnamed.",
    "info": "Show one array in detail.",
    "rm": "Remove arrays by name.",
    "gc": "Free what dead programs have left.",
    "doctor": "Look for what is wrong, and say what to do.",
}


class LazyGroup(click.Group):
    """Imports a subcommand when it is invoked, and turns the package's errors into exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module_name, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module_name), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ShmArrayError as error:
            # A user of a command has no use for a traceback into the library; the message says what to do.
            raise click.ClickException(str(error)) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shmarray")
def cli() -> None:
    """NumPy arrays in shared memory: see what is there, clean up, and run the demonstration.

    The arrays of one namespace are shown: SHMARRAY_NAMESPACE, or each command's --namespace.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status (the entry point of the installed script)."""
    try:
        importlib.import_module("shmarray.configuration")
    except ValueError as error:  # a variable of the environment that cannot be a setting
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from None
    cli.main(args=args, prog_name="shmarray")
