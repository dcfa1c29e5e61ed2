"""What has a pool been asked to do, and what came of it?

A job is one call of `map`, `apply_async`, `imap` and their kin: where its tasks come from, and where their results go.
It is also what the user holds: the results of the asynchronous calls.

Invariant: a job hands out each task once and hears of each index once; both happen with the crew's lock held. `done`
turns true once, after its callback has run.
"""

from __future__ import annotations

import itertools
import pickle
import threading
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import TimeoutError
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from shmarray.multiprocessing.payloads import Payload, dumps
from shmarray.multiprocessing.work import Mode, describe_call

if TYPE_CHECKING:
    from shmarray.multiprocessing.crew import Crew

__all__ = ["ApplyResult", "Familiars", "IMapIterator", "IMapUnorderedIterator", "Job", "MapResult", "Pace", "Task"]

_keys = itertools.count(1)


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

    def of(self, function: Any) -> Familiar:
        """What is known of this one."""
        if type(function) is not types.FunctionType:  # others may be changed between two calls
            return Familiar()
        familiar = self._known.get(function)
        if familiar is None:
            familiar = self._known[function] = Familiar()
        return familiar


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
            self.key = 0

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
    ) -> None:
        super().__init__(crew, function, pace, retries)
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
        # The function goes along: no two calls need have it in common.
        arguments, keywords = task.chunk
        if not self.by_value:
            try:
                return dumps((self.function, arguments, keywords, False))
            except Exception:
                pass
        function = _Pickled(self._pickle_function())
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
        super().__init__(crew, function, None, familiar.pace(chunksize), retries, callback, error_callback)
        self.familiar = familiar
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


class IMapIterator(Job):
    """The iterator that `imap` returns: results in the order of the arguments, each as soon as it is there."""

    #: Tasks that are taken ahead from an iterable that makes its items slowly, or without end.
    FED_AHEAD = 256

    def __init__(self, crew: Crew, function: Callable[..., Any], mode: int, retries: int) -> None:
        super().__init__(crew, function, Pace(), retries)
        self.hungry = threading.Event()  #: fewer than those wait
        self.mode = mode
        self._chunks: Iterator[Any] | None = None  # arguments that can be looked at without waiting
        self._fed: deque[Any] = deque()  # arguments that a thread has taken from a slow iterable
        self._taken = 0  # tasks handed out
        self._length: int | None = None  # results that there will be, once that is known
        self._items: deque[tuple[bool, Any]] = deque()
        self._unsorted: dict[int, tuple[bool, Any]] = {}
        self._index = 0  # results that were put into `_items`

    def __iter__(self) -> IMapIterator:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """The next result; `multiprocessing.TimeoutError` if it is not there within `timeout` seconds."""
        items = self._items
        if not items:
            crew = self._crew
            if crew is not None:
                crew.wait(self, lambda: bool(items) or self.done, timeout)
            if not items:
                if self.done:
                    raise StopIteration
                raise TimeoutError(f"the next result was not there within {timeout} s")
        success, value = items.popleft()
        if success:
            return value
        raise value

    __next__ = next

    # ------------------------------------------------------------------ for the crew

    @property
    def pending(self) -> int:
        return len(self._fed)  # of the others one cannot say, which costs no more than some short batches

    def feed_from(self, chunks: Iterator[Any]) -> None:
        """Take arguments from an iterator that never waits."""
        self._chunks = chunks

    def feed(self, chunk: Any) -> None:
        """One more task."""
        self.may_be_endless = True
        self._fed.append(chunk)
        if len(self._fed) >= self.FED_AHEAD:
            self.hungry.clear()

    def end_feeding(self, error: BaseException | None = None) -> None:
        """There are no more arguments, or getting at the next one raised this."""
        self._chunks = None
        length = self._taken + len(self._fed)
        if error is not None:
            self._length = length + 1
            self.deliver(length, False, error)
        else:
            self._length = length
            self._finish_if_all()

    def take(self) -> Task | None:
        if self._fed:
            chunk = self._fed.popleft()
            if len(self._fed) < self.FED_AHEAD:
                self.hungry.set()
        elif self._chunks is None:
            return None
        else:
            try:
                chunk = next(self._chunks)
            except StopIteration:
                self.end_feeding()
                return None
            except Exception as error:
                self.end_feeding(error)
                return None
        self._taken += 1
        return Task(self, self._taken - 1, chunk)

    def deliver(self, index: int, success: bool, value: Any) -> None:
        if index == self._index:
            self._items.append((success, value))
            self._index += 1
            while self._index in self._unsorted:
                self._items.append(self._unsorted.pop(self._index))
                self._index += 1
        else:
            self._unsorted[index] = success, value
        self._finish_if_all()
        self._wake()

    def fail(self, error: BaseException) -> None:
        if not self.done and not self.dropped:
            self.dropped = True
            self._chunks = None
            self._fed.clear()
            self._items.append((False, error))
            self._finish()

    def _finish_if_all(self) -> None:
        if self._index == self._length and not self.done:
            self._finish()


class IMapUnorderedIterator(IMapIterator):
    """The iterator that `imap_unordered` returns: results as they come."""

    def deliver(self, index: int, success: bool, value: Any) -> None:
        self._items.append((success, value))
        self._index += 1
        self._finish_if_all()
        self._wake()


def chunked(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Tuples of `size` items, the last one shorter.

    Examples
    --------
    >>> list(chunked("abcde", 2))
    [('a', 'b'), ('c', 'd'), ('e',)]
    """
    iterator = iter(items)
    while chunk := tuple(itertools.islice(iterator, size)):
        yield chunk
