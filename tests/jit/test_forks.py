"""A child forked while another thread of its parent compiles can compile, and load kernels, itself."""

from __future__ import annotations

from tests.processes import run_python

PROGRAM = """
import os, signal, sys, threading, time
from numba import types
from shmarray import jit

main, inside = threading.get_ident(), threading.Event()

def make_slowly():
    "Until the main thread is about to fork, or has forked without asking."
    inside.set()
    until = time.monotonic() + 10
    while time.monotonic() < until and sys._current_frames()[main].f_code.co_name != "_before_fork":
        time.sleep(0.001)
    def double(x):
        return 2 * x
    return double

def make():
    def triple(x):
        return 3 * x
    return triple

thread = threading.Thread(target=jit.compile, args=(make_slowly, (types.int64,)), kwargs={"key": ("slowly",)})
thread.start()
inside.wait()
child = os.fork()
if not child:
    status = 1
    try:
        signal.alarm(30)   # a child that waits for ever is killed, and seen
        assert jit.compile(make, (types.int64,), key=("triple",)).entry(7) == 21
        status = 0
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
thread.join()
assert jit.compile(make, (types.int64,), key=("triple",)).entry(5) == 15
"""


def test_a_child_forked_while_a_thread_compiles_compiles_itself(tmp_path) -> None:
    run_python(PROGRAM, SHMARRAY_CACHE_DIR=str(tmp_path), timeout_s=120)
