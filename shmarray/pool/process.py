"""One worker process: started, watched, ended.

It is started by executing the interpreter anew, so it inherits no lock, thread or module of the caller, and without
importing the caller's `__main__`. Death is seen on a pidfd, which tells it at once; a pipe would only tell once every
grandchild had closed it too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
from collections.abc import Mapping
from typing import Any

from shmarray.pool.channel import Channel
from shmarray.pool.diagnosis import LastWords, MemoryKills, room_left, why_killed
from shmarray.pool.outcome import Death
from shmarray.segment.failpoints import ARMED, reach

__all__ = ["WorkerProcess"]

# One lane is one core: what runs inside must not start threads of its own for each.
_SINGLE_THREADED = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NUMBA_NUM_THREADS",
    ),
    "1",
)

# The caller's path, but the standard library first: an `array.py` beside the user's script has not hurt the caller if
# that came later than the imports. `main` puts the path in the caller's order before it does any work.
_START = """
import os, sys
standard = os.path.dirname(os.__file__)
sys.path[:] = sorted(sys.argv[7:], key=lambda entry: entry not in (standard, standard + "/lib-dynload"))
from shmarray.pool.worker import main
main(*map(int, sys.argv[1:7]), sys.argv[7:])
"""


class WorkerProcess:
    """A child process that works for lane `lane` of a dispatch page.

    Parameters
    ----------
    lane : int
        Its slot on the page.
    page_fd : int
        Descriptor of the page; the child gets a duplicate.
    output_fds : tuple of int
        What becomes the child's standard output and standard error, and where its log records go.
    """

    __slots__ = (
        *("_exit", "_kills_before", "_last_words", "_pidfd", "_reason"),
        *("channel", "kernels", "lane", "leased", "lent", "pid", "settings", "told"),
    )

    def __init__(self, lane: int, page_fd: int, output_fds: tuple[int, int, int]) -> None:
        self.lane = lane
        self.lent: set[tuple[int, int]] = set()  #: keys of the segments it has mapped
        self.leased: set[tuple[int, int]] = set()  #: those of them that its mapping keeps alive
        self.told: set[int] = set()  #: numbers of the jobs it knows
        self.kernels: dict[int, None] = {}  #: numbers of the kernels it knows, the oldest first
        self.settings: Any = None  #: what it was told of configuration and logging
        self._exit: tuple[int | None, int | None] | None = None
        self._pidfd = -1
        self._reason = ""
        self._kills_before = MemoryKills.now()
        self._last_words = LastWords()
        try:
            self.channel, theirs = Channel.pair()
        except BaseException:
            self._last_words.close()
            raise
        try:
            if ARMED:
                reach("dispatch.spawn")
            self.pid = _spawn(lane, page_fd, theirs.fileno(), self._last_words.fd, output_fds)
            try:
                if ARMED:
                    reach("dispatch.watch")
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:  # no descriptor left: a process that cannot be watched must not stay
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise
        except BaseException:
            self.channel.close()
            self._last_words.close()
            raise
        finally:
            theirs.close()

    @property
    def pidfd(self) -> int:
        """Readable once the process has ended."""
        return self._pidfd

    @property
    def descriptors(self) -> set[int]:
        """What it holds open in this process."""
        return {self.channel.fileno(), self._pidfd, self._last_words.fd}

    @property
    def alive(self) -> bool:
        """Whether the process still runs. Costs one system call; any thread may ask."""
        return not self.wait(0.0)

    @property
    def is_stopped(self) -> bool:
        """Whether it stands still by a SIGSTOP; not so one that a debugger holds."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read(512).rpartition(b")")[2].split()[0] == b"T"
        except (OSError, IndexError):  # it is gone
            return False

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; whether it did."""
        if self._exit is not None:
            return True
        poll = select.poll()  # a new one: two threads must not be in the same
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def death(self) -> Death:
        """How it ended; waits for that, and reaps it."""
        if self._exit is None:
            try:
                # By descriptor: if somebody else's wait() took it, its number may be another child's by now.
                result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            except ChildProcessError:
                result = None
            if result is None:
                self._exit = None, None
            elif result.si_code == os.CLD_EXITED:
                self._exit = None, result.si_status
            else:
                self._exit = result.si_status, None
        number, exitcode = self._exit
        reason, out_of_memory = self._reason, False
        if number == signal.SIGKILL and not reason:
            reason = why_killed(self.pid, self._kills_before)
            out_of_memory = bool(reason)
        elif number == signal.SIGBUS:
            reason = f"a page was not to be had: shared memory has run out ({room_left()}), or a file was cut short"
        return Death(self.pid, number, exitcode, out_of_memory, reason, self._last_words.read())

    def kill(self, reason: str = "") -> None:
        """SIGKILL; by pidfd, so never to a stranger who got the number anew.

        `reason` says why the pool itself does it, for whoever reads of the death.
        """
        if reason and self.alive:
            self._reason = f"by this pool, because {reason}"
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self, *, reap: bool = True) -> None:
        """Let go of descriptors; with `reap`, of the zombie too (the process must be dead, or this waits for it)."""
        if self._pidfd >= 0:
            self.channel.close()
            if reap:
                self.death()
            elif self._exit is None:
                self._exit = None, None
            os.close(self._pidfd)
            self._pidfd = -1
            self._last_words.close()


def _spawn(lane: int, page_fd: int, channel_fd: int, words_fd: int, output_fds: tuple[int, int, int]) -> int:
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # what multiprocessing uses

    environment: Mapping[str, str] = {**os.environ, **_SINGLE_THREADED}
    arguments = [
        sys.executable,
        *_args_from_interpreter_flags(),
        "-c",
        _START,
        str(lane),
        *("3", "4", "5", "6"),  # page, channel, log, last words, as the file actions below place them
        str(os.getpid()),
        *(entry or os.getcwd() for entry in sys.path),
    ]
    stdout_fd, stderr_fd, log_fd = output_fds
    fds = (stdout_fd, stderr_fd, page_fd, channel_fd, log_fd, words_fd)
    # Out of the way of the targets first: a source among them would be overwritten before it is copied.
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 8) for fd in fds]
    try:
        actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(sources, start=1)]
        # Ctrl-C goes to the whole process group: blocked here, ignored by the worker as its first act.
        return os.posix_spawn(sys.executable, arguments, environment, file_actions=actions, setsigmask=[signal.SIGINT])
    finally:
        for fd in sources:
            os.close(fd)
