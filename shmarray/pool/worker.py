"""The program of a worker process: wait for a job, claim chunks, until the caller is gone.

A worker knows jobs by number. What a job is came before over the channel, as an object with a method
`bind(worker)` that gives a function to run on this worker's lane. Whatever goes wrong in a chunk is sent back; only
death is silent, and that the caller sees by itself.
"""

from __future__ import annotations

import array
import errno
import faulthandler
import fcntl
import os
import pickle
import select
import signal
import socket
import sys
import termios
import threading
import traceback
from collections.abc import Callable
from typing import Any

from shmarray.pool import logs
from shmarray.pool.channel import Channel, ChannelClosedError
from shmarray.pool.lane import Lane, SegmentKey
from shmarray.pool.outcome import users_part
from shmarray.pool.output import write_through_page
from shmarray.pool.page import ACTIVE, CONTROL, EPOCH, JOB, READY, SAID, DispatchPage
from shmarray.segment import map_descriptor, unmap
from shmarray.segment.failpoints import ARMED, reach

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
        self._unmappable: dict[SegmentKey, OSError] = {}
        self._spin_ns = 0
        self._stopping = False

    def serve(self) -> None:
        """Work until told to stop."""
        await_job, address, lane, words = self.calls.await_job, self.page.address, self.number, self.page.words
        job_word = JOB // 8
        control_word = CONTROL // 8
        control = -1  # unlike any count: messages are read before the first job
        seen = 0
        while True:
            if ARMED:
                reach("worker.wait")
            epoch = await_job(address, lane, seen, control, self._spin_ns)
            if epoch < 0:
                control = int(words[control_word])
                self._read_messages()
                if self._stopping:
                    return
                words[self.page.slot(lane, READY)] = os.getpid()
                continue
            seen = epoch
            number = int(words[job_word])
            run = self._jobs.get(number)
            if run is None:
                run = self._bind(number, epoch)
                if run is None:
                    continue
            try:
                run(self, 0)
            except BaseException as error:
                self.fail(error)

    def entry(self, kernel: int) -> Callable[..., int]:
        """The machine code of a kernel that the caller has sent, loaded at its first use."""
        entry = self._entries.get(kernel)
        if entry is None:
            from shmarray import jit

            entry = self._entries[kernel] = jit.load(self._payloads.pop(kernel))
        return entry

    def finish(self, index: int) -> None:
        """Mark a chunk of a Python job as done. What was written for it is on its way by then, and noted."""
        if ARMED:
            reach("worker.finish")
        sys.stdout.flush()
        sys.stderr.flush()
        if _unread(1) or _unread(2):  # by C code, or a process that the chunk has started
            self.note_output()
        super().finish(index)

    def note_output(self) -> None:
        """Have the caller look for output before its call returns."""
        self.page.words[self.page.slot(self.number, SAID)] = 1

    def fail(self, error: BaseException) -> None:
        """Report what the chunk at hand raised, and let nobody start another."""
        sys.stdout.flush()
        epoch = int(self.page.words[self.page.slot(self.number, ACTIVE)])
        self.channel.send(("failed", epoch, self.mark_failed(), *_portable(error)))

    def _bind(self, number: int, epoch: int) -> Callable[[Lane, int], int] | None:
        epoch_word = EPOCH // 8
        self._read_messages()
        while number not in self._specs:
            # The caller has more for this worker than its socket takes: it sends the rest while it waits.
            if int(self.page.words[epoch_word]) & 0xFFFFFFFF != epoch:
                return None  # others have done the job meanwhile
            self._read_messages(timeout_s=0.001)
        spec = self._specs.pop(number)
        try:
            run: Callable[[Lane, int], int] = pickle.loads(spec).bind(self)
        except BaseException as error:
            failure = error  # the name `error` ends with this block
            if isinstance(error, KeyError) and error.args[0] in self._unmappable:
                failure = self._unmappable[error.args[0]]

            def run(lane: Lane, budget_ns: int) -> int:
                raise failure

        self._jobs[number] = run
        return run

    def _read_messages(self, timeout_s: float = 0.0) -> None:
        while True:
            received = self.channel.receive(timeout_s)
            if received is None:
                return
            timeout_s = 0.0
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
                self._unmap(message[1])
                self._map(message[1], message[2], descriptors, writable=message[3])
            elif kind == "unmap":
                self._unmap(message[1])
            elif kind == "settings":
                self._apply(message[1])
            elif kind == "stop":
                self._stopping = True
            for fd in descriptors:
                os.close(fd)

    def _map(self, key: SegmentKey, nbytes: int, descriptors: list[int], *, writable: bool) -> None:
        try:
            if ARMED:
                reach("worker.map")
            if not descriptors:  # the kernel drops what goes past the limit of open files
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self.addresses[key] = map_descriptor(descriptors[0], nbytes, writable=writable)
            self._sizes[key] = nbytes
        except OSError as error:  # told when a job needs it
            error.add_note(f"a worker could not map {nbytes} bytes of shared memory")
            self._unmappable[key] = error

    def _unmap(self, key: SegmentKey) -> None:
        self._unmappable.pop(key, None)
        address = self.addresses.pop(key, None)
        if address is not None:
            if ARMED:
                reach("worker.unmap")
            unmap(address, self._sizes.pop(key))

    def _apply(self, settings: dict[str, Any]) -> None:
        from shmarray.configuration import config

        self._spin_ns = settings["spin_ns"]
        for name, value in settings["config"].items():
            setattr(config, name, value)
        logs.apply_levels(settings["log_levels"])


