"""A call that was cut short is finished by the next opener, or later: whatever is in the way loses nothing of it.

(Killed, stopped and refused at each of its steps: test_failpoints.py. The calls of the engine: test_callers.py.)
"""

from __future__ import annotations

from tests.crash.operations import OPERATIONS
from tests.crash.prelude import PRELUDE
from tests.processes import run_python

#: One chunk of four is copied, another is committed, two have not been begun.
SETTING = """
import fcntl
from shmarray.registry import replay
from shmarray.segment.descriptor import DESCRIPTOR_NBYTES

def scratch():
    (name,) = (name for name in files() if "~." in name)
    return "/dev/shm/" + name

def end():
    settle()
    keeper.drop()

keeper = Holder(made, "kept")
one_cut_short()
"""


def run(code: str) -> None:
    run_python(PRELUDE + OPERATIONS + SETTING + code + "\nend()\n", "replay")


def test_without_a_free_descriptor_opening_is_an_error_and_nothing_is_lost() -> None:
    run(
        """
import resource
from shmarray.errors import OutOfSharedMemoryError
registry.gc()          # what is loaded at the first replay, and the lock's file, are there
one_cut_short()
path = scratch()
hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard[1]))
filler = []
try:
    while True:
        filler.append(os.dup(0))
except OSError:
    pass
refused = 0
while True:
    try:
        segment = registry.attach("u")
        break
    except OutOfSharedMemoryError as error:
        refused += 1
        assert error.limit == "file descriptors" and os.path.exists(path), error
    os.close(filler.pop())
assert refused >= 3, refused   # for the array, for the scratch, for the other array
for fd in filler:
    os.close(fd)
resource.setrlimit(resource.RLIMIT_NOFILE, hard)
del segment
assert how_far() == 20
"""
    )


def test_an_array_that_somebody_has_locked_just_now_is_not_taken_for_one_that_is_gone() -> None:
    run(
        """
replay._LOCK_PATIENCE_S = 0.02
fd = os.open(f"/dev/shm/{NAMESPACE}~v", os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)      # as gc does, to ask whether somebody holds it
segment = registry.attach("u")
assert condition.is_dirty(segment) and "is finished by the next opener" in condition.reason_of(segment)
assert registry.gc() == [] and scratch()
os.close(fd)
del segment
assert how_far() == 20
"""
    )


def test_a_scratch_that_others_can_write_is_not_believed() -> None:
    run(
        """
path = scratch()
os.chmod(path, 0o666)
segment = registry.attach("u")
assert set(bytes(segment.buf)) == {3, 13}, "nothing more was copied"
assert "has been removed" in condition.reason_of(segment)
del segment
assert os.path.exists(path)
os.unlink(path)
for name in BEFORE:
    segment = registry.attach(name)
    condition.clean(segment)
    assert not condition.is_dirty(segment)
"""
    )


def test_a_window_that_was_being_written_down_is_not_believed_and_what_came_before_is_known() -> None:
    run(
        """
for words in ([9, 2, 0], [2, 2**40, 0], [-1, -1, 0], [2, 4, 0, 99]):
    two_to_change()
    registry.gc()   # the one before is of nobody any more
    assert wait(fork(call, failpoint="commit.window:2:kill")) == -signal.SIGKILL
    fd = os.open(scratch(), os.O_RDWR)
    os.pwrite(fd, np.array(words, np.int64).tobytes(), 0)
    os.close(fd)
    assert how_far() == 20
"""
    )


def test_marks_that_several_processes_set_at_once_do_not_undo_each_other() -> None:
    run(
        """
two_to_change()
segment = registry.attach("u")

def mark_and_look(over):
    "The mark is this process's alone, so it stays until it is taken away here."
    os.set_blocking(over, False)
    page = registry.attach("u").mapping.page
    while True:
        condition.mark_dirty(segment, "for the test")
        for _ in range(20):
            assert page[condition.UNKNOWN] == 1
        page[condition.UNKNOWN] = 0
        for _ in range(20):
            assert page[condition.UNKNOWN] == 0
        try:
            os.read(over, 1)
            return
        except BlockingIOError:
            pass

read, write = os.pipe()
child = fork(mark_and_look, read)
try:
    for _ in range(300):
        call()
finally:
    os.write(write, b"x")
    assert wait(child) == 0
assert not condition.is_dirty(segment)
del segment
two_to_change()
"""
    )
