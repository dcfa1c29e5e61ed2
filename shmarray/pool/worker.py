"""The program of a worker process: wait for a job, claim chunks, until the caller is gone.

A worker knows jobs by number. What a job is came before over the channel, as an object with a method
`bind(worker)` that gives a function to run on this worker's lane. Whatever goes wrong in a chunk is sent back; only
death is silent, and that the caller sees by itself.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from shmarray.pool.channel import Channel, ChannelClosedError
from shmarray.pool.lane import Lane, SegmentKey
from shmarray.pool.page import CONTROL, JOB, READY, DispatchPage
from shmarray.segment import map_descriptor, unmap

__all__ = ["Worker", "current_worker", "main"]

_current: Worker | None = None


def current_worker() -> Worker | None:
    """The worker that this process is, None in any other process."""
    return _current


class Worker(Lane):
    """One lane of a pool, seen from inside its process."""

    def __init__(self, number: int, page: DispatchPage, channel: Channel) -> None:
        super().__init__(number, page)
        self.channel = channel
        self._sizes: dict[SegmentKey, int] = {}
        self._payloads: dict[int, bytes] = {}
        self._entries: dict[int, Callable[..., int]] = {}
        self._specs: dict[int, bytes] = {}
        self._jobs: dict[int, Callable[[Lane, int], int]] = {}
        self._spin_ns = 0
        self._stopping = False

    def serve(self) -> None:
        """Work until told to stop."""
        await_job, address, lane, words = self.calls.await_job, self.page.address, self.number, self.page.words
        job_word = JOB // 8
        control_word = CONTROL // 8
        control = -1  # unlike any count: messages are read before the first job
        seen = 0
        words[self.page.slot(lane, READY)] = os.getpid()
        while True:
            epoch = await_job(address, lane, seen, control, self._spin_ns)
            if epoch < 0:
                control = int(words[control_word])
                self._read_messages()
                if self._stopping:
                    return
                continue
            seen = epoch
            number = int(words[job_word])
            run = self._jobs.get(number)
            if run is None:
                run = self._bind(number)
                if run is None:
                    continue
            try:
                run(self, 0)
            except BaseException as error:
                self.fail(number, error)

    def entry(self, kernel: int) -> Callable[..., int]:
        """The machine code of a kernel that the caller has sent, loaded at its first use."""
        entry = self._entries.get(kernel)
        if entry is None:
            from shmarray import jit

            entry = self._entries[kernel] = jit.load(self._payloads.pop(kernel))
        return entry

    def finish(self, index: int) -> None:
        """Mark a chunk as done. What was printed for it is on its way by then."""
        sys.stdout.flush()
        sys.stderr.flush()
        super().finish(index)

    def fail(self, number: int, error: BaseException) -> None:
        """Report what the chunk at hand raised, and let nobody start another."""
        self.channel.send(("failed", number, self.mark_failed(), *_portable(error)))

    def _bind(self, number: int) -> Callable[[Lane, int], int] | None:
        if number not in self._specs:
            self._read_messages()
        spec = self._specs.pop(number, None)
        if spec is None:  # the message is still on its way: others do this job
            return None
        try:
            run: Callable[[Lane, int], int] = pickle.loads(spec).bind(self)
        except BaseException as error:
            failure = error  # the name `error` ends with this block

            def run(lane: Lane, budget_ns: int) -> int:
                raise failure

        self._jobs[number] = run
        return run

    def _read_messages(self) -> None:
        while True:
            received = self.channel.receive()
            if received is None:
                return
            message, descriptors = received
            kind = message[0]
            if kind == "kernel":
                self._payloads[message[1]] = message[2]
            elif kind == "job":
                self._specs[message[1]] = message[2]
            elif kind == "forget":
                for known in (self._jobs, self._specs, self._entries, self._payloads):
                    known.pop(message[1], None)
            elif kind == "map":
                _, key, nbytes, writable = message
                self.addresses[key] = map_descriptor(descriptors[0], nbytes, writable=writable)
                self._sizes[key] = nbytes
            elif kind == "unmap":
                address = self.addresses.pop(message[1], None)
                if address is not None:
                    unmap(address, self._sizes.pop(message[1]))
            elif kind == "settings":
                self._spin_ns = message[1]["spin_ns"]
                self._apply(message[1])
            elif kind == "stop":
                self._stopping = True
            for fd in descriptors:
                os.close(fd)

    def _apply(self, settings: dict[str, Any]) -> None:
        from shmarray.configuration import config

        for name, value in settings["config"].items():
            setattr(config, name, value)
        import logging

        logging.getLogger().setLevel(settings["log_level"])
        logging.getLogger("shmarray").setLevel(settings["shmarray_log_level"])


def _portable(error: BaseException) -> tuple[bytes | None, str, str]:
    """An exception as bytes (None when it does not pickle), its one-line form, and its traceback as text."""
    text = "".join(traceback.format_exception(error))
    line = "".join(traceback.format_exception_only(error)).strip()
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        return None, line, text
    return pickled, line, text


def _log_to(packets: socket.socket) -> None:
    import logging

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            facts = {**record.__dict__, "msg": record.getMessage(), "args": None}
            if record.exc_info:
                facts["exc_text"] = logging.Formatter().formatException(record.exc_info)
                facts["exc_info"] = None
            with contextlib.suppress(Exception):
                packets.send(pickle.dumps(facts))

    logging.getLogger().addHandler(Forward())


def _leave_with(parent: int) -> None:
    """End this process when the parent does, also in the middle of a chunk."""
    try:
        pidfd = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(0)
    if os.getppid() != parent:  # it died, and the number is another's
        os._exit(0)

    def watch() -> None:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, name="shmarray-watch-caller", daemon=True).start()


def main(lane: int, page_fd: int, channel_fd: int, log_fd: int, parent: int) -> None:
    """Run a worker on inherited descriptors; called by the command line that `WorkerProcess` writes."""
    global _current
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle, for the whole pool
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    for fd in (page_fd, channel_fd, log_fd):
        os.set_inheritable(fd, False)
    _leave_with(parent)
    faulthandler.enable()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _log_to(socket.socket(fileno=log_fd))
    channel = Channel(socket.socket(fileno=channel_fd))
    try:
        worker = Worker(lane, DispatchPage(page_fd), channel)
        _current = worker
        worker.serve()
    except ChannelClosedError:
        pass
    finally:
        sys.stdout.flush()
        # No atexit handlers, no destructors: nothing here outlives the process, and what the user's code registered
        # for exit was registered for the user's program.
        os._exit(0)