def _unread(fd: int) -> bool:
    """Whether something is in a pipe that the caller has not read yet."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, count)
    except OSError:  # the user's code has put something else in its place
        return True
    return count[0] > 0


def _portable(error: BaseException) -> tuple[bytes | None, str, str]:
    """An exception as bytes (None when it does not pickle), its one-line form, and its traceback as text."""
    text = "".join(traceback.format_exception(type(error), error, users_part(error.__traceback__)))
    line = "".join(traceback.format_exception_only(error)).strip()
    for dumps in (pickle.dumps, _dumps_by_value):
        try:
            pickled = dumps(error)
            pickle.loads(pickled)
            return pickled, line, text
        except Exception:  # there are two of them
            continue
    return None, line, text


def _dumps_by_value(error: BaseException) -> bytes:
    """A class of the user's program becomes the caller's own class again: cloudpickle knows it by its number."""
    import cloudpickle

    dumped: bytes = cloudpickle.dumps(error)
    return dumped


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
        while _current is None:
            if poll.poll(20):
                os._exit(0)
        # From here on in compiled code: a chunk may keep the interpreter's lock for as long as it likes.
        _current.calls.exit_with(pidfd)

    threading.Thread(target=watch, name="shmarray-watch-caller", daemon=True).start()


def main(lane: int, page_fd: int, channel_fd: int, log_fd: int, words_fd: int, parent: int, path: list[str]) -> None:
    """Run a worker on inherited descriptors; called by the command line that `WorkerProcess` writes."""
    global _current
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle, for the whole pool
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    for fd in (page_fd, channel_fd, log_fd, words_fd):
        os.set_inheritable(fd, False)
    _leave_with(parent)
    faulthandler.enable(words_fd)  # for the caller, who tells it with the death
    channel = Channel(socket.socket(fileno=channel_fd))
    status = 0
    try:
        worker = Worker(lane, DispatchPage(page_fd), channel)
        write_through_page(worker.note_output)
        logs.forward_to(socket.socket(fileno=log_fd), worker.note_output)
        _current = worker
        sys.path[:] = path
        sys.argv[:] = [""]
        worker.serve()
    except ChannelClosedError:
        pass
    except BaseException:
        status = 1
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        # No atexit handlers, no destructors: nothing here outlives the process, and what the user's code registered
        # for exit was registered for the user's program.
        os._exit(status)
