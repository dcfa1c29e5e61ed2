"""What several subcommands take: a namespace, JSON instead of a table, names that complete, sizes with units.

Invariant: an option that changes a setting does so for the running command alone (`config.override`), never
for the process, so commands can be called from a program or a test without leaving a trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from shmarray.configuration import config, parse_nbytes

__all__ = ["ByteSize", "complete_names", "json_option", "namespace_option"]

if TYPE_CHECKING:
    # Generic in its type from click 8.3 on for type checkers; never subscripted at run time, for older ones.
    _ParamType = click.ParamType[int]
else:
    _ParamType = click.ParamType

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _use_namespace(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    try:
        context.with_resource(config.override(namespace=value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def namespace_option(command: _Command) -> _Command:
    """Add `--namespace`: whose arrays the command sees. Eager, so that names complete within it."""
    return click.option(
        "--namespace",
        metavar="NAME",
        expose_value=False,
        is_eager=True,
        callback=_use_namespace,
        help="The namespace to look in instead of SHMARRAY_NAMESPACE.",
    )(command)


def json_option(command: _Command) -> _Command:
    """Add `--json`: one JSON document on standard output, whose keys are stable."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)


def complete_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of arrays that begin so, for the shell. An unreadable registry completes to nothing."""
    from shmarray import registry
    from shmarray.errors import ShmArrayError

    try:
        names = [info.name for info in registry.list()]
    except (ShmArrayError, OSError):
        return []
    return [CompletionItem(name) for name in names if name and name.startswith(incomplete)]


class ByteSize(_ParamType):
    """A number of bytes: `400MB`, `1.5GiB`, `64k`, `1000000`, or a word such as `small`.

    Parameters
    ----------
    words : dict
        Words that stand for a size.

    Examples
    --------
    >>> ByteSize().convert("64MiB", None, None)
    67108864
    >>> ByteSize({"small": 1000}).convert("small", None, None)
    1000
    """

    name = "size"

    def __init__(self, words: dict[str, int] | None = None) -> None:
        self.words = words or {}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if text.lower() in self.words:
            return self.words[text.lower()]
        try:
            nbytes = parse_nbytes(text)
        except ValueError:
            known = "".join(f", or {word!r}" for word in self.words)
            self.fail(f"{value!r} is not a size; write bytes as 400MB, 1.5GiB, 1000000{known}", param, ctx)
        if nbytes == 0:
            self.fail(f"{value!r} is no bytes at all", param, ctx)
        return nbytes
