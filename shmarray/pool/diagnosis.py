"""Why did a worker die? What the system knows of it, and what the worker itself has written last.

The kernel writes whom it ends for want of memory into its log, where that is for us to read. It also counts them, in
each cgroup and in all: a worker that ended by SIGKILL while a count rose was most likely among them. (A cgroup counts
kills of either kind; where it has no limit it was the machine's memory.) A worker's Python writes where it was when it
is ended by SIGSEGV, SIGBUS, SIGABRT, SIGFPE or SIGILL, into anonymous memory that the caller can read when the worker
has gone.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

from shmarray.registry.reserve import group_limits
from shmarray.segment.mapping import DIRECTORY

__all__ = ["LastWords", "MemoryKills", "killer_in_log", "read_counter", "room_left", "why_killed"]

_GROUPS_KILLER = "the out-of-memory killer of its cgroup, whose memory limit was reached"
_MACHINES_KILLER = "the kernel's out-of-memory killer"
_KILL = re.compile(rb"\d+,\d+,(?P<microseconds>\d+),[^;]*;(?P<whose>[^:]*): Killed process \d+ ")
_LATELY_S = 3600.0
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel
_LONGEST = 64 * 1024  # of what a worker writes; faulthandler itself writes at most a hundred frames a thread


class MemoryKills(NamedTuple):
    """How many processes were ended for want of memory so far.

    Attributes
    ----------
    cgroup : int
        By the memory limit of this process's cgroup.
    machine : int
        In all.
    """

    cgroup: int
    machine: int

    @classmethod
    def now(cls) -> MemoryKills:
        """0 where the system does not say."""
        return cls(max(map(read_counter, _cgroup_files()), default=0), read_counter("/proc/vmstat"))

    def killer_since(self, before: MemoryKills) -> str:
        """Who has ended processes since then, in words; "" for nobody."""
        if self.cgroup > before.cgroup and group_limits():
            return _GROUPS_KILLER
        if self.machine > before.machine or self.cgroup > before.cgroup:
            return _MACHINES_KILLER
        return ""


def why_killed(pid: int, before: MemoryKills) -> str:
    """Why a child that ended by SIGKILL did, as far as the system tells; "" where it does not.

    Parameters
    ----------
    pid : int
    before : MemoryKills
        As it was when the child was started.
    """
    likely = MemoryKills.now().killer_since(before)
    # The counts rise, then the signal is sent, then the log says so: mostly it has, when we hear of the end.
    for pause_s in (0.0, 0.01, 0.05) if likely else (0.0,):
        time.sleep(pause_s)
        if killer := killer_in_log(pid):
            return f"by {killer}, as the kernel's log says"
    return f"most likely by {likely}: its count has risen" if likely else ""


def killer_in_log(pid: int, path: str = "/dev/kmsg") -> str:
    """Who has ended process `pid` for want of memory, by the kernel's log; "" where that has no word of it.

    The log knows processes by the numbers they have outside of all containers; inside one it is not asked.
    """
    try:
        if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
            return ""
    except OSError:
        return ""
    wanted = b"Killed process %d " % pid
    # Numbers are used anew: only what was written lately is about this process. The log's clock is about this one.
    since_us = (time.monotonic() - _LATELY_S) * 1e6
    found = b""
    for record in _log_records(path):
        if wanted in record:
            match = _KILL.match(record)
            if match and int(match["microseconds"]) > since_us:
                found = match["whose"]
    return {b"Memory cgroup out of memory": _GROUPS_KILLER, b"": ""}.get(found, _MACHINES_KILLER)


def _log_records(path: str) -> Iterator[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while True:
            try:
                record = os.read(fd, 8192)  # one a call
            except BrokenPipeError:  # overwritten meanwhile: go on with the next that is there
                continue
            if not record:
                return
            yield record
    except OSError:  # no more, or not for us
        return
    finally:
        os.close(fd)


def read_counter(path: str, name: bytes = b"oom_kill") -> int:
    """The number behind `name` in a file of lines "name number"; 0 where there is none."""
    try:
        with open(path, "rb") as file:
            for line in file:
                fields = line.split()
                if len(fields) == 2 and fields[0] == name:
                    return int(fields[1])
    except (OSError, ValueError):
        pass
    return 0


_files: list[str] | None = None


def _cgroup_files() -> list[str]:
    """Where the cgroup of this process counts: version 2, version 1, and both as a container sees its own."""
    global _files
    if _files is None:
        found = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"]
        try:
            with open("/proc/self/cgroup") as file:
                for line in file:
                    _, controllers, path = line.rstrip("\n").split(":", 2)
                    if not controllers:
                        found.append(f"/sys/fs/cgroup{path}/memory.events")
                    elif "memory" in controllers.split(","):
                        found.append(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
        except (OSError, ValueError):
            pass
        _files = [path for path in dict.fromkeys(map(os.path.normpath, found)) if os.access(path, os.R_OK)]
    return _files


def room_left() -> str:
    """How much shared memory is free, in words."""
    try:
        status = os.statvfs(DIRECTORY)
    except OSError:
        return f"{DIRECTORY} cannot be looked at"
    return f"{DIRECTORY} has {status.f_bavail * status.f_frsize:,} bytes free"


class LastWords:
    """Anonymous memory that a worker's fatal error is written to, by the worker, and read from, by its caller."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = os.memfd_create("shmarray-last-words", os.MFD_CLOEXEC)

    def read(self) -> str:
        """What is there: the traceback of the thread that the error struck, the innermost call first; or ""."""
        if self.fd < 0:
            return ""
        text = os.pread(self.fd, _LONGEST, 0).decode(errors="replace")
        head, found, current = text.rpartition("Current thread ")
        if not found:
            return text.strip()
        error = head.partition("\n")[0]
        lines = current.splitlines()
        frames = [line for line in lines[1:] if line.startswith("  ")]
        return "\n".join([error, *frames]) if frames else text.strip()

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
