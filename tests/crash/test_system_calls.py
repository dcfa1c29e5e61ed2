"""The same steps as the kernel sees them: killed at the entry of every system call of an operation.

The failpoints stand where somebody thought of putting them; the tracer stops wherever the process calls the kernel, in
the C library and in Python's own code too.
"""

from __future__ import annotations

import pytest

from tests.crash.operations import OPERATIONS
from tests.crash.prelude import PRELUDE
from tests.processes import run_python

TRACE = """
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
TRACEME, SYSCALL, EXITKILL = 0, 24, (0x4200, 0x100000)

def traced(prepare, operation):
    prepare()
    if libc.ptrace(TRACEME, 0, None, None):
        os._exit(77)
    os.kill(os.getpid(), signal.SIGSTOP)
    operation()

def killed_at(n, prepare, operation):
    "Whether the operation was killed at the n-th stop; False: it was over before."
    child = fork(traced, prepare, operation)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 77, status
        print("skip")
        sys.exit()
    libc.ptrace(EXITKILL[0], child, None, EXITKILL[1])
    for _ in range(n):
        if libc.ptrace(SYSCALL, child, None, None):
            raise OSError(ctypes.get_errno(), "ptrace")
        status = os.waitpid(child, 0)[1]
        if not os.WIFSTOPPED(status):
            assert status == 0, status
            return False
        assert os.WSTOPSIG(status) == signal.SIGTRAP, status
    os.kill(child, signal.SIGKILL)
    assert wait(child) == -signal.SIGKILL
    return True

keeper = Holder(made, "kept")
for way in WAYS:
    os.environ["SHMARRAY_NO_TMPFILE"] = way
    for prepare, operation in VARIANTS[sys.argv[1]]:
        n = 1
        settle()
        while killed_at(n, prepare, operation):
            check()
            settle()
            n += 2   # the exit of one call is as the entry of the next
        print(operation.__name__, n - 1)
settle()
keeper.drop()
"""


@pytest.mark.parametrize("name", ["create", "attach", "detach", "destroy", "gc", "unlink", "publish", "replay"])
def test_killed_at_every_system_call(name: str) -> None:
    printed = run_python(PRELUDE + OPERATIONS + TRACE, name, timeout_s=240.0).stdout
    if "skip" in printed:
        pytest.skip("this process may not trace its own children")
    counts = [int(line.split()[1]) for line in printed.splitlines()]
    assert max(counts) >= 4
