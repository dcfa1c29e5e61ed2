"""`multiprocessing.managers`, with servers that are safe among strangers and that hold arrays.

Everything that the standard module has is here. `BaseManager` and `SyncManager` have a server of ours
(:mod:`shmarray.multiprocessing.server`) and otherwise behave as ever; :class:`ArrayManager` adds arrays, and
`shmarray.multiprocessing.Manager()` gives one that is started.

Invariant: proxies are the standard library's own, so what users know of them holds.
"""

from __future__ import annotations

import threading
import time
import types
from collections.abc import Sequence
from multiprocessing import ProcessError
from multiprocessing import managers as _standard
from multiprocessing.connection import Connection
from multiprocessing.managers import (  # type: ignore[attr-defined]
    AutoProxy,
    BaseProxy,
    DictProxy,
    ListProxy,
    MakeProxyType,
    Namespace,
    NamespaceProxy,
    PoolProxy,
    RemoteError,
    SharedMemoryManager,
    State,
    Token,
    ValueProxy,
)
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from shmarray import registry
from shmarray.array.results import over_segment
from shmarray.array.shared import SharedArray
from shmarray.multiprocessing.addresses import is_network, parse_address
from shmarray.multiprocessing.base_manager import BaseManager
from shmarray.multiprocessing.catalogue import Catalogue, Offer
from shmarray.multiprocessing.remote import Line, RemoteArray, is_nearby
from shmarray.multiprocessing.server import ManagerServer
from shmarray.multiprocessing.session import PROTOCOL, ArraySession

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "ArrayManager",
    "ArrayServer",
    "AutoProxy",
    "BaseManager",
    "BaseProxy",
    "DictProxy",
    "ListProxy",
    "MakeProxyType",
    "Namespace",
    "NamespaceProxy",
    "RemoteArray",
    "RemoteError",
    "SetProxy",
    "SharedMemoryManager",
    "SyncManager",
    "Token",
    "ValueProxy",
]

Shape = SupportsIndex | Sequence[SupportsIndex]

#: How long transfers have to end with the server.
_END_S = 1.0


def __getattr__(name: str) -> Any:
    """What else the standard module has, private names included: programs use some."""
    return getattr(_standard, name)


# --- what the standard library's managers share, and sets ---------------------------------------------------

_SET_METHODS = (
    *("__and__", "__contains__", "__iter__", "__len__", "__or__", "__rand__", "__ror__", "__rsub__"),
    *("__rxor__", "__sub__", "__xor__", "__ge__", "__gt__", "__le__", "__lt__"),
    *("__iand__", "__ior__", "__isub__", "__ixor__"),
    *("add", "clear", "copy", "difference", "difference_update", "discard", "intersection"),
    *("intersection_update", "isdisjoint", "issubset", "issuperset", "pop", "remove"),
    *("symmetric_difference", "symmetric_difference_update", "union", "update"),
)

_BaseSetProxy: Any = MakeProxyType("_BaseSetProxy", _SET_METHODS)


class SetProxy(_BaseSetProxy):  # type: ignore[misc]
    """A set of a manager, which the standard library has from Python 3.14 on.

    Examples
    --------
    >>> with SyncManager() as manager:
    ...     seen = manager.set([1, 2])
    ...     seen |= {3}
    ...     len(seen), 3 in seen
    (3, True)
    """

    _method_to_typeid_ = {"__iter__": "Iterator"}  # noqa: RUF012

    __class_getitem__: Any = classmethod(types.GenericAlias)

    def __iand__(self, value: Any) -> SetProxy:
        self._callmethod("__iand__", (value,))
        return self

    def __ior__(self, value: Any) -> SetProxy:
        self._callmethod("__ior__", (value,))
        return self

    def __isub__(self, value: Any) -> SetProxy:
        self._callmethod("__isub__", (value,))
        return self

    def __ixor__(self, value: Any) -> SetProxy:
        self._callmethod("__ixor__", (value,))
        return self


class SyncManager(BaseManager, _standard.SyncManager):
    """The standard library's `SyncManager` with our server, and sets."""

    _registry = dict(_standard.SyncManager._registry)  # type: ignore[attr-defined]  # noqa: RUF012


def _pool(*arguments: Any, **keywords: Any) -> Any:
    """Ours, in the server; loaded by the server that is asked for one."""
    from shmarray.multiprocessing.pool import Pool

    return Pool(*arguments, **keywords)


SyncManager.register("Pool", _pool, PoolProxy)
if "set" not in SyncManager._registry:
    SyncManager.register("set", set, SetProxy)


# --- arrays -------------------------------------------------------------------------------------------------


class ArrayServer(ManagerServer):
    """A manager's server that holds arrays."""

    public = [*ManagerServer.public, "accept_arrays"]  # noqa: RUF012

    def __init__(self, registry: Any, address: Any, authkey: bytes, serializer: str) -> None:
        super().__init__(registry, address, authkey, serializer)
        self.catalogue = Catalogue()
        self._threads: set[threading.Thread] = set()

    def accept_arrays(self, c: Connection[Any, Any], protocol: int) -> None:
        """Serve one client's use of one array on this connection."""
        if protocol != PROTOCOL:
            raise ValueError(
                f"the client speaks version {protocol} of the protocol for arrays and this manager version {PROTOCOL}; "
                "use the same version of shmarray on both sides"
            )
        thread = threading.current_thread()
        self._threads.add(thread)
        try:
            c.send(("#RETURN", None))
            ArraySession(self.catalogue, c).serve()
        finally:
            self._threads.discard(thread)
        raise SystemExit  # nobody waits for an answer

    def let_go(self) -> None:
        # A transfer has views of its array until its thread has seen the end of the connection.
        until_s = time.monotonic() + _END_S
        for thread in list(self._threads):
            thread.join(max(0.0, until_s - time.monotonic()))
        self.catalogue.close()


