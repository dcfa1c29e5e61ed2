"""A child forked while threads of its parent import numba, compile, or have a lock of ours can do all that itself."""

from __future__ import annotations

from tests.processes import run_python

PROGRAM = """
import os, signal, sys, threading, time
import shmarray

def is_being_loaded(name):
    return getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False)

thread = threading.Thread(target=lambda: shmarray.kernels.atomics)
thread.start()
while not is_being_loaded("numba"):
    time.sleep(0.0001)
child = os.fork()
if not child:
    status = 1
    try:
        signal.alarm(60)   # a child that waits for ever is killed, and seen
        import numba
        status = 0
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
thread.join()

from numba import types
from shmarray import jit

main, inside = threading.get_ident(), threading.Event()

def forks(frame):
    return frame is not None and (frame.f_code.co_name == "_before_fork" or forks(frame.f_back))

def make_slowly():
    "Until the main thread is about to fork, or has forked without asking."
    inside.set()
    until = time.monotonic() + 10
    while time.monotonic() < until and not forks(sys._current_frames()[main]):
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
        signal.alarm(60)
        assert jit.compile(make, (types.int64,), key=("triple",)).entry(7) == 21
        status = 0
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
thread.join()
assert jit.compile(make, (types.int64,), key=("triple",)).entry(5) == 15

import numpy as np
import shmarray as sa
from llvmlite.binding import ffi
from shmarray.jit import counters, functions
from shmarray.ops import random

inside.clear()
infer = functions.compiled_return_type

def infer_slowly(*arguments):
    make_slowly()
    return infer(*arguments)

jit.compiled_return_type = infer_slowly

def mean_is_float(which):
    mean = sa.stencil(lambda w: (w[-1] + w[0] + w[1]) / which, halo=1)
    return mean._facts(((np.dtype(float), False),), (1,)) == (np.float64, True)

def hold():
    with counters._lock, random._positions, ffi.lib._lock:
        held.set()
        until = time.monotonic() + 10
        while time.monotonic() < until and not forks(sys._current_frames()[main]):
            time.sleep(0.001)
        # llvmlite's lock is waited for; the others are held while the child is made.
        ffi.lib._lock.__exit__()
        forked.wait(60)
        ffi.lib._lock.__enter__()

held, forked, inferred = threading.Event(), threading.Event(), []
threads = [threading.Thread(target=lambda: inferred.append(mean_is_float(1))), threading.Thread(target=hold)]
threads[0].start()
inside.wait()
threads[1].start()
held.wait()
child = os.fork()
if not child:
    status = 1
    try:
        signal.alarm(60)
        jit.compiled_return_type = infer
        assert mean_is_float(2)
        ffi.lib.LLVMPY_GetVersionInfo()
        counters.count("received")
        assert sa.ops.random.Generator(1)._take(2, aligned=True) == 0
        status = 0
    finally:
        os._exit(status)
forked.set()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
for thread in threads:
    thread.join()
assert inferred == [True]
"""


def test_a_child_forked_while_threads_import_and_compile_does_so_itself(tmp_path) -> None:
    run_python(PROGRAM, SHMARRAY_CACHE_DIR=str(tmp_path), timeout_s=120)
