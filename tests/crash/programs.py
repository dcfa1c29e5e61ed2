"""Programs with a pool, in a process group of their own, for tests that signal and kill them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PROGRAM = """
import os, signal, sys, time
import numpy as np
import shmarray as sa

sa.config.workers = 2
a = sa.array(np.repeat(np.arange(8), 16), chunks=16)
b = sa.empty(a.shape, a.dtype, chunks=16)

@sa.chunkwise(jit=False)
def double(chunk):
    return chunk * 2

@sa.chunkwise(jit=False)
def forever(chunk):
    os.write(1, b"working\\n")
    while True:
        pass

@sa.chunkwise
def forever_compiled(chunk):
    while chunk[0] < 100:
        pass

def workers():
    return [worker.pid for worker in sa.get_pool().workers]

def check():
    double(a, out=b)
    assert np.array_equal(b, np.asarray(a) * 2)

check()
print("workers", *workers(), flush=True)
"""


@contextmanager
def program(body: str) -> Iterator[subprocess.Popen[str]]:
    """A program in a process group of its own; whatever of the group is left at the end is killed and an error."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + body],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


def read_workers(process) -> list[int]:
    word, *pids = process.stdout.readline().split()
    assert word == "workers"
    return list(map(int, pids))
