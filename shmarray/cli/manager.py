"""`shmarray manager`: serve arrays to the programs of this host and, when told to, of others.

In the foreground, until Ctrl-C or SIGTERM; then its arrays go unless they are kept. What is served is one namespace:
arrays that other programs make in it can be opened through the manager too.
"""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import click

from shmarray.cli.options import namespace_option

__all__ = ["manager"]

_SHORT_KEY = 16


@click.command()
@click.option(
    "--address",
    metavar="HOST:PORT|PATH",
    help="Where to listen: :PORT is this host alone, 0.0.0.0:PORT every network that reaches it, PATH a Unix socket. "
    "By default a Unix socket in a new folder that only you can enter.",
)
@click.option(
    "--authkey-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the key that clients must have, to be read by you alone. By default a random key, printed once.",
)
@namespace_option
def manager(address: str | None, authkey_file: Path | None) -> None:
    """Serve arrays to programs that have the key, until Ctrl-C or SIGTERM.

    Programs of this host map the arrays themselves; others read and write slices. Whoever has the key is trusted as
    code, and nothing is encrypted: over a network use a tunnel, or a private network.
    """
    from shmarray.configuration import config
    from shmarray.multiprocessing.addresses import is_network, parse_address, show_address
    from shmarray.multiprocessing.managers import ArrayManager
    from shmarray.multiprocessing.server import ended_by

    try:
        place = None if address is None else parse_address(address)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--address") from None
    key = os.urandom(32).hex().encode() if authkey_file is None else _read_key(authkey_file)
    # From before there is a socket, so that none is left.
    with ended_by(signal.SIGTERM, signal.SIGINT):
        try:
            server = ArrayManager(place, key).get_server()
        except OSError as error:
            raise click.ClickException(f"cannot serve at {address}: {error.strerror or error}") from error
        shown = show_address(server.address)
        if authkey_file is None:
            click.echo(f"authkey, shown this once: {key.decode()}", err=True)
        if is_network(server.address) and not shown.startswith("127."):
            click.echo(
                "this address can be reached from other hosts; whoever has the key can run code here, and nothing is "
                "encrypted: let a tunnel or a private network stand before it",
                err=True,
            )
        click.echo(f"serving the arrays of namespace {config.namespace!r} at {shown}")
        server.serve_forever()


def _read_key(path: Path) -> bytes:
    """The key in a file: of a text file its text, without white space around it; of any other all bytes."""
    status = path.stat()
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        click.echo(
            f"warning: {path} has mode {stat.S_IMODE(status.st_mode):04o}, which may let other users read the key; "
            "chmod 600 it",
            err=True,
        )
    key = path.read_bytes()
    if key.isascii():
        key = key.strip()
    if not key:
        raise click.ClickException(f"{path} is empty; `head -c 32 /dev/urandom | base64 > {path}` makes a key")
    if len(key) < _SHORT_KEY:
        click.echo(
            f"warning: the key in {path} has {len(key)} bytes, which can be guessed; use 32 random ones", err=True
        )
    return key
