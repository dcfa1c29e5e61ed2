"""Who holds a segment, and what the limits of a process or a machine do to it: rows 10 to 20 of the fault table.

Rows 11 and 12 are in test_lifecycle.py, row 18 in test_full_memory.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.prelude import PRELUDE
from tests.processes import run_python


def run(code: str, *arguments: str, timeout_s: float = 60.0, **environ: str) -> str:
    return run_python(PRELUDE + code, *arguments, timeout_s=timeout_s, **environ).stdout


@pytest.mark.parametrize("limit", ["RLIMIT_NOFILE", "RLIMIT_AS"])
def test_row_10_an_attach_that_fails_leaves_the_owners_segment_alone(limit: str) -> None:
    code = """
import resource
from shmarray.errors import OutOfSharedMemoryError
creator = Holder(made, "x", 7, 40_000_000)
limit = getattr(resource, sys.argv[1])
registry.create(10, "u1")   # what is loaded at the first segment is loaded
registry.trim()
soft, hard = resource.getrlimit(limit)
filler = []
if limit == resource.RLIMIT_NOFILE:
    tight = 32
    while max(filler, default=0) < 31:
        filler.append(os.dup(0))
else:
    with open("/proc/self/statm") as file:
        tight = int(file.read().split()[0]) * 4096 + 20_000_000
resource.setrlimit(limit, (tight, hard))
for _ in range(3):
    try:
        registry.attach("x")
        raise AssertionError("attached")
    except OutOfSharedMemoryError as error:
        message = str(error)
        assert "ulimit" in message, message
for fd in filler:
    os.close(fd)
resource.setrlimit(limit, (soft, hard))
segment = registry.attach("x")
assert segment.buf[-1] == 7
del segment
assert registry.gc() == []
creator.drop()
assert files() == []
"""
    run(code, limit)


def test_row_13_a_forked_child_of_a_killed_holder_holds() -> None:
    code = """
def hold_and_fork(out, go):
    segment = made()
    child = os.fork()
    if child:
        os.write(out, child.to_bytes(4, "little"))
        signal.pause()
    ctypes.CDLL(None).prctl(1, 0)   # not to go with the parent, whatever a failed script would like
    signal.alarm(60)
    os.read(go, 1)
    assert set(bytes(segment.buf)) == {7}
    os._exit(0)

assert not ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)   # PR_SET_CHILD_SUBREAPER: the grandchild becomes ours
out_of, into = os.pipe()
go, come = os.pipe()
parent = fork(hold_and_fork, into, go)
child = int.from_bytes(os.read(out_of, 4), "little")
os.kill(parent, signal.SIGKILL)
assert wait(parent) == -signal.SIGKILL
assert registry.gc() == []
assert set(bytes(registry.attach("x").buf)) == {7}
os.write(come, b"x")
assert wait(child) == 0
collect()
"""
    run(code)


def test_row_14_five_hundred_forked_attachers_leak_nothing() -> None:
    code = """
creator = Holder(made)
first = registry.attach("x")
running = []
fds = len(os.listdir("/proc/self/fd"))
for i in range(500):
    def attach():
        again = registry.attach("x")            # the mapping that came with the fork
        assert set(bytes(again.buf)) == {7}
        if i % 10 == 0:
            mine = made(f"mine-{i}", 3)         # and one of its own, left behind
            assert set(bytes(mine.buf)) == {3}
    running.append(fork(attach))
    if len(running) == 20:
        assert [wait(pid) for pid in running] == [0] * 20
        running.clear()
assert len(os.listdir("/proc/self/fd")) <= fds + 2   # the locks of namespace and family
del first
creator.drop()
collect()
"""
    run(code)


def test_row_15_a_program_started_by_a_holder_holds_nothing() -> None:
    code = """
import subprocess
from shmarray.registry.store import store
segment = made()
child = subprocess.Popen(["sleep", "60"], close_fds=False)   # whatever is not close-on-exec is handed on
def leave():
    "As if this process ended now: by execution, so that no clean-up code runs."
    os.execv("/bin/true", ["true"])
inherited = [os.readlink(f"/proc/{child.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{child.pid}/fd")]
with open(f"/proc/{child.pid}/maps") as file:
    inherited.append(file.read())
assert not any(NAMESPACE in one for one in inherited), inherited
holder = fork(leave)
assert wait(holder) == 0
assert set(bytes(registry.attach("x").buf)) == {7}
del segment
collect()   # or else the started program holds it
child.kill()
child.wait()
"""
    run(code)


def test_row_16_a_process_number_used_anew_has_no_effect() -> None:
    code = """
# Segments whose creator says that it is process 1 (alive), this very process, or a dead number.
pids = [1, os.getpid(), 2**22 - 1]
real = os.getpid
held = []
for pid in pids:
    os.getpid = lambda: pid
    held.append(made(f"by-{pid}"))
os.getpid = real
assert registry.gc() == []
def leave_behind(pid):
    os.getpid = lambda: pid
    held.append(made(f"dead-{pid}"))
for pid in pids:
    assert wait(fork(leave_behind, pid)) == 0
collect(*(f"by-{pid}" for pid in pids))
assert [info.name for info in registry.list()] == sorted(f"by-{pid}" for pid in pids)
held.clear()
registry.trim()
assert files() == []
"""
    run(code)


def test_row_16_another_pid_namespace_on_the_same_dev_shm_sees_who_is_alive() -> None:
    code = """
