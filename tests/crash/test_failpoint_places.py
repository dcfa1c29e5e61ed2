"""Is there a failpoint before every system call of an operation? A tracer writes down both, in their order.

`strace` must be there. (Without it test_system_calls.py kills at each system call, whether it has a point or not.)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.operations import OPERATIONS
from tests.crash.prelude import PRELUDE
from tests.crash.test_failpoints import NAMES

#: What changes something, waits, or can be refused; looks at what is open already cannot.
CALLS = (
    "openat,ftruncate,fallocate,fadvise64,mmap,munmap,madvise,flock,fcntl,linkat,unlink,unlinkat,rename,renameat,renameat2,"
    "pread64,pwrite64,close,stat,lstat,newfstatat"
)
#: A point says that it was reached by a system call of its own, which nothing else here makes.
MARKED = """
def mark(point):
    from os import access
    access("/reached/" + point, 0)

original = failpoints.reach.__code__
keeper = Holder(made, "kept")
os.environ["SHMARRAY_NO_TMPFILE"] = sys.argv[2]
for prepare, operation in VARIANTS[sys.argv[1]]:
    settle()
    prepare()
    operation()   # what is loaded at the first time is loaded
    settle()
    prepare()
    failpoints.reach.__code__ = mark.__code__
    os.access("/begin/" + operation.__name__, 0)
    operation()
    os.access("/end/", 0)
    failpoints.reach.__code__ = original
settle()
keeper.drop()
"""
#: Parts of one call of Python's (`os.listdir`), and what only looks: at the machine, at a file that is open.
WITHIN = re.compile(r'"/(proc|sys)/|^newfstatat\(\d+, ""|MAP_ANONYMOUS|^newfstatat\(AT_FDCWD, "/dev/shm"')


def without_a_point(trace: str) -> list[str]:
    """The system calls that no point came before."""
    found, inside, reached, looking = [], "", "", set()
    for line in trace.splitlines():
        call = line.partition(" ")[2].strip()
        if begin := re.search(r'"/begin/(\w+)"', call):
            inside = begin[1]
        elif '"/end/' in call:
            inside = ""
        elif point := re.search(r'"/reached/([\w.-]+)"', call):
            reached = point[1]
        elif inside and call.startswith("close(") and call[6:].partition(")")[0] in looking:
            looking.discard(call[6:].partition(")")[0])
        elif inside and call[0].isalpha() and not call.startswith("access"):
            within = WITHIN.search(call)
            if call.startswith("openat") and (within or ("O_DIRECTORY" in call and "O_TMPFILE" not in call)):
                looking.add(call.rpartition("= ")[2])
            if not within:
                if not reached:
                    found.append(f"{inside}: {call}")
                reached = ""
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_failpoint_stands_before_every_system_call(name: str, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    for way in ("", "1") if name in ("create", "detach", "destroy") else ("",):
        done = subprocess.run(
            [strace, "-f", "-qq", "-e", f"trace=access,{CALLS}", "-o", str(tmp_path / "trace"), sys.executable, "-c"]
            + [PRELUDE + OPERATIONS + MARKED, name, way],
            env={**os.environ, "SHMARRAY_FAILPOINT": "none"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if "ptrace" in done.stderr.lower() and "permitted" in done.stderr.lower():
            pytest.skip("this process may not be traced")
        assert done.returncode == 0, done.stderr
        trace = (tmp_path / "trace").read_text()
        assert trace.count('"/reached/') >= 3 or name == "publish", trace
        assert without_a_point(trace) == []
