"""What does the process behind a manager do?

The standard library's server, whose every connection has a thread of its own, with what a server among strangers needs:

* who does not finish the handshake by a deadline is dropped, and so is the longest waiting one when too many wait
  (:mod:`~shmarray.multiprocessing.lobby`); on a Unix socket other users are not even asked;
* a stranger is told nothing but that his key is wrong;
* one server an address (:mod:`~shmarray.multiprocessing.addresses`), and a killed one's address can be used again;
* it ends on SIGTERM, and when its parent has died and nobody is connected any more.

Invariant: no thread but a connection's own ever waits for that connection.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, managers, process
from multiprocessing.connection import Connection
from traceback import format_exc
from typing import Any

from shmarray.errors import ManagerAddressError
from shmarray.multiprocessing.addresses import Address, AddressClaim, is_network, is_socket_path, show_address
from shmarray.multiprocessing.forks import close_in_children
from shmarray.multiprocessing.lobby import Lobby
from shmarray.multiprocessing.sockets import hang_up, is_same_user, patience, prepare

__all__ = ["ManagerServer", "ended_by"]

#: How long the handshake may take, and how many may be at it. Attributes of the server: tests have less time.
_HANDSHAKE_S = 10.0
_LOBBY_ROOM = 64
#: How many may wait in the kernel to be let in.
_QUEUE = 128
#: How long a first request may get nowhere.
_REQUEST_S = 60.0
#: How often a server whose parent has died looks whether anybody is connected.
_ORPHAN_S = 0.5


class ManagerServer(managers.Server):
    """The server of a manager. Made by :meth:`BaseManager.get_server` or in the process that `start` makes."""

    # What the standard class keeps and its stub does not tell.
    listener: Any
    authkey: bytes

    handshake_s = _HANDSHAKE_S
    lobby_room = _LOBBY_ROOM

    def __init__(self, registry: Any, address: Address, authkey: bytes, serializer: str) -> None:
        if address is None:
            address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
        self._claim = AddressClaim(address) if is_socket_path(address) else None
        try:
            super().__init__(registry, address, authkey, serializer)
        except BaseException as error:
            if self._claim is not None:
                self._claim.close()
            if isinstance(error, OSError) and error.errno == ManagerAddressError.errno and is_network(address):
                raise ManagerAddressError(
                    f"another program listens at {show_address(address)}; end it, or choose another port (0: any)",
                    address=address,
                ) from error
            raise
        # The standard library's 16 would have honest clients wait behind a flood.
        self.listener._listener._socket.listen(_QUEUE)
        if self._claim is not None:
            # Somebody may have connected already; `is_same_user` is what keeps strangers out.
            os.chmod(address, 0o600)
        self.stop_event = threading.Event()
        self.lobby = Lobby(room=self.lobby_room, patience_s=self.handshake_s)
        #: Connections that have shown the key (a dict for what `list` of it promises among threads).
        self._guests: dict[Connection[Any, Any], None] = {}
        self._wake: int | None = None
        self._parent_fd: int | None = None
        close_in_children(self)

    # -- the main thread ------------------------------------------------------------------------

    def serve_forever(self) -> None:
        """Serve until `shutdown`, a signal (see :func:`ended_by`) or the end of an orphan; then `sys.exit(0)`."""
        process.current_process()._manager_server = self  # type: ignore[attr-defined]
        try:
            self._serve()
        except (KeyboardInterrupt, SystemExit):
            pass
        finally:
            if sys.stdout != sys.__stdout__:
                sys.stdout = sys.__stdout__
                sys.stderr = sys.__stderr__
            self.close()
            sys.exit(0)

    def _serve(self) -> None:
        doorbell: socket.socket = self.listener._listener._socket
        doorbell.setblocking(False)  # who has rung may have left again
        woken, self._wake = os.pipe()
        events = select.poll()
        orphaned_looks = 0
        try:
            events.register(doorbell, select.POLLIN)
            events.register(woken, select.POLLIN)
            if self._parent_fd is not None:
                events.register(self._parent_fd, select.POLLIN)
            while not self.stop_event.is_set():
                wait_s = self.lobby.turn_out_late()
                if orphaned_looks:
                    wait_s = _ORPHAN_S if wait_s is None else min(wait_s, _ORPHAN_S)
                # Rounded up, or it would spin through the last millisecond.
                ready = {fd for fd, _ in events.poll(None if wait_s is None else int(wait_s * 1000) + 1)}
                if doorbell.fileno() in ready:
                    self._admit()
                if orphaned_looks:
                    orphaned_looks = 1 if self._guests or len(self.lobby) else orphaned_looks + 1
                    if orphaned_looks > 2:
                        return
                elif self._parent_fd in ready:
                    assert self._parent_fd is not None
                    events.unregister(self._parent_fd)
                    orphaned_looks = 1
        finally:
            wake, self._wake = self._wake, None
            os.close(woken)
            os.close(wake)

    def watch_parent(self) -> None:
        """Take note of the process that started this one: see `_serve` for what becomes of an orphan."""
        parent = process.parent_process()
        if parent is None or parent.pid is None:
            return
        with suppress(OSError, AttributeError):  # no pidfd here, or the parent is gone already
            fd = os.pidfd_open(parent.pid)
            if not parent.is_alive():  # then the number may be another's; the sentinel serves, a little late
                os.close(fd)
                fd = os.dup(parent.sentinel)
            self._parent_fd = fd

    def _admit(self) -> None:
        try:
            guest = self.listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            # No descriptor is free. Who waits longest makes room; the newcomer waits in the kernel's queue.
            self.lobby.close()
            time.sleep(0.05)
            return
        try:
            if not is_same_user(guest):
                guest.close()
                return
            prepare(guest)
            thread = threading.Thread(target=self.handle_request, args=(guest,), daemon=True)
            self.lobby.enter(guest)
            thread.start()
        except (OSError, RuntimeError):  # it left again, or there can be no more threads
            self.lobby.leave(guest)
            guest.close()

    def wake(self) -> None:
        """Have the main thread look around."""
        fd = self._wake
        if fd is not None:
            with suppress(OSError):
                os.write(fd, b"x")

    def close(self) -> None:
        """Stop listening, hang up on everybody, let go of what is held, and free the address."""
        self.stop_event.set()
        with suppress(OSError):
            self.listener.close()
        self.lobby.close()
        for guest in list(self._guests):
            hang_up(guest)
        self.let_go()
        if self._claim is not None:
            self._claim.close()
        if self._parent_fd is not None:
            os.close(self._parent_fd)
            self._parent_fd = None

    def let_go(self) -> None:
        """What a kind of server does at its end, between its last connection and the freeing of its address."""

    def close_in_child(self) -> None:
        """A forked child (of a pool that this server holds) keeps neither the door nor anybody's line open."""
        with suppress(OSError, AttributeError):  # it may have been closed before
            self.listener._listener._socket.close()
        for guest in [*self._guests, *(guest for guest, _ in self.lobby._guests.values())]:
            with suppress(OSError):
                guest.close()
        for fd in (self._wake, self._parent_fd):
            if fd is not None:
                os.close(fd)
        self._wake = self._parent_fd = None
        if signal.getsignal(signal.SIGTERM) is _leave:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a pool ends its workers so, whatever they are doing

    # -- a connection's thread ------------------------------------------------------------------

    def handle_request(self, conn: Connection[Any, Any]) -> None:
        """Serve one connection, from its handshake to its end."""
        try:
            try:
                connection.deliver_challenge(conn, self.authkey)
                connection.answer_challenge(conn, self.authkey)
            except Exception:  # a stranger is told no more than the handshake tells
                return
            if not self.lobby.leave(conn):
                return
            self._guests[conn] = None
            self._handle_first(conn)
        except (SystemExit, OSError):  # the standard library's way to say that a client has left
            pass
        finally:
            self.lobby.leave(conn)
            self._guests.pop(conn, None)
            with suppress(OSError):
                conn.close()

    def _handle_first(self, conn: Connection[Any, Any]) -> None:
        request = None
        try:
            with patience(conn, _REQUEST_S):
                request = conn.recv()
            _, function_name, args, keywords = request
            if function_name not in self.public:
                raise ValueError(f"a manager has no function {function_name!r}")
            function = getattr(self, function_name)
        except (EOFError, OSError):
            return
        except Exception:
            answer = ("#TRACEBACK", format_exc())
        else:
            try:
                answer = ("#RETURN", function(conn, *args, **keywords))
            except Exception:
                answer = ("#TRACEBACK", format_exc())
        try:
            conn.send(answer)
        except Exception:
            with suppress(Exception):
                conn.send(("#TRACEBACK", format_exc()))

    def shutdown(self, c: Connection[Any, Any]) -> None:
        """End the server, as any client may ask."""
        with suppress(OSError):
            c.send(("#RETURN", None))
        self.stop_event.set()
        self.wake()


@contextmanager
def ended_by(*numbers: int) -> Iterator[None]:
    """Inside the block these signals end :meth:`ManagerServer.serve_forever` cleanly. For the main thread."""
    before = {number: signal.signal(number, _leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not Python's to set again
                signal.signal(number, handler)


def _leave(number: int, frame: Any) -> None:
    # Once is enough: a second one must not cut the cleaning up short.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(0)
