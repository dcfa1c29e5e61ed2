"""What do `imap` and `imap_unordered` return: results that are handed on one by one, as they come."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import TimeoutError
from typing import TYPE_CHECKING, Any

from shmarray.multiprocessing.jobs import Job, Task
from shmarray.multiprocessing.pace import Pace

if TYPE_CHECKING:
    from shmarray.engine.progress import Progress
    from shmarray.multiprocessing.crew import Crew

__all__ = ["IMapIterator", "IMapUnorderedIterator", "chunked", "start_feeding", "with_progress"]


class IMapIterator(Job):
    """The iterator that `imap` returns: results in the order of the arguments, each as soon as it is there."""

    #: Tasks that are taken ahead from an iterable that makes its items slowly, or without end.
    FED_AHEAD = 256

    def __init__(self, crew: Crew, function: Callable[..., Any], mode: int, retries: int) -> None:
        super().__init__(crew, function, Pace(), retries)
        self.hungry = threading.Event()  #: fewer than those wait
        self.mode = mode
        self._chunks: Iterator[Any] | None = None  # arguments that can be looked at without waiting
        self._expected = 0  # how many tasks they are, unless they change meanwhile
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
        return len(self._fed) or max(self._expected - self._taken, 0)

    def feed_from(self, chunks: Iterator[Any], count: int) -> None:
        """Take arguments from an iterator that never waits, and most likely has so many."""
        self._chunks = chunks
        self._expected = count

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


def start_feeding(crew: Crew, job: IMapIterator, chunks: Iterable[Any]) -> None:
    """Have a thread of its own wait for arguments that may be slow to come."""
    threading.Thread(target=_feed, args=(crew, job, chunks), name="shmarray-pool-feeder", daemon=True).start()


def _feed(crew: Crew, job: IMapIterator, chunks: Iterable[Any]) -> None:
    error: BaseException | None = None
    try:
        job.hungry.set()
        for chunk in chunks:
            while not job.hungry.wait(0.5) and crew.wants(job):
                pass
            if not crew.feed(job, chunk):
                return
            del chunk
    except BaseException as raised:  # whatever it is: who takes the results is waiting for it
        error = raised
    crew.end_feeding(job, error)


def with_progress(results: Iterable[Any], iterable: Any, label: str, progress: Progress) -> Iterator[Any]:
    """The same results, told of as they are taken."""
    from shmarray.engine.progress import watching

    total = len(iterable) if hasattr(iterable, "__len__") else 0
    with watching(progress, total, label) as watch:
        assert watch is not None
        for done, result in enumerate(results, start=1):
            watch(done)
            yield result
