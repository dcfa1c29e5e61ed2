"""What do `apply_async` and `map_async` return: calls whose results are kept until they are asked for."""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable, Iterable
from multiprocessing import TimeoutError
from typing import TYPE_CHECKING, Any

from shmarray.multiprocessing.jobs import Job, Task
from shmarray.multiprocessing.payloads import Payload, dumps
from shmarray.multiprocessing.work import Mode

if TYPE_CHECKING:
    from shmarray.multiprocessing.crew import Crew
    from shmarray.multiprocessing.pace import Familiar, Pace

__all__ = ["ApplyResult", "MapResult", "all_of"]


class _Pickled:
    """Something that is pickled already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> Any:
        return pickle.loads, (self._data,)


class ApplyResult(Job):
    """The result of `apply_async`, and base of that of `map_async`: `get`, `wait`, `ready`, `successful`."""

    mode: int = Mode.APPLY
    __class_getitem__: Any = classmethod(types.GenericAlias)

    def __init__(
        self,
        crew: Crew,
        function: Callable[..., Any],
        chunk: Any,
        pace: Pace,
        retries: int,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        familiar: Familiar | None = None,
    ) -> None:
        super().__init__(crew, function, pace, retries)
        self.familiar = familiar
        self._callback = callback
        self._error_callback = error_callback
        self._success = True
        self._value: Any = None
        self._task: Task | None = Task(self, 0, chunk)

    # ------------------------------------------------------------------ what users call

    def ready(self) -> bool:
        """Whether the call has completed."""
        return self.done

    def successful(self) -> bool:
        """Whether the call completed without raising; `ValueError` before it has."""
        if not self.done:
            raise ValueError(f"{self!r} not ready")
        return self._success

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is there, or for `timeout` seconds."""
        crew = self._crew
        if crew is not None and not self.done:
            crew.wait(self, lambda: self.done, timeout)

    def get(self, timeout: float | None = None) -> Any:
        """The result, or what the call raised; `multiprocessing.TimeoutError` if it is not there in time."""
        self.wait(timeout)
        if not self.done:
            raise TimeoutError(f"the result was not there within {timeout} s")
        if self._success:
            return self._value
        raise self._value

    # ------------------------------------------------------------------ for the crew

    @property
    def pending(self) -> int:
        return 0 if self._task is None else 1

    def take(self) -> Task | None:
        task, self._task = self._task, None
        return task

    def encode(self, task: Task) -> Payload:
        arguments, keywords = task.chunk
        self.mode = Mode.APPLY
        if self.familiar is not None and not (self.by_value or keywords):
            if not self.key:
                self._assign_key()
            if not self.by_value:
                self.mode = Mode.CALL
                return self._pickle_arguments(arguments)
        self.key = 0  # the function goes along
        if not self.by_value:
            try:
                return dumps((self.function, arguments, keywords, False))
            except Exception:
                pass
        function = _Pickled(self.function_data or self._pickle_function())
        task.by_value = self.by_value
        return self._pickle_arguments((function, arguments, keywords, self.by_value))

    def deliver(self, index: int, success: bool, value: Any) -> None:
        self._success, self._value = success, value
        self._complete()

    def fail(self, error: BaseException) -> None:
        if not self.done and not self.dropped:
            self.dropped = True
            self._success, self._value = False, error
            self._task = None
            self._complete()

    def forget_callbacks(self) -> None:
        self._callback = self._error_callback = None

    def _complete(self) -> None:
        callback = self._callback if self._success else self._error_callback
        self._callback = self._error_callback = None
        if callback is None or self._crew is None:
            self._finish()
        else:
            self._crew.call_back(callback, self._value, self._finish)


class MapResult(ApplyResult):
    """The result of `map_async` and `starmap_async`."""

    encode = Job.encode

    def __init__(
        self,
        crew: Crew,
        function: Callable[..., Any],
        items: Any,
        mode: int,
        chunksize: int,
        familiar: Familiar,
        retries: int,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        super().__init__(crew, function, None, familiar.pace(chunksize), retries, callback, error_callback, familiar)
        self.mode = mode
        self._task = None
        self._items = items
        self._chunksize = chunksize
        self._next = 0
        self._value = [None] * len(items)
        self._number_left = -(-len(items) // chunksize) if chunksize else 0
        self._number = self._number_left
        self.items_done = 0  #: for progress bars

    @property
    def pending(self) -> int:
        return self._number - self._next

    @property
    def needs_workers(self) -> bool:
        """Whether there is anything to do."""
        return not (self.done or self.dropped)

    @property
    def total(self) -> int:
        """How many items there are."""
        return len(self._value)

    def complete_empty(self) -> None:
        """There is nothing to do, and as in the original no callback hears of it."""
        self._finish()

    def take(self) -> Task | None:
        index = self._next
        if index >= self._number:
            return None
        self._next = index + 1
        size = self._chunksize
        if size == 1:
            return Task(self, index, (self._items[index],))
        return Task(self, index, tuple(self._items[index * size : (index + 1) * size]))

    def deliver(self, index: int, success: bool, value: Any) -> None:
        self._number_left -= 1
        start = index * self._chunksize
        self.items_done += min(self._chunksize, len(self._items) - start)
        if not success:
            if self._success:  # the first error is the one that is raised, once all tasks are done
                self._success, self._value = False, value
        elif self._success:
            self._value[start : start + self._chunksize] = value
        self._complete_if_all()

    def _complete_if_all(self) -> None:
        if self._number_left == 0 and not self.dropped:
            self._items = ()
            self._complete()

    def fail(self, error: BaseException) -> None:
        if not self.done and not self.dropped:
            self.dropped = True
            self._next = self._number
            self._items = ()
            if self._success:
                self._success, self._value = False, error
            self._complete()


def all_of(iterable: Iterable[Any]) -> tuple[Any, Exception | None]:
    """An iterable's items, to be counted; or what it raised, where the call is to raise that later."""
    if type(iterable) in (list, tuple, range):
        return iterable, None
    try:
        return list(iterable), None
    except Exception as error:
        if not hasattr(iterable, "__len__"):
            raise
        return (), error