libc = ctypes.CDLL(None, use_errno=True)
here = Holder(made, "here")
def inside():
    "A namespace of processes of its own, in which this is process 1 and 'here' is nobody."
    assert os.getpid() == 1
    assert registry.gc() == []
    assert set(bytes(registry.attach("here").buf)) == {7}
    there = made("there")
    os.write(ready, b"x")
    signal.pause()

if libc.unshare(0x20000000):   # CLONE_NEWPID, for the next child
    here.drop()
    print("skip")
    sys.exit()
read, ready = os.pipe()
child = fork(inside)
os.close(ready)
assert os.read(read, 1) == b"x"
assert registry.gc() == []
assert set(bytes(registry.attach("there").buf)) == {7}
os.kill(child, signal.SIGKILL)
assert wait(child) == -signal.SIGKILL
collect("here")
os.close(here.go)
os.kill(here.pid, signal.SIGKILL)
wait(here.pid)
collect()
"""
    if run(code) == "skip\n":
        pytest.skip("needs the right to make a namespace of process numbers")


def test_row_17_no_decision_reads_the_wall_clock() -> None:
    code = """
import pickle
import shmarray as sa
jumps = random.Random(1)
time.time_ns = lambda: jumps.randrange(2**62)       # the time of creation, to be shown
def never():
    raise AssertionError("the wall clock was read")
time.time = never
time.clock_gettime = lambda clock, real=time.clock_gettime: never() if clock == time.CLOCK_REALTIME else real(clock)
held = [made(f"n{i}") for i in range(3)] + [made(None)]
texts = [pickle.dumps(one) for one in held]
keys = [one.key for one in held]
del held
assert registry.gc() == []
again = [pickle.loads(text) for text in texts]
assert [one.key for one in again] == keys
def leave_behind():
    again.append(made("dead"))
assert wait(fork(leave_behind)) == 0
collect(*(name.partition("~")[2] for name in files() if not name.endswith("~dead")))
a = sa.zeros(5, name="locked")
with a.lock(timeout=5):
    a += 1
try:
    registry.attach("missing", timeout_s=0.01)
except SegmentNotFoundError:
    pass
del again, a
registry.trim()
registry.gc()
assert files() == [], files()
"""
    run(code)


def test_row_17_the_sources_of_the_registry_read_no_wall_clock() -> None:
    root = Path(__file__).parents[2] / "shmarray"
    found = [
        f"{path.name}: {line.strip()}"
        for folder in ("segment", "registry", "pool")
        for path in (root / folder).glob("*.py")
        for line in path.read_text().splitlines()
        if any(word in line for word in ("time.time(", "time_ns()", "datetime.", "st_mtime", "st_ctime", "st_atime"))
    ]
    assert [line.split(":")[0] for line in found] == ["creation.py"], found  # `created`, which is shown


def test_row_19_a_limit_on_file_sizes_is_a_clear_error_and_passes() -> None:
    code = """
import resource
from shmarray.errors import OutOfSharedMemoryError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)   # as Python does by default
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
for name in (None, "x"):
    try:
        registry.create(2_000_000, "u1", name=name)
        raise AssertionError("made")
    except OutOfSharedMemoryError as error:
        assert "ulimit -f" in str(error), error
assert files() == []
made("small", 1, 1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
made("x", 1, 2_000_000)
registry.trim()
assert files() == []
"""
    run(code)


def test_row_19_a_limit_on_descriptors_is_a_clear_error_and_passes() -> None:
    code = """
import resource
from shmarray.errors import OutOfSharedMemoryError
made("warm")
registry.trim()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
filler = []
try:
    while True:
        filler.append(os.dup(0))
except OSError:
    pass
for operation in (lambda: made("x"), lambda: made(None), lambda: registry.attach("x"), registry.gc, registry.list):
    try:
        operation()
    except OutOfSharedMemoryError as error:
        assert "ulimit -n" in str(error), error
    else:
        raise AssertionError(operation)
for fd in filler:
    os.close(fd)
held = [made(f"n{i}") for i in range(5)]   # what is open fits again; the oldest give theirs up
assert [info.name for info in registry.list()] == [f"n{i}" for i in range(5)]
held.clear()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
made("x")
registry.trim()
assert files() == [], files()
"""
    run(code)


def test_row_20_a_memory_control_groups_limit_is_an_error_before_it_kills(memory_group: tuple[Path, Path]) -> None:
    code = """
from shmarray.errors import OutOfSharedMemoryError
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
held = []
try:
    while True:
        held.append(made(None, 1, 8_000_000))
except OutOfSharedMemoryError as error:
    assert "control group" in error.limit, error.limit
assert 3 <= len(held) <= 12, len(held)
try:
    registry.create(200_000_000, "u1", name="x")
    raise AssertionError("made")
except OutOfSharedMemoryError as error:
    assert "control group" in error.limit, error.limit
held.clear()
registry.trim()
assert files() == []
"""
    run(code, str(memory_group[0]))


def test_row_20_killed_by_the_limit_all_the_same_it_leaves_nothing(memory_group: tuple[Path, Path]) -> None:
    code = """
from shmarray.registry import reserve
def greedy():
    with open(sys.argv[1], "w") as file:
        file.write(str(os.getpid()))
    reserve._headroom.left = lambda nbytes: (1 << 60, "")   # as if another took the memory after our look
    registry.create(200_000_000, "u1", name="x")

code = wait(fork(greedy))
assert code == -signal.SIGKILL, code
collect()
"""
    run(code, str(memory_group[0]))
