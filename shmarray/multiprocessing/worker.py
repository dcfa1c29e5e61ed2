"""What runs in a worker process of a pool.

The main thread does the tasks. A second one, the *minder*, sleeps until the pool's process has ended (then this one
ends at once) or a batch takes longer than it should: then what was begun may take for ever, so the minder sends off
the results that are there and gives back the tasks that were not begun, for others to do. No task ever waits behind
another while a worker is idle, and yet short ones travel by the dozen.

Invariant: each task of a batch is taken from `_entries` exactly once, by the main thread or by the minder: `popleft`
and `pop` of a deque are atomic. Whatever a task does, the pool hears of it or sees this process end.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from multiprocessing import util
from multiprocessing.pool import ExceptionWithTraceback, MaybeEncodingError  # type: ignore[attr-defined]
from typing import Any

from shmarray.errors import SegmentNotFoundError
from shmarray.multiprocessing.minder import Minder
from shmarray.multiprocessing.payloads import Payload, dumps, loads
from shmarray.multiprocessing.work import Batch, Entry, Journal, Mode, Report, Status, pack_record
from shmarray.packing import begin_packing, end_packing, is_plain
from shmarray.pool.channel import Channel, ChannelClosedError

__all__ = ["run_worker"]

#: A look for work that takes so long was interrupted by another process (which has its core for a slice of time, not
#: for the microseconds of an interrupt); then none are taken for some batches.
_CROWDED_NS = 200_000
_CROWDED_BATCHES = 50
#: So many times as long as else, work is looked for that has been coming soon.
_LONGER = 4
#: Descriptors that keep what a result names; the channel takes one more for its large arrays, and one for its length.
_MOST_LEASES = 2


def run_worker(
    end: Any, journal: Any, initializer: Callable[..., object] | None, initargs: Iterable[Any], spin_us: int
) -> None:
    """Be a worker: the target of its process.

    Parameters
    ----------
    end, journal : multiprocessing.connection.Connection
        Carry descriptors into this process, whatever its start method: of the socket to the pool, and of the memory
        for the journal.
    initializer, initargs
        Called first.
    spin_us : int
        How long to look for the next batch before going to sleep.
    """
    channel = Channel(socket.socket(fileno=os.dup(end.fileno())))
    worker = Worker(channel, Journal(journal.fileno()), _Interrupts(), spin_us)
    end.close()
    journal.close()
    try:
        if initializer is not None:
            try:
                initializer(*initargs)
            except Exception as error:
                worker.report(Report(0, _raised(error).data))
                raise
        worker.report(Report(0, b""))
        worker.serve()
    except (ChannelClosedError, KeyboardInterrupt):
        pass
    finally:
        util.debug("worker exiting")


class Worker:
    """The loop of a worker, and what it knows."""

    def __init__(self, channel: Channel, journal: Journal, signals: _Interrupts, spin_us: int) -> None:
        self._channel = channel
        self._signals = signals
        self._spin_ns = spin_us * 1000
        self._journal = journal
        self._hot = False  # the last batch came soon after the one before, so the next one may, too
        self._crowded = 0  # how many more times not to look for work before sleeping
        self._number = 0
        self._entries: deque[tuple[int, Entry]] = deque()
        self._functions: dict[int, bytes] = {}
        self._loaded: dict[int, Callable[..., Any]] = {}
        self._sending = threading.Lock()  # guards the channel's sending side and the journal's mark of what was sent
        self._minder = Minder(self.give_back)
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._minder.start()

    def serve(self) -> None:
        """Do batches until the pool says that there will be no more."""
        while True:
            message, descriptors = self._next()
            if message is None:
                return
            self._work(message, descriptors)
            del message  # its arguments may be large

    def report(self, report: Report, payload: Payload | None = None) -> None:
        """Send a report, with a payload's segment; waits until the pool takes it."""
        with self._sending:
            self._send(report, payload)

    def give_back(self) -> None:
        """Called by the minder, while the main thread works."""
        with self._sending:
            number, positions = self._number, []
            while True:
                try:
                    positions.append(self._entries.pop()[0])
                except IndexError:
                    break
            records = self._journal.unsent() if number else b""
            if records or positions:
                self._send(Report(number, records, tuple(positions)))

    # ------------------------------------------------------------------ batches

    def _next(self) -> tuple[Any, list[int]]:
        receive = self._channel.receive
        clock = time.perf_counter_ns
        now = finished = clock()
        until = finished + (_LONGER * self._spin_ns if self._hot else self._spin_ns)
        if self._crowded:
            self._crowded -= 1
            until = 0
        while True:
            received = receive()
            if received is not None:
                self._hot = clock() - finished < _LONGER * self._spin_ns
                return received
            if now < until:
                os.sched_yield()
                before, now = now, clock()
                if now - before > _CROWDED_NS:
                    # Somebody else needs this core. One that sleeps is woken at once; one that looks waits its turn.
                    self._crowded = _CROWDED_BATCHES
                    until = 0
            else:
                self._poll.poll()

    def _work(self, batch: Batch, descriptors: list[int]) -> None:
        start = time.perf_counter_ns()
        number, functions, forget, entries = batch
        for key in forget:
            self._functions.pop(key, None)
            self._loaded.pop(key, None)
        self._functions.update(functions)
        journal, waiting = self._journal, self._entries
        with self._sending:
            journal.open_batch(number)
            self._number = number
            waiting.extend(enumerate(entries))
        del entries, batch
        if len(waiting) > 1:
            self._minder.watch(start)
        while True:
            try:
                position, entry = waiting.popleft()
            except IndexError:
                break
            journal.begin(position)
            status, payload = self._outcome(entry, descriptors)
            if payload.segment is not None or payload.named or not journal.log(position, status, payload.data):
                # Alone, with its segment or because it is long.
                with self._sending:
                    self._send(Report(number, journal.unsent()))
                    record = pack_record(position, status, payload.data)
                    self._send(Report(number, record, nbytes=payload.nbytes), payload)
            del payload
        self._minder.rest()
        with self._sending:
            self._number = 0
            self._send(Report(number, journal.unsent(), (), time.perf_counter_ns() - start))

    def _send(self, report: Report, payload: Payload | None = None) -> None:
        descriptors = []
        if payload is not None:
            if payload.segment is not None:
                descriptors.append(payload.segment.open_unlocked())
            descriptors += _leases(payload.named)
        try:
            self._channel.send(tuple(report), descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        while self._channel.waiting and not self._channel.flush():
            poll = select.poll()
            poll.register(self._channel.fileno(), select.POLLOUT)
            poll.poll()

    # ------------------------------------------------------------------ one task

    def _outcome(self, entry: Entry, descriptors: list[int]) -> tuple[int, Payload]:
        descriptor = descriptors.pop(0) if entry[3] else -1
        try:
            try:
                function, arguments, by_value = self._read(entry, descriptor)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        except SystemExit:
            raise
        except BaseException as error:
            return Status.UNREADABLE, _raised(error)
        del entry
        signals = self._signals
        try:
            signals.armed = True
            try:
                result = function(*arguments)
            finally:
                signals.armed = False
        except SystemExit:
            raise  # the process ends with that status, and the pool says so
        except BaseException as error:
            return Status.RAISED, _raised(error, by_value=by_value)
        del arguments
        try:
            return Status.RETURNED, _dumped(result, by_value)
        except SystemExit:
            raise
        except BaseException as error:
            return Status.RAISED, dumps(MaybeEncodingError(error, result))

    def _read(self, entry: Entry, descriptor: int) -> tuple[Callable[..., Any], Any, bool]:
        """What to call, with what, and whether it came by value."""
        key, mode, data, nbytes = entry
        if mode == Mode.APPLY:
            function, arguments, keywords, by_value = loads(data, nbytes, descriptor)
            if keywords:
                return _with_keywords, (function, arguments, keywords), by_value
            return function, arguments, by_value
        function = self._loaded.get(key)
        by_value = key < 0
        if function is None:
            function = loads(self._functions[key])
            if type(function) in _STATELESS:  # others may change, and each task is to have its own
                self._loaded[key] = function
        arguments = loads(data, nbytes, descriptor)
        if mode == Mode.CALL:
            return function, arguments, by_value
        if mode == Mode.ONE:
            return function, (arguments,), by_value
        return _mapped if mode == Mode.MAP else _starmapped, (function, arguments), by_value


_STATELESS = (type(run_worker), type(len), type)


def _with_keywords(function: Callable[..., Any], arguments: Any, keywords: dict[str, Any]) -> Any:
    return function(*arguments, **keywords)


def _mapped(function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Any]:
    return list(map(function, arguments))


def _starmapped(function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Any]:
    return [function(*each) for each in arguments]


def _dumped(result: Any, by_value: bool) -> Payload:
    if is_plain(result):
        return Payload(pickle.dumps(result, 5))
    begin_packing()
    try:
        payload = _pickled(result, by_value)
    finally:
        named = end_packing()
    return payload._replace(named=tuple(named)) if named else payload


def _leases(segments: tuple[Any, ...]) -> list[int]:
    """Descriptors that keep these segments on their way to the pool; where there cannot be any, time keeps them."""
    from shmarray.registry.references import keep_in_flight, open_leases  # loaded: there are segments

    if len(segments) <= _MOST_LEASES:
        try:
            return open_leases(segments)
        except (OSError, SegmentNotFoundError):
            pass
    for segment in segments:
        keep_in_flight(segment)
    return []


def _pickled(result: Any, by_value: bool) -> Payload:
    try:
        return dumps(result)
    except Exception:
        # As in the original, functions are no results. But where the program's own classes came by value,
        # instances of theirs can only go back by value.
        if not by_value:
            raise
        return dumps(result, by_value=True)


def _raised(error: BaseException, *, by_value: bool = False) -> Payload:
    """An exception with its traceback, in a form that the pool's process can surely read."""
    wrapped: Any = ExceptionWithTraceback(error, error.__traceback__)
    try:
        payload = _dumped(wrapped, by_value)
        if payload.segment is None:
            pickle.loads(payload.data)
        return payload
    except Exception as reason:
        return dumps(MaybeEncodingError(reason, error))


class _Interrupts:
    """Ctrl-C goes to the whole group of processes: it ends what a task is doing, never the worker itself."""

    __slots__ = ("armed",)

    def __init__(self) -> None:
        self.armed = False
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    def _interrupt(self, number: int, frame: Any) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt
