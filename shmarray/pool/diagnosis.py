"""Why did a worker die? What the system knows of it, and what the worker itself has written last.

The kernel counts whom it ends for want of memory, in each cgroup and in all: a worker that ended by SIGKILL while a
count rose was most likely among them. A worker's Python writes where it was when it is ended by SIGSEGV, SIGBUS,
SIGABRT, SIGFPE or SIGILL, into anonymous memory that the caller can read when the worker has gone.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from shmarray.segment.mapping import DIRECTORY

__all__ = ["LastWords", "MemoryKills", "read_counter", "room_left"]

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
        if self.cgroup > before.cgroup:
            return "the out-of-memory killer of its cgroup, whose memory limit was reached"
        if self.machine > before.machine:
            return "the kernel's out-of-memory killer"
        return ""


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
