"""What the scripts of this folder begin with: children that are forked, killed and waited for.

Each script runs in an interpreter of its own that holds no segment when it forks, so a child stands for
an unrelated process; an interpreter a child would take a hundred times as long to start.
"""

from __future__ import annotations

PRELUDE = '''
import ctypes, os, random, signal, sys, time, traceback
os.environ.setdefault("SHMARRAY_FAILPOINT", "none")  # armed, for nothing yet
import numpy as np
from shmarray import config, registry
from shmarray.errors import SegmentExistsError, SegmentNotFoundError
from shmarray.segment import failpoints

NAMESPACE = config.namespace


def files():
    return sorted(
        name for name in os.listdir("/dev/shm")
        if name.startswith(NAMESPACE + "~") and not name.endswith("~.lock")
    )


def fork(function, *arguments, failpoint=""):
    """Run a function in a child, which leaves without cleaning up; its traceback goes to stderr."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a failed script leaves nobody behind
    try:
        failpoints._SPEC, failpoints._passed = failpoint, 0
        function(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Gate:
    """Holds processes until all may pass: reading ends when the writing end closes."""

    def __init__(self):
        self.read, self.write = os.pipe()

    def wait(self):
        os.close(self.write)
        os.read(self.read, 1)

    def open(self):
        os.close(self.write)
        os.close(self.read)


class Holder:
    """A child that has done `function` and holds what it returned until told to go."""

    def __init__(self, function, *arguments):
        done_read, done_write = os.pipe()
        go_read, self.go = os.pipe()

        def run():
            os.close(done_read)
            os.close(self.go)
            held = function(*arguments)
            os.write(done_write, b"x")
            os.close(done_write)
            os.read(go_read, 1)
            del held
            registry.trim()

        self.pid = fork(run)
        os.close(done_write)
        os.close(go_read)
        assert os.read(done_read, 1) == b"x"
        os.close(done_read)

    def drop(self):
        os.write(self.go, b"x")  # closing alone would not do: later children have a copy of this end
        os.close(self.go)
        assert wait(self.pid) == 0

    def kill(self):
        os.close(self.go)
        os.kill(self.pid, signal.SIGKILL)
        assert wait(self.pid) == -signal.SIGKILL


def collect(*kept):
    """Run gc until nothing but the files of these names is left.

    Mostly once: but whoever reads /proc/PID/maps of a process that is killed meanwhile keeps what it had mapped for
    that moment.
    """
    until = time.monotonic() + 20
    while True:
        registry.gc()
        if files() == sorted(f"{NAMESPACE}~{name}" for name in kept):
            return
        assert time.monotonic() < until, files()
        time.sleep(0.001)


def made(name="x", value=7, nbytes=5000, **keywords):
    segment = registry.create(nbytes, "u1", name=name, **keywords)
    segment.buf[:] = bytes([value]) * nbytes
    return segment


def attached(name="x"):
    return registry.attach(name)


def steps(name, function, after):
    """Kill a child at the first, second, ... step called `name`, until it completes untouched."""
    for n in range(1, 100):
        status = wait(fork(function, failpoint=f"{name}:{n}:kill"))
        assert status in (0, -signal.SIGKILL), status
        after()
        if not status:
            assert n > 1, f"no step is called {name}"
            return n - 1
    raise AssertionError("it never completes")
'''
