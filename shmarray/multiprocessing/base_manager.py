"""What does a manager do but make proxies? It starts a server in a process of its own, or connects to one.

The standard library's `BaseManager` with our server, which changes how that process begins: its address is chosen and
its failure is seen in the parent, and it has the parent's settings whatever the start method.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from multiprocessing import ProcessError, connection, util
from multiprocessing import managers as _standard
from multiprocessing.connection import Connection
from multiprocessing.managers import State, dispatch  # type: ignore[attr-defined]
from typing import Any

from shmarray.configuration import config
from shmarray.multiprocessing.remote import DIAL_S
from shmarray.multiprocessing.server import ManagerServer, ended_by
from shmarray.multiprocessing.sockets import dial, set_patience

__all__ = ["BaseManager"]

#: How long a server may take to hear that it is to end; after that it is told by signals.
_FAREWELL_S = 5.0


class BaseManager(_standard.BaseManager):
    """The standard library's `BaseManager` with a server that strangers cannot hold up; see `ManagerServer`."""

    _Server: type[ManagerServer] = ManagerServer
    _registry: dict[str, Any] = {}  # noqa: RUF012  # `register` copies it for each class

    # What the standard class keeps and its stub does not tell.
    _address: Any
    _authkey: bytes
    _ctx: Any
    _process: Any
    _serializer: str
    _shutdown_timeout: float
    _state: Any
    _Client: Any

    def get_server(self) -> ManagerServer:
        """The server itself, to be run by `serve_forever` in this process."""
        self._check_initial()
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def connect(self) -> None:
        """Connect to a server that somebody else has started.

        Raises
        ------
        ManagerNotFoundError
            Nobody listens there; also a `FileNotFoundError` and a `ConnectionRefusedError`.
        ManagerConnectionError
            Something listens there and does not answer in time, or the network says no.
        multiprocessing.AuthenticationError
            The keys differ.
        """
        if self._serializer != "pickle":
            super().connect()
            return
        with dial(self._address, self._authkey, timeout_s=DIAL_S) as end:
            dispatch(end, None, "dummy")
        self._state.value = State.STARTED

    def start(self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()) -> None:
        """Start a server in a process of its own; it ends with `shutdown`, this object, or this process.

        Raises
        ------
        ManagerAddressError
            Somebody serves at the address.
        """
        self._check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if self._address is None:
            # Made here and not in the server: this process removes the folder, also after `kill -9` of the server.
            self._address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
        reader, writer = connection.Pipe(duplex=False)
        settings = {name: getattr(config, name) for name in config._values}
        with reader:
            with writer:
                self._process = self._ctx.Process(
                    target=type(self)._run_server,
                    args=(
                        self._registry,
                        self._address,
                        self._authkey,
                        self._serializer,
                        writer,
                        _prepare,
                        (settings, initializer, initargs),
                    ),
                )
                ident = ":".join(str(part) for part in self._process._identity)
                self._process.name = f"{type(self).__name__}-{ident}"
                self._process.start()
            try:
                answer = reader.recv()
            except BaseException as error:
                if not isinstance(error, EOFError):  # Ctrl-C: nobody would end it
                    self._process.terminate()
                self._process.join()
                if isinstance(error, EOFError):
                    raise EOFError(self._why_not_started()) from None
                raise
        if isinstance(answer, BaseException):
            self._process.join()
            raise answer
        self._address = answer
        self._state.value = State.STARTED
        self.shutdown = util.Finalize(
            self,
            type(self)._finalize_manager,  # type: ignore[attr-defined]
            args=(
                self._process,
                self._address,
                self._authkey,
                self._state,
                _dial_to_end if self._serializer == "pickle" else self._Client,
                self._shutdown_timeout,
            ),
            exitpriority=0,
        )

    @classmethod
    def _run_server(
        cls,
        registry: Any,
        address: Any,
        authkey: bytes,
        serializer: str,
        writer: Connection[Any, Any],
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        """Run a server in the process made for it, and say its address, or why there is none."""
        # Ctrl-C reaches the whole process group; the parent decides what becomes of its server.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with ended_by(signal.SIGTERM):
            if initializer is not None:
                initializer(*initargs)
            try:
                server = cls._Server(registry, address, authkey, serializer)
            except (OSError, TypeError, ValueError) as error:
                writer.send(error)
                writer.close()
                raise SystemExit(1) from error
            server.watch_parent()
            writer.send(server.address)
            writer.close()
            server.serve_forever()

    def _why_not_started(self) -> str:
        said = "the manager's process ended before it served, and said why on standard error"
        if self._ctx.get_start_method() == "fork":
            return said
        return (
            f'{said}. It imports the program first: is what starts processes there under `if __name__ == "__main__":`?'
        )

    def _check_initial(self) -> None:
        if self._state.value == State.STARTED:
            raise ProcessError("Already started server")
        if self._state.value == State.SHUTDOWN:
            raise ProcessError("Manager has shut down")


def _dial_to_end(address: Any, authkey: bytes) -> Connection[Any, Any]:
    """To tell a server that it is to end: one that is stopped does not keep its manager waiting, and is killed then."""
    end = dial(address, authkey, timeout_s=_FAREWELL_S)
    set_patience(end, _FAREWELL_S)
    return end


def _prepare(settings: dict[str, Any], initializer: Callable[..., object] | None, initargs: Iterable[Any]) -> None:
    """In a server's process: our settings, which only a forked child has by itself, then the user's initializer."""
    for name, value in settings.items():
        setattr(config, name, value)
    if initializer is not None:
        initializer(*initargs)
