"""What has a pool been asked to do?

A job is one call of `map`, `apply_async`, `imap` and their kin: where its tasks come from, and where their results go.
`results` and `iterators` have the kinds, which are also what the user holds.

Invariant: a job hands out each task once and hears of each index once; both happen with the crew's lock held. `done`
turns true once, after its callback has run.
"""

from __future__ import annotations

import itertools
import threading
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shmarray.multiprocessing.payloads import Payload, dumps
from shmarray.multiprocessing.work import describe_call

if TYPE_CHECKING:
    from shmarray.multiprocessing.crew import Crew
    from shmarray.multiprocessing.pace import Familiar, Pace

__all__ = ["Job", "Task"]

_keys = itertools.count(1)


class Task:
    """A piece of a job: one call of its function, or those of a chunk."""

    __slots__ = ("by_value", "chunk", "deaths", "index", "job", "payload")

    def __init__(self, job: Job, index: int, chunk: Any) -> None:
        self.job = job
        self.index = index
        self.chunk = chunk
        self.payload: Payload | None = None  #: once it was pickled
        self.by_value = False  #: whether the payload needs the function by value
        self.deaths = 0  #: workers that died over it


class Job:
    """What all kinds have in common."""

    mode: int
    may_be_endless = False  #: then it takes turns with others

    def __init__(self, crew: Crew, function: Callable[..., Any], pace: Pace, retries: int) -> None:
        self._crew: Crew | None = crew
        self.function = function
        self.pace = pace
        self.retries = retries
        self.by_value = crew.must_go_by_value(function)
        self.key = 0  #: under which workers know the function; 0: it has not been sent; negative: by value
        self.function_data = b""
        self.familiar: Familiar | None = None  #: where the key is kept for other jobs
        self.done = False  #: nothing is left to happen
        self.dropped = False  #: nobody wants the results any more
        self.waiting: list[threading.Event] = []  #: threads that wait without serving the pool
        self.owner: Any = None  #: the pool, which lives while the job does

    @property
    def pending(self) -> int:
        """How many tasks can be taken now."""
        raise NotImplementedError

    def take(self) -> Task | None:
        """The next task, None when there is none (now)."""
        raise NotImplementedError

    def deliver(self, index: int, success: bool, value: Any) -> None:
        """The result of a task, or what it raised."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """The pool cannot do what is left of it."""
        raise NotImplementedError

    def forget_callbacks(self) -> None:
        """The pool is terminated, which is nothing to tell callbacks."""

    def encode(self, task: Task) -> Payload:
        """A task's payload; tells workers' version of the function too. Raises what pickling raises."""
        if not self.key:
            self._assign_key()
        task.by_value = self.by_value
        return self._pickle_arguments(task.chunk)

    def send_by_value(self) -> None:
        """Workers cannot find the function, or what belongs to its arguments, by name."""
        if not self.by_value:
            self.by_value = True
            self.key, self.function_data = 0, b""

    def _assign_key(self) -> None:
        familiar = self.familiar
        if familiar is not None and familiar.key and not self.by_value:
            self.key, self.function_data = familiar.key, familiar.data
            return
        self.function_data = self._pickle_function()
        self.key = -next(_keys) if self.by_value else next(_keys)
        if familiar is not None and not self.by_value and type(self.function) is types.FunctionType:
            familiar.key, familiar.data = self.key, self.function_data

    @property
    def keeps_key(self) -> bool:
        """Whether workers are to remember the function."""
        return self.familiar is not None and self.familiar.key == self.key

    def _pickle_function(self) -> bytes:
        if not self.by_value:
            try:
                return dumps(self.function).data
            except Exception as error:
                try:
                    data = dumps(self.function, by_value=True).data
                except Exception:
                    raise error from None
                self.by_value = True
                return data
        return dumps(self.function, by_value=True).data

    def _pickle_arguments(self, value: Any) -> Payload:
        # By value only if they must: then functions of the main program among them lose sight of its globals.
        if not self.by_value:
            try:
                return dumps(value)
            except Exception as error:
                try:
                    return dumps(value, by_value=True)
                except Exception:
                    raise error from None
        return dumps(value, by_value=True)

    def __repr__(self) -> str:
        state = "done" if self.done else "running"
        return f"<{type(self).__name__} of {describe_call(self.function)}, {state}>"

    def _wake(self) -> None:
        for event in self.waiting:
            event.set()

    def _finish(self) -> None:
        """Everything is there; who waits is told."""
        self.done = True
        crew, self._crew = self._crew, None
        self.owner = None
        self._wake()
        if crew is not None:
            crew.end(self)
