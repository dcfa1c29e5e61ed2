"""Where does a manager listen, and who may have that address?

A Unix socket's file outlives a killed server, and nothing in the file says whether somebody still listens. So who
serves at a path holds a lock on `PATH.lock` for as long; the kernel frees it, whatever happens. Only under that lock a
socket that nobody answers is removed.

Invariant: of several servers that want one path, one gets it; a socket in use, another user's, or anything
that is no socket is never removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
from contextlib import suppress
from multiprocessing import util
from typing import Any

from shmarray.errors import ManagerAddressError
from shmarray.multiprocessing.forks import close_in_children

__all__ = ["Address", "AddressClaim", "is_network", "is_socket_path", "parse_address", "show_address"]

Address = Any  # str (a path), tuple of host and port, or bytes (abstract)

_NETWORK = re.compile(r"([^/:]*):(\d{1,5})")
#: What `sun_path` of a Unix socket holds, without the terminating NUL.
_PATH_NBYTES = 107


def parse_address(text: str) -> Address:
    """The address that a text means: `HOST:PORT`, or else the path of a Unix socket. No host means this one alone.

    Examples
    --------
    >>> parse_address("10.0.0.1:5000"), parse_address(":5000"), parse_address("/run/user/1000/arrays")
    (('10.0.0.1', 5000), ('127.0.0.1', 5000), '/run/user/1000/arrays')
    """
    match = _NETWORK.fullmatch(text)
    if match is None:
        if not text:
            raise ValueError("an address is HOST:PORT or the path of a Unix socket; got an empty one")
        if text.startswith("[") or (text.count(":") > 1 and "/" not in text):
            raise ValueError(f"{text!r} looks like IPv6, which the standard library's managers do not speak; use IPv4")
        if ":" in text and "/" not in text:
            raise ValueError(f"{text!r} is no HOST:PORT: a port is a number; a socket's path with a colon has a slash")
        return text
    port = int(match[2])
    if port > 65535:
        raise ValueError(f"a port is a number from 0 (any free one) to 65535; got {text!r}")
    return match[1] or "127.0.0.1", port


def show_address(address: Address) -> str:
    """An address as :func:`parse_address` takes it.

    Examples
    --------
    >>> show_address(("127.0.0.1", 5000))
    '127.0.0.1:5000'
    """
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return os.fsdecode(address)


def is_network(address: Address) -> bool:
    """Whether other hosts may reach it, as far as its kind tells."""
    return isinstance(address, tuple)


def is_socket_path(address: Address) -> bool:
    """Whether it is a Unix socket with a file (not one of the abstract namespace)."""
    return isinstance(address, str) and not address.startswith("\0") and bool(address)


class AddressClaim:
    """The right to serve at the path of a Unix socket, from construction to :meth:`close`.

    Raises
    ------
    ManagerAddressError
        Somebody serves there, or what is there is not ours to remove.
    """

    def __init__(self, path: str) -> None:
        if len(os.fsencode(path)) > _PATH_NBYTES:
            raise ManagerAddressError(
                f"the path of a Unix socket has at most {_PATH_NBYTES} bytes; {path!r} has {len(os.fsencode(path))}. "
                "Choose a shorter one (set TMPDIR for the default)",
                address=path,
            )
        self.path = path
        self._lock_path = f"{path}.lock"
        self._fd = _lock(self._lock_path, path)
        close_in_children(self)
        # Children of multiprocessing skip atexit; weakref.finalize would not run there.
        self._finalizer = util.Finalize(self, _give_up, args=(self._fd, self._lock_path), exitpriority=-10)
        try:
            _remove_stale(path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others have the path."""
        self._fd = -1
        self._finalizer()

    def close_in_child(self) -> None:
        """A forked child would keep the lock beyond the server's end."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._finalizer.cancel()


def _give_up(fd: int, lock_path: str) -> None:
    with suppress(OSError):
        # Removed under the lock; whoever has it open meanwhile sees that it is not the file at the path.
        if os.path.samestat(os.fstat(fd), os.lstat(lock_path)):
            os.unlink(lock_path)
    os.close(fd)


def _lock(lock_path: str, path: str) -> int:
    while True:
        try:
            fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ManagerAddressError(
                f"the lock {lock_path!r} of a manager's address cannot be taken: {error.strerror}; "
                "choose a path in a folder of your own",
                address=path,
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.lstat(lock_path)):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise _in_use(path) from None
        except FileNotFoundError:
            pass  # its last holder removed it just now
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _in_use(path: str) -> ManagerAddressError:
    return ManagerAddressError(
        f"another manager serves at {path!r}; connect to that one, end it, or choose another address", address=path
    )


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens at. Called under the path's lock."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        raise ManagerAddressError(
            f"{path!r} exists and is not a socket of user {os.geteuid()}; remove it if it should not be there, "
            "or choose another address",
            address=path,
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                return
            # A queue that is full, or a server that is stopped: it is there.
    raise _in_use(path)
