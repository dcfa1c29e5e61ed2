"""A pool of worker processes with the interface of `multiprocessing.pool.Pool`.

A worker that dies fails the task it was doing, and no other; it is replaced, and no call hangs. Arrays in arguments and
results go through shared memory; lambdas and closures work.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import pool as _standard
from multiprocessing import util
from multiprocessing.pool import ThreadPool
from numbers import Integral
from typing import TYPE_CHECKING, Any

import shmarray.registry.references  # noqa: F401  # here, so that forked workers need not load it
from shmarray.configuration import config
from shmarray.multiprocessing.crew import CLOSE, RUN, TERMINATE, Crew
from shmarray.multiprocessing.iterators import (
    IMapIterator,
    IMapUnorderedIterator,
    chunked,
    start_feeding,
    with_progress,
)
from shmarray.multiprocessing.member import WorkerMaker
from shmarray.multiprocessing.pace import Familiars, Pace
from shmarray.multiprocessing.results import ApplyResult, MapResult, all_of
from shmarray.multiprocessing.work import Mode, describe_call

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from shmarray.engine.progress import Progress
    from shmarray.pool import Pool as EnginePool
    from shmarray.pool import WorkerInfo

__all__ = ["Pool", "ThreadPool"]

AsyncResult = ApplyResult

#: Arguments in these can be taken without waiting for anybody, and without running anybody's code.
_AT_HAND = frozenset({list, tuple, range, str, bytes, bytearray, set, frozenset, dict, deque})


class Pool(_standard.Pool):
    """Worker processes that do calls.

    Parameters
    ----------
    processes : int, optional
        How many; by default as many as there are cores (`os.cpu_count()`, as in the standard library).
    initializer : callable, optional
        `initializer(*initargs)` is called first in each worker.
    initargs : iterable
        May hold locks and queues: workers inherit them.
    maxtasksperchild : int, optional
        After so many tasks a worker is replaced by a new process.
    context : context, optional
        Decides the start method; by default the program's.
    retries : int
        How often a task is done again whose worker died; `WorkerDiedError` after that. Methods take it too.

    Examples
    --------
    >>> with Pool(2) as pool:
    ...     pool.map(lambda x: x * x, [1, 2, 3])
    [1, 4, 9]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        retries: int = 0,
    ) -> None:
        # Not the base's: it would start threads and queues of its own. It is the base for the sake of isinstance.
        if context is None:
            from shmarray.multiprocessing.context import default_context

            context = default_context.get_context()
        if processes is None:
            processes = os.cpu_count() or 1
        given: Any = processes
        if not isinstance(given, Integral):
            raise TypeError(f"processes must be a positive integer, or None for one a core; got {processes!r}")
        if processes < 1:
            raise ValueError(f"Number of processes must be at least 1; got {processes!r}")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
            raise ValueError(f"maxtasksperchild must be a positive int or None; got {maxtasksperchild!r}")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._ctx = context
        self._pid = os.getpid()
        self._retries = _checked(retries)
        self._pace = Pace()  # of the calls of apply_async
        self._familiars = Familiars()
        self._engines: list[EnginePool] = []  # one at most
        self._crew = Crew(
            processes,
            WorkerMaker(self),
            initializer,
            initargs,
            maxtasksperchild,
            inherits_main=context.get_start_method() == "fork",
            spin_us=config.spin_us,
        )
        self._state = RUN  # from here on it wants to be closed
        self._terminate = util.Finalize(self, _end, args=(self._crew, self._engines), exitpriority=15)

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        """Makes a worker's process; subclasses may make another kind."""
        return ctx.Process(*args, **kwds)

    # ------------------------------------------------------------------ one call

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Any = None, **options: Any) -> Any:
        """`func(*args, **kwds)` in a worker; waits for the result."""
        job = self._applied(func, args, kwds, **options)
        self._crew.submit(job, wait=True)
        return job.get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Any = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **options: Any,
    ) -> Any:
        """The same, not waited for: an :class:`AsyncResult`."""
        job = self._applied(func, args, kwds, callback, error_callback, **options)
        self._crew.submit(job)
        return job

    def _applied(
        self,
        function: Callable[..., Any],
        args: Iterable[Any],
        kwds: Any,
        callback: Any = None,
        error_callback: Any = None,
        *,
        retries: int | None = None,
    ) -> ApplyResult:
        self._check_running()
        chunk = (tuple(args), dict(kwds or {}))
        familiar, tries = self._familiars.known(function), self._tries(retries)
        job = ApplyResult(self._crew, function, chunk, self._pace, tries, callback, error_callback, familiar)
        job.owner = self
        return job

    # ------------------------------------------------------------------ many calls, a list of results

    def map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        progress: Progress = False,
        retries: int | None = None,
    ) -> list[Any]:
        """`[func(x) for x in iterable]`, by all workers.

        Parameters
        ----------
        func : callable
        iterable : iterable
        chunksize : int, optional
            How many items make a task; by default a quarter of each worker's share.
        progress : bool or callable
            Show a bar, or call with (items done, items).
        retries : int, optional
            Instead of the pool's.

        Raises
        ------
        Exception
            The first that a call raised, once all are done, with the worker's traceback as its cause.
        WorkerDiedError
            A worker died in a task.
        """
        return self._mapped(Mode.MAP, func, iterable, chunksize, progress, retries)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        progress: Progress = False,
        retries: int | None = None,
    ) -> list[Any]:
        """`[func(*x) for x in iterable]`; see :meth:`map`."""
        return self._mapped(Mode.STARMAP, func, iterable, chunksize, progress, retries)

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        retries: int | None = None,
    ) -> Any:
        """:meth:`map`, not waited for: an :class:`AsyncResult`."""
        return self._begun(self._map_job(Mode.MAP, func, iterable, chunksize, retries, callback, error_callback))

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        retries: int | None = None,
    ) -> Any:
        """:meth:`starmap`, not waited for: an :class:`AsyncResult`."""
        return self._begun(self._map_job(Mode.STARMAP, func, iterable, chunksize, retries, callback, error_callback))

    def _mapped(
        self,
        mode: Mode,
        function: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        progress: Progress,
        retries: int | None,
    ) -> list[Any]:
        job = self._map_job(mode, function, iterable, chunksize, retries)
        if not job.needs_workers or progress is False:
            self._begun(job, wait=True)
        else:
            from shmarray.engine.progress import watching

            with watching(progress, job.total, describe_call(function)) as watch:
                assert watch is not None
                self._crew.submit(job, wait=True, watch=lambda: watch(job.items_done))
                watch(job.items_done)
        result: list[Any] = job.get()
        return result

    def _begun(self, job: MapResult, *, wait: bool = False) -> MapResult:
        if job.needs_workers:
            self._crew.submit(job, wait=wait)
        return job

    def _map_job(
        self,
        mode: Mode,
        function: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        retries: int | None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> MapResult:
        self._check_running()
        items, error = all_of(iterable)
        if chunksize is None:
            chunksize = -(-len(items) // (self._crew.size * 4))
        elif chunksize < 1 and items:
            raise ValueError(f"chunksize must be at least 1; got {chunksize!r}")
        familiar, tries = self._familiars.of(function), self._tries(retries)
        job = MapResult(self._crew, function, items, mode, chunksize, familiar, tries, callback, error_callback)
        if error is not None:
            job.fail(error)
        elif not items:
            job.complete_empty()
        else:
            job.owner = self
        return job

    # ------------------------------------------------------------------ many calls, results one by one

    def imap(  # type: ignore[override]  # an iterator of another class, as with the original's chunks
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        progress: Progress = False,
        retries: int | None = None,
    ) -> Any:
        """An iterator over `func(x) for x in iterable`: results in order, as they come."""
        return self._iterated(IMapIterator, func, iterable, chunksize, progress, retries)

    def imap_unordered(  # type: ignore[override]
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        progress: Progress = False,
        retries: int | None = None,
    ) -> Any:
        """An iterator over the same results in the order in which they are ready."""
        return self._iterated(IMapUnorderedIterator, func, iterable, chunksize, progress, retries)

    def _iterated(
        self,
        kind: type[IMapIterator],
        function: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int,
        progress: Progress,
        retries: int | None,
    ) -> Iterator[Any]:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")
        job = kind(self._crew, function, Mode.ONE if chunksize == 1 else Mode.MAP, self._tries(retries))
        job.owner = self
        chunks: Any = iterable if chunksize == 1 else chunked(iterable, chunksize)
        if type(iterable) in _AT_HAND:
            job.feed_from(iter(chunks), -(-len(iterable) // chunksize))  # type: ignore[arg-type]
            self._crew.submit(job)
        else:
            self._crew.submit(job)
            start_feeding(self._crew, job, chunks)
        results: Iterator[Any] = job
        if chunksize > 1:
            results = (item for chunk in job for item in chunk)
        if progress is not False:
            return with_progress(results, iterable, describe_call(function), progress)
        return results

    # ------------------------------------------------------------------ its life

    def close(self) -> None:
        """Take no more work. Workers end when what there is has been done."""
        self._check_outside()
        if self._state == RUN:
            self._state = CLOSE
            self._crew.close()
            for engine in self._engines:
                engine.close()

    def terminate(self) -> None:
        """End the workers at once; calls that are under way raise `WorkerDiedError`."""
        self._check_outside()
        self._state = TERMINATE
        self._terminate()

    def _check_outside(self) -> None:
        if any(engine.held_by_this_thread for engine in self._engines):
            raise RuntimeError("a pool cannot be closed from inside a kernel's call that it is running")

    def join(self) -> None:
        """Wait for the workers to end; after `close` or `terminate`."""
        if self._state == RUN:
            raise ValueError("Pool is still running")
        self._crew.join()

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    def __del__(self) -> None:
        if getattr(self, "_state", None) == RUN and self._pid == os.getpid():
            warnings.warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} state={self._state} pool_size={self._crew.size}>"

    @property
    def workers(self) -> list[WorkerInfo]:
        """The workers: pid, "starting", "idle" or "busy", and what they are doing."""
        return self._crew.describe()

    @property
    def lanes(self) -> int:
        """How many workers."""
        return self._crew.size

    @property
    def engine(self) -> EnginePool:
        """Lanes for kernels that are called with `pool=` this pool: as many, in processes of their own, made when they
        are first needed, and ended with this pool."""
        self._check_running()
        if not self._engines:
            from shmarray.pool import Pool as EnginePool

            self._engines.append(EnginePool(self._crew.size))
        return self._engines[0]

    # ------------------------------------------------------------------ what programs use of the original's inside

    @property
    def _pool(self) -> list[BaseProcess]:
        return [member.process for member in self._crew.members]

    @_pool.setter
    def _pool(self, processes: Any) -> None:
        raise AttributeError("the workers of a pool are its own")

    def _repopulate_pool(self) -> None:
        self._crew.fill_up()

    def _check_running(self) -> None:
        if self._pid != os.getpid():
            raise ValueError("this pool belongs to the parent process; make another")
        if self._state != RUN:
            raise ValueError("Pool not running")

    def _tries(self, retries: int | None) -> int:
        return self._retries if retries is None else _checked(retries)


def _end(crew: Crew, engines: list[EnginePool]) -> None:
    crew.terminate()
    while engines:
        engines.pop().terminate()


def _checked(retries: Any) -> int:
    if not isinstance(retries, int) or retries < 0:
        raise ValueError(f"retries must be 0 or a positive integer; got {retries!r}")
    return retries


def __getattr__(name: str) -> Any:
    # `multiprocessing.pool` has more names, some of them private and used all the same.
    try:
        return getattr(_standard, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
