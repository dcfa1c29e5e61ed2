"""What has a client that cannot map an array of a manager?

A :class:`RemoteArray`: it knows shape and dtype, and every slice that is read or written goes over a connection of its
own. Each read is a copy, each write is in the array when the call returns.

Invariant: when a connection has ended in the middle of something it is never used again; the next use makes a
new one, which finds the same array or says that it is gone.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import context, managers, process
from typing import Any

import numpy as np

from shmarray import registry
from shmarray.errors import DamagedFrameError, ManagerConnectionError, OutOfSharedMemoryError, ShmArrayError
from shmarray.multiprocessing.addresses import Address, show_address
from shmarray.multiprocessing.catalogue import Offer, pid_namespace
from shmarray.multiprocessing.forks import close_in_children
from shmarray.multiprocessing.frames import receive_array, send_array
from shmarray.multiprocessing.selection import basic_key, check_values, shape_of
from shmarray.multiprocessing.session import PROTOCOL, TRANSFER_S
from shmarray.multiprocessing.sockets import dial, patience

__all__ = ["DIAL_S", "Line", "RemoteArray", "is_nearby"]

#: How long a manager may take for each step of the handshake.
DIAL_S = 20.0
#: The same after something was cut short, while an error waits to be seen.
_AGAIN_S = 2.0


def is_nearby(offer: Offer) -> bool:
    """Whether this process can map what the offering server has: by trying, and reading what was written there."""
    if offer.pid_namespace != pid_namespace():
        return False
    try:
        probe = registry.attach_reference(offer.probe, mode="r")
    except OutOfSharedMemoryError:  # no descriptor is free: that says nothing of where we are
        raise
    except (ShmArrayError, OSError):
        return False
    return bytes(probe.buf) == offer.nonce


class Line:
    """A connection to the arrays of a manager: one request at a time."""

    def __init__(self, address: Address, authkey: bytes, *, timeout_s: float = DIAL_S) -> None:
        self.address = address
        self._sound = True
        self._moving = False
        self._connection = dial(address, authkey, timeout_s=timeout_s)
        try:
            with self._told():
                managers.dispatch(self._connection, None, "accept_arrays", (PROTOCOL,))  # type: ignore[attr-defined]
        except BaseException:
            self.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether requests can go on it; not when something was cut short and nobody knows what comes next."""
        return self._sound and not self._connection.closed

    def close(self) -> None:
        self._connection.close()

    def ask(self, *request: Any) -> Any:
        """Send a request and return its answer; what the server raises is raised here, its traceback as the cause."""
        with self._told():
            return self._ask(*request)

    def read(self, key: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """The bytes of a selection, which must be of that shape and dtype."""
        with self._told(), patience(self._connection, TRANSFER_S):
            there = self._ask("read", key)
            self._moving = True
            if there != (shape, dtype):
                raise DamagedFrameError(
                    f"a selection of shape {shape} and {dtype} was asked for and {there} is offered: the manager does "
                    "not speak this protocol",
                    address=self.address,
                )
            values = np.empty(shape, dtype)
            receive_array(self._connection, values)
            return values

    def write(self, key: Any, values: np.ndarray[Any, Any]) -> None:
        """Assign values to a selection."""
        with self._told(), patience(self._connection, TRANSFER_S):
            self._ask("write", key, values.shape)
            self._moving = True
            try:
                send_array(self._connection, values)
            except OSError:
                with patience(self._connection, _AGAIN_S):
                    self._answer()  # the server may have said why it does not listen any more
                raise
            self._answer()

    def _ask(self, *request: Any) -> Any:
        self._connection.send(request)
        return self._answer()

    def _answer(self) -> Any:
        kind, *result = self._connection.recv()
        if kind == "ok":
            return result[0]
        error, traceback = result
        raise _AnswerError(error, traceback)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors with a name; and unless the block came to its end, or to a refusal, the line is not usable any more.

        That is the state from the beginning: Ctrl-C may come between any two steps.
        """
        self._sound = self._moving = False
        try:
            yield
            self._sound = True
        except _AnswerError as answer:
            self._sound = not self._moving
            raise answer.error from managers.RemoteError(answer.traceback)
        except DamagedFrameError as error:
            error.address = self.address  # type: ignore[attr-defined]
            raise
        except (EOFError, OSError) as error:
            happened = "stood still for too long" if isinstance(error, BlockingIOError) else "ended"
            during = (
                " in the middle of a transfer: of a slice that was being written, part may have been"
                if self._moving
                else ""
            )
            raise ManagerConnectionError(
                f"the connection to the manager at {show_address(self.address)} {happened}{during}; "
                "the manager was ended, or the network is down",
                address=self.address,
            ) from error


class _AnswerError(Exception):
    def __init__(self, error: BaseException, traceback: str) -> None:
        self.error = error
        self.traceback = traceback


class RemoteArray:
    """An array of a manager that this process cannot map: on another host, or behind another `/dev/shm`.

    Not an ndarray: no operator works on it. A slice of it is one, a copy; and assigning to a slice writes there.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    name : str or None
    mode : {"r+", "r"}

    Notes
    -----
    Every slice costs a round trip, so read and write large ones. A write that the connection's end cuts short may be
    there in part. Threads take turns; two RemoteArrays of the same array do not wait for each other.

    It pickles as a reference: keep it until the receiver has used it once. As with the standard library's proxies
    the receiver needs the manager's key as its own (`multiprocessing.current_process().authkey`), which child
    processes have by themselves if the manager was made without one.

    Examples
    --------
    On the far host, with a manager at 10.0.0.1 (see `shmarray manager`)::

        manager = sa.ArrayManager(("10.0.0.1", 5000), authkey=key)
        manager.connect()
        remote = manager.open("heights")
        block = remote[100:200, ::2]          # an ndarray, a copy
        remote[100:200, ::2] = block + 1
        everything = np.asarray(remote)
    """

    name: str | None
    mode: str

    _line: Line | None
    _lock: threading.Lock
    _authkey: bytes
    _address: Address
    _ident: str
    _shape: tuple[int, ...]
    _dtype: np.dtype[Any]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        raise TypeError("a RemoteArray is not made by calling its class; use ArrayManager.array or open")

    @classmethod
    def _of(cls, line: Line | None, authkey: bytes, address: Address, facts: tuple[Any, ...]) -> RemoteArray:
        self = cls.__new__(cls)
        self._line = line
        self._lock = threading.Lock()  # one request at a time
        self._authkey = authkey
        self._address = address
        self._ident, self.name, self._shape, self._dtype, self.mode = facts
        close_in_children(self)
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def ndim(self) -> int:
        return len(self._shape)

    @property
    def size(self) -> int:
        return math.prod(self._shape)

    @property
    def itemsize(self) -> int:
        return self._dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len() of an array without dimensions")
        return self._shape[0]

    def __getitem__(self, key: Any) -> Any:
        """A copy of a slice, as a plain ndarray; a scalar where an ndarray gives one.

        Raises
        ------
        ManagerConnectionError
            The manager is gone.
        TypeError
            A mask or a list: those select on the client's side.
        """
        parts = basic_key(key)
        shape = shape_of(self._shape, parts)
        with self._connected() as line:
            values = line.read(parts, shape, self._dtype)
        return values[()] if not shape and Ellipsis not in parts else values

    def __setitem__(self, key: Any, value: Any) -> None:
        """Assign to a slice, with NumPy's casting and broadcasting; a value that broadcasts travels as it is.

        Raises
        ------
        ManagerConnectionError
            The manager is gone; part of the value may be there.
        """
        parts = basic_key(key)
        shape = shape_of(self._shape, parts)
        if self.mode == "r":
            raise ValueError(f"array {self.name!r} was opened read-only; open it with mode='r+' to write")
        given = np.asarray(value) if isinstance(value, np.ndarray) else np.asarray(value, self._dtype)
        while given.ndim > len(shape) and given.shape[0] == 1:  # as NumPy does
            given = given[0, ...]
        check_values(given.shape, shape)
        values = given.astype(self._dtype, copy=False)
        with self._connected() as line:
            line.write(parts, values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """All of it, for `np.asarray` and every function of NumPy."""
        if copy is False:
            raise ValueError("a RemoteArray cannot be had without a copy: its memory is elsewhere")
        values: np.ndarray[Any, Any] = self[...]
        return values if dtype is None else values.astype(dtype, copy=False)

    def __repr__(self) -> str:
        name = "" if self.name is None else f"{self.name!r}, "
        return f"<RemoteArray {name}shape {self._shape}, {self._dtype}, at {show_address(self._address)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # The key goes along to a child that is being started, and nowhere else, as with proxies.
        spawning = context.get_spawning_popen() is not None
        key = bytes(self._authkey) if spawning else None
        return _rebuild, (key, self._address, (self._ident, self.name, self._shape, self._dtype, self.mode))

    def close_in_child(self) -> None:
        """After a fork: the connection is the parent's. The next use makes one."""
        self._lock = threading.Lock()
        line, self._line = self._line, None
        if line is not None:
            with suppress(OSError):
                line.close()

    @contextmanager
    def _connected(self) -> Iterator[Line]:
        with self._lock:
            line = self._line
            if line is None or not line.usable:
                line = self._line = self._joined(DIAL_S)
            try:
                yield line
            except BaseException as error:
                if not line.usable:
                    self._line = None
                    # The end of the last connection is the end of a nameless array, so the next comes first; unless the
                    # manager is gone, when it would only be waited for.
                    if not isinstance(error, ManagerConnectionError) or isinstance(error, DamagedFrameError):
                        with suppress(Exception):
                            self._line = self._joined(_AGAIN_S)
                    line.close()
                raise

    def _joined(self, timeout_s: float) -> Line:
        line = Line(self._address, self._authkey, timeout_s=timeout_s)
        try:
            line.ask("join", self._ident, self.mode)
        except BaseException:
            line.close()
            raise
        return line


def _rebuild(authkey: bytes | None, address: Address, facts: tuple[Any, ...]) -> RemoteArray:
    """Unpickles a RemoteArray; it connects when it is first used."""
    key = process.current_process().authkey if authkey is None else process.AuthenticationString(authkey)  # type: ignore[attr-defined]
    return RemoteArray._of(None, key, address, facts)
