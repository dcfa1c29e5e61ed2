"""Every step of every operation: killed there, stopped there, refused there.

One test an operation and action; each loops n = 1, 2, ... until the operation completes untouched, for every variant
of the operation and both ways to make a file. test_system_calls.py does the same with the kernel's own account of
the system calls.
"""

from __future__ import annotations

import pytest

from tests.crash.operations import OPERATIONS
from tests.crash.prelude import PRELUDE
from tests.processes import run_python

NAMES = ("create", "attach", "detach", "destroy", "gc", "unlink", "publish", "commit", "replay")


def run(code: str, *arguments: str) -> str:
    return run_python(PRELUDE + OPERATIONS + code, *arguments, timeout_s=240.0).stdout


KILL = """
keeper = Holder(made, "kept")
for way in WAYS:
    os.environ["SHMARRAY_NO_TMPFILE"] = way
    for prepare, operation in VARIANTS[sys.argv[1]]:
        for n in range(1, 200):
            settle()
            status = wait(fork(armed, prepare, operation, f"{POINTS}:{n}:kill"))
            assert status in (0, -signal.SIGKILL), status
            if n % 2:
                registry.gc()   # what was cut short is finished by it, or else by the next to open
            check()   # the others are not harmed, whatever has been left
            if not status:
                break
        print(operation.__name__, n - 1)
settle()
keeper.drop()
"""

STOP = """
attachment._PATIENCE_S = 0.02
reclaim._PATIENCE_S = reclaim._GC_PATIENCE_S = reclaim.DROP_PATIENCE_S = 0.02
store_module.DROP_PATIENCE_S = 0.02
from shmarray.registry import removal, replay
removal.DROP_PATIENCE_S = replay._PATIENCE_S = replay._LOCK_PATIENCE_S = 0.02
keeper = Holder(made, "kept")
for way in WAYS:
    os.environ["SHMARRAY_NO_TMPFILE"] = way
    for prepare, operation in variants(way):
        for n in range(1, 200):
            settle()
            child = fork(armed, prepare, operation, f"{POINTS}:{n}:stop")
            status = os.waitpid(child, os.WUNTRACED)[1]
            if not os.WIFSTOPPED(status):
                assert status == 0
                break
            # Beside a process that is stopped anywhere, others create, open, drop and collect, and nothing hangs.
            assert set(bytes(registry.attach("kept").buf)) == {7}
            mine = made("mine")
            assert registry.attach("mine").key == mine.key
            del mine
            registry.trim()
            registry.gc()
            for name in ("x", "u"):
                try:
                    registry.attach(name)
                except ShmArrayError:
                    pass
            os.kill(child, signal.SIGCONT)
            assert wait(child) == 0
            check()
        print(operation.__name__, n - 1)
settle()
keeper.drop()
"""

ERRNO = """
import errno
keeper = Holder(made, "kept")

numbers = (errno.EMFILE, errno.ENOSPC, errno.EIO)
settle()
before = counts()
for turn, way in enumerate(WAYS):
    os.environ["SHMARRAY_NO_TMPFILE"] = way
    for prepare, operation in variants(way):
        if operation is leave:
            continue   # the end of a process: there is no afterwards
        for n in range(1, 200):
            prepare()
            failpoints._SPEC, failpoints._passed = f"{POINTS}:{n}:errno={numbers[(n + turn) % 3]}", 0
            try:
                operation()
            except (ShmArrayError, OSError) as error:
                assert str(error)
            reached = failpoints._passed >= n
            failpoints._SPEC = ""
            check("me")
            settle()
            assert counts() == before, (operation.__name__, n, counts(), before)
            prepare()
            operation()   # and it works when the trouble is over
            settle()
            if not reached:
                break
        print(operation.__name__, n - 1)
settle()
keeper.drop()
"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("action", ["kill", "stop", "errno"])
def test_at_every_step(name: str, action: str) -> None:
    code = {"kill": KILL, "stop": STOP, "errno": ERRNO}[action]
    steps = [line.split() for line in run(code, name).splitlines()]
    assert steps
    assert sum(int(count) for _, count in steps) >= 1
