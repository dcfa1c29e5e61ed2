"""The cache of compiled code, raced and corrupted: row 43 of the fault table. Its files are tested in tests/jit too."""

from __future__ import annotations

from pathlib import Path

from tests.processes import run_python

PROGRAM = """
import glob, os, sys
import numba
from numba import types
from shmarray import jit   # numba is loaded once, before the processes are forked
from shmarray.jit import counters, environment
environment.environment()
folder = os.environ["SHMARRAY_CACHE_DIR"]

def make():
    def triple(x):
        return 3 * x
    return triple

def compile_at_once(count):
    "How many of so many processes compiled, and did not load what lay there. All of them compute the right thing."
    gate, opened = os.pipe()
    pids = []
    for _ in range(count):
        pid = os.fork()
        if not pid:
            status = 77
            try:
                os.close(opened)
                os.read(gate, 1)
                entry = jit.compile(make, (types.int64,), key=("row-43",)).entry
                assert [entry(x) for x in (0, 5, -7)] == [0, 15, -21]
                status = counters.statistics().compiled - 1
            finally:
                os._exit(status)
        pids.append(pid)
    os.close(gate)
    os.close(opened)
    results = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert set(results) <= {0, 1}, results
    return sum(results)

def warm():
    return lambda x: x
# What numba sets up for its first compilation is inherited by the processes that are forked, and not done by each.
jit.compile(warm, (types.int64,), key=("row-43 warm",))
for path in glob.glob(folder + "/*.code"):
    os.unlink(path)
assert compile_at_once(8) >= 1
(code,) = glob.glob(folder + "/*.code")
assert not glob.glob(folder + "/.partial-*")
assert compile_at_once(1) == 0
with open(code, "rb") as file:
    whole = file.read()
flipped = bytearray(whole)
flipped[len(whole) // 2] ^= 1
for damaged in (whole[:-1], bytes(flipped), b""):
    with open(code, "wb") as file:
        file.write(damaged)
    assert compile_at_once(1) == 1, "damaged, and loaded"
    assert compile_at_once(1) == 0, "compiled anew, and not kept"
os.chmod(code, 0o666)   # others could have put code there
assert compile_at_once(1) == 1
"""


def test_row_43_a_cache_raced_by_eight_compilers_and_corrupted(tmp_path: Path) -> None:
    run_python(PROGRAM, SHMARRAY_CACHE_DIR=str(tmp_path))
