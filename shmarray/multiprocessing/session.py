"""What does a server do for the client of one array?

A connection that has shown the key and asked for `accept_arrays` is a *session*: the client asks for one array (a new
one, one by name, or one that another session has), then reads and writes slices of it, one request at a time::

    client                         server
    ("create", shape, ...)    ->   ("ok", Offer)
    ("open", name, mode)      ->   ("ok", Offer)
    ("settle", keep)          ->   ("ok", None)     the client has looked whether it can map what is offered
    ("join", ident, mode)     ->   ("ok", None)
    ("read", key)             ->   ("ok", (shape, dtype)), frames
    ("write", key, shape)     ->   ("ok", None)
    frames                    ->   ("ok", None)
    ("arrays",)               ->   ("ok", {name: SegmentInfo})
    ("unlink", name)          ->   ("ok", None)
    anything                  ->   ("error", exception, traceback)    instead of an answer

Requests and answers are pickles: who has the key is trusted as code. The bytes of arrays are frames.

Invariant: after an error inside a transfer the connection ends, since nobody knows any more what comes next on it;
after any other error the session goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from traceback import clear_frames, format_exc
from typing import TYPE_CHECKING, Any

import numpy as np

from shmarray import registry
from shmarray.array.shared import SharedArray
from shmarray.errors import ManagerConnectionError
from shmarray.multiprocessing.catalogue import Catalogue, Offer, pid_namespace
from shmarray.multiprocessing.frames import receive_array, send_array
from shmarray.multiprocessing.selection import check_values, select
from shmarray.multiprocessing.sockets import patience

if TYPE_CHECKING:
    from shmarray.segment import Segment

__all__ = ["PROTOCOL", "TRANSFER_S", "ArraySession"]

#: Raised with every change of what is said here or in frames.
PROTOCOL = 1
#: How long a transfer may stand still before the other side counts as gone.
TRANSFER_S = 60.0


class ArraySession:
    """One client's use of one array."""

    def __init__(self, catalogue: Catalogue, connection: Connection[Any, Any]) -> None:
        self._catalogue = catalogue
        self._connection = connection
        self._array: SharedArray | None = None
        self._ident: str | None = None
        self._mode = "r+"
        #: Lives until the client has looked.
        self._probe: Segment | None = None

    def serve(self) -> None:
        """Answer requests until the client leaves."""
        requests: dict[str, Callable[..., None]] = {
            "create": self._create,
            "open": self._open,
            "settle": self._settle,
            "join": self._join,
            "read": self._read,
            "write": self._write,
            "arrays": lambda: self._answer(self._catalogue.arrays()),
            "unlink": self._unlink,
        }
        try:
            while True:
                request = self._receive()
                try:
                    kind, *arguments = request
                    requests[kind](*arguments)
                except _TransferError as error:
                    _let_go_of_frames(error)
                    return
                except Exception as error:  # where it is the connection that ended, this raises again
                    self._refuse(error)
                    _let_go_of_frames(error)
        except (EOFError, OSError):
            pass
        finally:
            self._probe = None
            self._let_go()

    def _receive(self) -> Any:
        while True:
            try:
                return self._connection.recv()
            except (EOFError, OSError):
                raise
            except Exception as error:  # no pickle, or one of something that this process does not know
                self._refuse(error)

    def _let_go(self) -> None:
        self._array = None
        if self._ident is not None:
            self._catalogue.give_back(self._ident)
            self._ident = None

    def _answer(self, result: Any = None) -> None:
        self._connection.send(("ok", result))

    def _refuse(self, error: BaseException) -> None:
        text = format_exc()
        try:
            self._connection.send(("error", error, text))
        except OSError:
            raise
        except Exception:  # it does not pickle
            self._connection.send(("error", RuntimeError(f"{type(error).__name__}: {error}"), text))

    # -- requests -------------------------------------------------------------------------------

    def _create(self, shape: Any, dtype: Any, keywords: dict[str, Any]) -> None:
        self._let_go()
        self._ident, self._array = self._catalogue.create(shape, dtype, **keywords)
        self._offer("r+")

    def _open(self, name: str, mode: str) -> None:
        self._let_go()
        self._ident, self._array = self._catalogue.open(name)
        self._offer(mode)

    def _join(self, ident: str, mode: str) -> None:
        self._let_go()
        self._array = self._catalogue.join(ident)
        self._ident = ident
        self._mode = mode
        self._answer()

    def _offer(self, mode: str) -> None:
        self._mode = mode
        array, ident = self._array, self._ident
        assert array is not None
        assert array.shm is not None
        assert ident is not None
        nonce = os.urandom(32)
        self._probe = probe = registry.create(len(nonce), "u1")
        probe.buf[:] = nonce
        self._answer(
            Offer(
                ident,
                self._catalogue.instance,
                array.name,
                array.shape,
                array.dtype,
                mode,
                registry.export(array.shm, in_flight=False),  # this session holds it until the client has it
                registry.export(probe, in_flight=False),
                nonce,
                pid_namespace(),
            )
        )

    def _unlink(self, name: str) -> None:
        self._catalogue.unlink(name)
        self._answer()

    def _settle(self, keep: bool) -> None:
        # Answered, so that a client that has mapped the array is the only one left to hold it.
        self._probe = None
        if not keep:
            self._let_go()
        self._answer()

    def _plain(self) -> np.ndarray[Any, Any]:
        if self._array is None:
            raise ValueError("no array was asked for on this connection: create, open or join first")
        return np.asarray(self._array)

    def _read(self, key: Any) -> None:
        source = select(self._plain(), key)
        self._answer((source.shape, source.dtype))
        with self._transfer():
            send_array(self._connection, source)

    def _write(self, key: Any, shape: tuple[int, ...]) -> None:
        target = select(self._plain(), key)
        if self._mode == "r":
            raise ValueError("this array was opened read-only; open it with mode='r+' to write")
        check_values(shape, target.shape)
        self._answer()
        if shape == target.shape:
            self._receive_into(target)
        else:
            values = np.empty(shape, target.dtype)
            self._receive_into(values)
            target[...] = values
        self._answer()

    def _receive_into(self, target: np.ndarray[Any, Any]) -> None:
        try:
            with self._transfer():
                receive_array(self._connection, target)
        except _TransferError as error:
            with suppress(Exception):
                self._refuse(error.__cause__ or error)
            raise

    @contextmanager
    def _transfer(self) -> Iterator[None]:
        try:
            with patience(self._connection, TRANSFER_S):
                yield
        except BlockingIOError:
            raise _TransferError("the transfer of an array's bytes stood still") from ManagerConnectionError(
                f"the other side of the transfer of an array's bytes took or sent nothing for {TRANSFER_S:g} s"
            )
        except Exception as error:
            raise _TransferError("the transfer of an array's bytes failed") from error


def _let_go_of_frames(error: BaseException) -> None:
    """What an error's frames refer to, views of the array among it, would live until the cycles of it are collected."""
    chain: BaseException | None = error
    while chain is not None:
        clear_frames(chain.__traceback__)
        chain = chain.__cause__ or chain.__context__


class _TransferError(Exception):
    """Says to `serve` that the stream cannot go on."""
