"""How long do a function's tasks take, and what else is known of it from earlier calls?

Invariant: nothing here changes what a call returns: only how many tasks go out at once, and whether a function is
pickled again.
"""

from __future__ import annotations

import types
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["Familiar", "Familiars", "Pace"]


class Pace:
    """How long a task takes, so that short ones go out by the dozen."""

    __slots__ = ("_task_ns",)

    #: What a batch should take: long beside the cost of sending it, short beside anybody's patience.
    BATCH_NS = 300_000
    MAX_TASKS = 100
    #: Work that is done in this time is not worth waking a second worker for.
    INDIVISIBLE_NS = 150_000

    def __init__(self) -> None:
        self._task_ns = 0.0  # not known yet

    @property
    def batch_tasks(self) -> int:
        """How many tasks to send at once."""
        return min(self.MAX_TASKS, int(self.BATCH_NS / self._task_ns) or 1) if self._task_ns else 1

    def is_indivisible(self, tasks: int) -> bool:
        """Whether so many tasks are known to be done before two workers are awake."""
        return 0 < tasks * self._task_ns < self.INDIVISIBLE_NS

    @property
    def is_short(self) -> bool:
        """Whether a task is known to take no longer than it takes to wake a worker."""
        return self.is_indivisible(1)

    def learn(self, elapsed_ns: int, tasks: int) -> None:
        """Some tasks took this long; the last ones count for most."""
        if tasks:
            now = max(elapsed_ns / tasks, 1.0)
            self._task_ns = now if not self._task_ns else 0.5 * (self._task_ns + now)


class Familiar:
    """What is known of a function that a pool has been given before.

    Attributes
    ----------
    key, data
        Under which workers have it, and its pickle; 0 when it was not sent by name yet.
    """

    __slots__ = ("_paces", "data", "key")

    def __init__(self) -> None:
        self.key = 0
        self.data = b""
        self._paces: dict[int, Pace] = {}

    def pace(self, chunksize: int) -> Pace:
        """That of tasks of so many items."""
        if len(self._paces) > 20:
            self._paces.clear()
        return self._paces.setdefault(chunksize, Pace())


class Familiars:
    """The functions that a pool was given, while they exist."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Any, Familiar] = WeakKeyDictionary()

    def known(self, function: Any) -> Familiar | None:
        """What is kept of this one; None for what may be changed between two calls."""
        return self.of(function) if type(function) is types.FunctionType else None

    def of(self, function: Any) -> Familiar:
        """What is known of this one."""
        if type(function) is not types.FunctionType:  # others may be changed between two calls
            return Familiar()
        familiar = self._known.get(function)
        if familiar is None:
            familiar = self._known[function] = Familiar()
        return familiar
