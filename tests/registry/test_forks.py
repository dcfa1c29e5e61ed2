"""Processes that share segments through a fork: the last of them leaves nothing, and they agree on a segment's name."""

from __future__ import annotations

import pytest

from tests.conftest import segment_files
from tests.processes import run_python, wait_until

HELD = """
import gc, os, sys
from shmarray import registry

class Cycle:
    pass

def hold(*segments):
    # Never collected, not at the end of the program either: only the exit of the registry sees to it.
    gc.disable()
    cycle = Cycle()
    cycle.me, cycle.segments = cycle, segments

named, published, nameless = registry.create(3, name="x"), registry.create(3), registry.create(3)
published.name
hold(named, published, nameless)
"""

ENDS = {
    "the parent outlives an os.fork": """
pid = os.fork()
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
""",
    "the child outlives the parent": """
read, write = os.pipe()
if not os.fork():
    os.close(write)
    os.close(1), os.close(2)
    os.read(read, 1)  # until the parent has ended
""",
    "multiprocessing's children": """
import multiprocessing
context = multiprocessing.get_context("fork")
read, write = os.pipe()
def first():
    os.close(write)
    os.read(read, 1)
waiting = context.Process(target=first)
waiting.start()
done = context.Process(target=int)
done.start()
done.join()
os.close(write)
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_last_of_a_family_leaves_nothing(namespace: str, end: str) -> None:
    run_python(HELD + ENDS[end])
    wait_until(lambda: segment_files(namespace) == [])


def test_who_ends_first_leaves_the_others_their_arrays() -> None:
    code = """
import os, sys
from shmarray import registry
segment = registry.create(3, "u1", name="x")
read, write = os.pipe()
if not os.fork():
    os.close(write)
    os.read(read, 1)  # until the other two have ended
    segment.buf[0] = 1
    print(bytes(registry.attach("x").buf), flush=True)
    os._exit(0)
pid = os.fork()
if not pid:
    sys.exit()  # with all that an exit does
os.waitpid(pid, 0)
"""
    assert run_python(code).stdout == "b'\\x01\\x00\\x00'\n"


def test_parent_and_child_give_a_segment_one_name(namespace: str) -> None:
    code = """
import os
from shmarray import registry
segment = registry.create(3, "u1")
read, write = os.pipe()
pids = []
for _ in range(3):
    pid = os.fork()
    if not pid:
        os.write(write, segment.name.encode() + b"\\n")
        os._exit(0)
    pids.append(pid)
for pid in pids:
    os.waitpid(pid, 0)
assert set(os.read(read, 4096).split()) == {segment.name.encode()}
assert len(registry.list()) == 1
if not os.fork():
    segment.unlink()
    os._exit(0)
os.wait()
try:
    segment.name
except FileNotFoundError:
    pass
"""
    run_python(code)
    assert segment_files(namespace) == []


def test_a_family_costs_one_descriptor_while_it_has_something_in_common() -> None:
    code = """
import os
from shmarray import registry
segment = registry.create(3, name="x")
count = lambda: len(os.listdir("/proc/self/fd"))
before = count()
for _ in range(20):
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
assert count() == before + 1
del segment
assert count() < before
"""
    run_python(code)
