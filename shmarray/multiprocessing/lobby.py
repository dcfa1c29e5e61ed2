"""Who has connected and not yet shown that he has the key?

Each such guest has a deadline for the whole handshake, however slowly he sends, and there is room for so many at once.
When it is used up the one who has been there longest goes: the handshake takes a moment, so among silent ones the
newcomer is the likeliest to be honest.

Invariant: a connection is hung up here only while it is in the lobby, under the lobby's lock; so never one
whose descriptor has been closed and given to somebody else.
"""

from __future__ import annotations

import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from shmarray.multiprocessing.sockets import hang_up

__all__ = ["Lobby"]


class Lobby:
    """The guests of one server.

    Parameters
    ----------
    room : int
        How many may be there at once.
    patience_s : float
        How long each may stay.
    """

    def __init__(self, *, room: int, patience_s: float) -> None:
        self.room = room
        self.patience_s = patience_s
        self._lock = threading.Lock()
        #: By `id`, in the order of their coming, which is that of their deadlines.
        self._guests: dict[int, tuple[Connection[Any, Any], float]] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, guest: Connection[Any, Any]) -> None:
        """Let one in, and the oldest out where there is no room."""
        with self._lock:
            while len(self._guests) >= self.room:
                self._turn_out(next(iter(self._guests)))
            self._guests[id(guest)] = (guest, time.monotonic() + self.patience_s)

    def leave(self, guest: Connection[Any, Any]) -> bool:
        """The guest goes, through the handshake or away; False when he has been turned out before."""
        with self._lock:
            return self._guests.pop(id(guest), None) is not None

    def turn_out_late(self) -> float | None:
        """Hang up on all whose time is over. How many seconds the next one has, None when nobody is there."""
        with self._lock:
            now = time.monotonic()
            for key, (_, until_s) in list(self._guests.items()):
                if until_s > now:
                    return until_s - now
                self._turn_out(key)
            return None

    def close(self) -> None:
        """Turn everybody out."""
        with self._lock:
            for key in list(self._guests):
                self._turn_out(key)

    def _turn_out(self, key: int) -> None:
        guest, _ = self._guests.pop(key)
        hang_up(guest)
