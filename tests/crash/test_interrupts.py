"""Ctrl-C, once and often: the call ends, the pool stays usable, nobody is left. Row 39 of the fault table."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from tests.crash.programs import is_gone, program, read_workers
from tests.processes import wait_until

INTERRUPTED = """
armed = False

def handler(number, frame):
    if armed:
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, handler)
for kernel in (forever, forever_compiled):
    armed = True
    try:
        print("go", flush=True)
        kernel(a, **({"out": b} if kernel is forever else {}))
    except KeyboardInterrupt:
        armed = False  # until here each further Ctrl-C comes as an exception, in the middle of the clean-up
    print("interrupted", flush=True)
    check()
    sys.stdin.readline()
# CPython exits as if interrupted when Ctrl-C came in an exec() of text (numba has some), until the next one is done.
exec("0")
print("end", *workers(), flush=True)
"""


@pytest.mark.parametrize("times", [1, 20])
def test_row_39_ctrl_c_to_the_group_ends_the_call_and_leaves_the_pool_usable(times):
    with program(INTERRUPTED) as process:

        def read(but=()):
            line = process.stdout.readline()
            while line.strip() in but:
                line = process.stdout.readline()
            return line.strip()

        first = read_workers(process)
        assert read() == "go"
        assert read() == "working"  # in a chunk: now
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
        assert read(but=["working"]) == "interrupted", process.stderr.read()
        over = threading.Event()

        def press():
            while not over.wait(0.1):  # at any moment: in the compiler, in the start of the call, in a chunk
                for _ in range(times):
                    os.killpg(process.pid, signal.SIGINT)

        thread = threading.Thread(target=press)
        process.stdin.write("\n")
        process.stdin.flush()
        assert read(but=["working"]) == "go", process.stderr.read()
        thread.start()
        line = read()
        over.set()
        thread.join()
        assert line == "interrupted", process.stderr.read()
        process.stdin.write("\n")
        process.stdin.flush()
        word, *pids = read(but=["working"]).split() or [""]
        assert word == "end", process.stderr.read()
        assert len(pids) == 2
        assert process.wait(20) == 0, process.stderr.read()
        for pid in (*first, *map(int, pids)):
            wait_until(lambda pid=pid: is_gone(pid))


STORM = """
import threading
c = sa.zeros(2_000_000)
d = sa.empty(c.shape)

@sa.elementwise
def more(x):
    return x + 1

more(c, out=d)
hits, armed = 0, False

def handler(number, frame):
    if armed:
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, handler)
print("go", flush=True)
until = time.monotonic() + 4
while time.monotonic() < until:
    try:
        armed = True
        while time.monotonic() < until:
            more(c, out=d)
            double(a, out=b)
        armed = False
    except KeyboardInterrupt:
        armed = False
        hits += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("stop", flush=True)
for _ in range(3):
    more(c, out=d)
    assert np.all(np.asarray(d) == 1)
    check()
exec("0")  # as above
print("end", hits, *workers(), flush=True)
"""


NOT_INTERRUPTED = """
signal.signal(signal.SIGINT, lambda number, frame: None)

@sa.chunkwise(jit=False)
def wait_and_add(chunk):
    os.write(1, b"working\\n")
    while not os.path.exists({path!r}):
        pass
    chunk += 1

before = workers()
c = sa.array(np.arange(2), chunks=1)
wait_and_add(c)
assert c.tolist() == [1, 2] and workers() == before, "workers died of a Ctrl-C that the program did not heed"
print("done", flush=True)
"""


def test_row_39_ctrl_c_that_the_program_does_not_heed_changes_nothing(tmp_path):
    path = tmp_path / "go"
    with program(NOT_INTERRUPTED.format(path=str(path))) as process:
        read_workers(process)
        assert process.stdout.readline() == "working\n"
        os.killpg(process.pid, signal.SIGINT)
        path.touch()
        assert "done\n" in process.stdout, process.stderr.read()
        assert process.wait(20) == 0


def test_row_39_ctrl_c_at_any_moment_leaves_the_pool_in_order():
    with program(STORM) as process:
        read_workers(process)
        assert process.stdout.readline() == "go\n"
        over = threading.Event()
        moment = np.random.default_rng(5)

        def press():
            while not over.wait(moment.uniform(0.0, 0.02)):
                os.kill(process.pid, signal.SIGINT)

        thread = threading.Thread(target=press)
        thread.start()
        line = process.stdout.readline()
        over.set()
        thread.join()
        assert line == "stop\n", process.stderr.read()
        word, hits, *pids = process.stdout.readline().split() or ["", ""]
        assert word == "end", process.stderr.read()
        assert int(hits) > 10
        assert len(pids) == 2
        children = [pid for pid in os.listdir("/proc") if pid.isdigit() and _parent(pid) == process.pid]
        assert set(children) <= set(pids)  # no worker that the pool does not know of
        assert process.wait(20) == 0, process.stderr.read()


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0