class ArrayManager(SyncManager):
    """A server process for arrays and for everything that the standard library's `Manager` shares.

    Parameters
    ----------
    address : tuple of str and int, or str, optional
        A host and port, a text of both (`"127.0.0.1:5000"`), or the path of a Unix socket. By default a Unix
        socket in a folder that no other user can enter.
    authkey : bytes, optional
        Who connects must have it. By default this process's own random one, which its children have too.
        **Whoever has the key is trusted as code**; see `docs/multiprocessing_manager.md`.
    serializer, ctx, shutdown_timeout
        As `multiprocessing.managers.BaseManager`; the serializer must be `"pickle"`.

    Notes
    -----
    `start()` makes the server (so does `with`), `connect()` uses one that is there. The server holds the arrays made
    through it under a name until :meth:`unlink` or its end, those without a name while a client has them. At
    its end arrays live on where programs have them mapped, and with `keep=True` also without.

    Examples
    --------
    >>> with ArrayManager() as manager:
    ...     heights = manager.array((2, 3), "f4", name="manager-example")
    ...     heights += 1  # the server's own memory: nothing is copied
    ...     names = list(manager.arrays())
    ...     counts = manager.dict(rain=0)
    ...     counts["rain"] += 1
    ...     counts["rain"]
    1
    >>> names
    ['manager-example']
    """

    _Server = ArrayServer

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: Literal["pickle"] = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        if serializer != "pickle":
            raise ValueError(f"an ArrayManager speaks pickle alone; got serializer={serializer!r}")
        if authkey is not None and not isinstance(authkey, bytes):
            raise TypeError(f"authkey must be bytes; got {type(authkey).__name__}")
        if isinstance(address, str) and not address.startswith("\0"):
            address = parse_address(address)
        if authkey is not None and not authkey and is_network(address):
            raise ValueError("an empty authkey lets everybody in; use 32 random bytes: os.urandom(32)")
        super().__init__(address, authkey, serializer, ctx, shutdown_timeout=shutdown_timeout)

    def array(
        self,
        shape: Shape,
        dtype: npt.DTypeLike = float,
        *,
        name: str | None = None,
        keep: bool = False,
        chunks: int | Sequence[int] | None = None,
        if_exists: Literal["raise", "open", "replace"] = "raise",
    ) -> SharedArray | RemoteArray:
        """A new array of zeros on the manager's host.

        Parameters
        ----------
        shape, dtype, name, keep, chunks, if_exists
            As :func:`shmarray.empty`. A named one lives until :meth:`unlink` or the manager's end (and beyond, with
            `keep`), an unnamed one while somebody has it.

        Returns
        -------
        SharedArray or RemoteArray
            The server's memory itself where this process can map it; otherwise an object whose slices travel.

        Raises
        ------
        SegmentExistsError, OutOfSharedMemoryError, ValueError, TypeError
            As :func:`shmarray.empty`.
        ManagerConnectionError
            The manager is gone.
        """
        keywords = {"name": name, "keep": keep, "chunks": chunks, "if_exists": if_exists}
        return self._obtain("create", shape, dtype, keywords)

    def open(self, name: str, mode: Literal["r+", "r"] = "r+") -> SharedArray | RemoteArray:
        """An array of that name in the manager's namespace, whoever made it. Returns and raises as :meth:`array`.

        Raises
        ------
        SegmentNotFoundError
            There is no such array.
        """
        if mode not in ("r+", "r"):
            raise ValueError(f"a manager opens arrays with mode 'r+' or 'r'; got {mode!r}")
        return self._obtain("open", name, mode)

    def arrays(self) -> dict[str, registry.SegmentInfo]:
        """What :meth:`open` can open: names, and what the manager's host knows of each."""
        found: dict[str, registry.SegmentInfo] = self._ask_server("arrays")
        return found

    def unlink(self, name: str) -> None:
        """Remove a name; the manager lets go of the array. Whoever has it keeps it.

        Raises
        ------
        SegmentNotFoundError
            There is no such array.
        """
        self._ask_server("unlink", name)

    def _obtain(self, *request: Any) -> SharedArray | RemoteArray:
        line = self._line()
        try:
            offer: Offer = line.ask(*request)
            if is_nearby(offer):
                array = _attach(offer)
                line.ask("settle", False)  # the server lets go of it: we have it ourselves
                line.close()
                return array
            line.ask("settle", True)
            facts = (offer.ident, offer.name, offer.shape, offer.dtype, offer.mode)
            remote = RemoteArray._of(line, self._authkey, self._address, facts)
        except BaseException:
            line.close()
            raise
        return remote

    def _line(self) -> Line:
        if self._state.value != State.STARTED:
            raise ProcessError("this manager has no server: call start() or connect() first, or use it in a with block")
        return Line(self._address, self._authkey)

    def _ask_server(self, *request: Any) -> Any:
        line = self._line()
        try:
            return line.ask(*request)
        finally:
            line.close()


def _attach(offer: Offer) -> SharedArray:
    segment = registry.attach_reference(offer.reference, mode=offer.mode)
    there = segment.descriptor
    array = over_segment(segment, there.shape, there.dtype, kind=SharedArray)
    assert isinstance(array, SharedArray)
    return array
