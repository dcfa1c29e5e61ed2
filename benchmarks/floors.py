"""What can no implementation be faster than, on the machine at hand?

Each floor is the bare mechanism under one of our figures, without anything of ours around it, to be run as a contestant
beside it: the cache line that two spinning processes hand to each other, the sleeping process that has to be woken,
the system calls of a segment's life. Where a figure is near its floor, only another machine helps.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
from collections.abc import Iterator

import numba
import numpy as np

import shmarray as sa
from shmarray.kernels import atomics

__all__ = ["PipeEcho", "pipe_echo", "segment_system_calls", "spinning_echo"]

_STOP = -1
_SETLEASE, _SETSIG = 1024, 10


@numba.njit
def _echo(words):  # type: ignore[no-untyped-def]
    """Answer in word 8 (another cache line) what appears in word 0."""
    seen = 0
    while seen != _STOP:
        asked = atomics.load(words, 0)
        if asked != seen:
            seen = asked
            atomics.store(words, 8, asked)


@numba.njit
def _ask(words, number):  # type: ignore[no-untyped-def]
    atomics.store(words, 0, number)
    while atomics.load(words, 8) != number:
        pass


def _answer_spinning(name: str) -> None:
    _echo(sa.open(name))


@contextlib.contextmanager
def spinning_echo() -> Iterator[object]:
    """`call()` hands a cache line to another process that spins on it, and waits for its answer."""
    shared = sa.zeros(16, np.int64, name=f"echo-{os.getpid()}")
    words = np.asarray(shared)
    process = multiprocessing.get_context("spawn").Process(target=_answer_spinning, args=(shared.name,), daemon=True)
    process.start()
    number = 0

    def call() -> None:
        nonlocal number
        number += 1
        _ask(words, number)

    call()
    try:
        yield call
    finally:
        words[0] = _STOP
        process.join()


def _answer_pipe(requests: int, answers: int) -> None:
    while os.read(requests, 1):
        os.write(answers, b"x")


class PipeEcho:
    """A process that sleeps on a pipe, and answers."""

    def __init__(self, ask: int, answers: int) -> None:
        self._ask, self._answers = ask, answers

    def __call__(self) -> None:
        """Wake it, and sleep until its answer."""
        self.wake()
        self.await_answer()

    def wake(self) -> None:
        """Wake it: one system call."""
        os.write(self._ask, b"x")

    def await_answer(self) -> None:
        """Sleep until the answer."""
        os.read(self._answers, 1)


@contextlib.contextmanager
def pipe_echo() -> Iterator[PipeEcho]:
    """A process that sleeps on a pipe, for the time of a `with` block."""
    requests, ask = os.pipe()
    answers, answer = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=_run_pipe, args=(ask, answers, requests, answer))
    process.start()
    os.close(requests)
    os.close(answer)

    echo = PipeEcho(ask, answers)
    echo()
    try:
        yield echo
    finally:
        os.close(ask)
        process.join()
        os.close(answers)


def _run_pipe(ask: int, answers: int, requests: int, answer: int) -> None:
    os.close(ask)
    os.close(answers)
    _answer_pipe(requests, answer)


@contextlib.contextmanager
def segment_system_calls() -> Iterator[object]:
    """`call()` makes the system calls of a warm create + attach + drop of a named segment, and nothing else.

    Out of the file's hidden name and back into it (two renames); on attaching the look whether the name is still this
    file; on dropping the namespace's lock, whether anybody else has the file open (a lease, with its signal set, taken
    and given back), and the links of both files.
    """
    stem = f"/dev/shm/floor-{os.getpid()}"
    hidden, public, lock = f"{stem}~hidden", f"{stem}~public", f"{stem}~lock"
    file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    lock_file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def call() -> None:
        os.rename(hidden, public)
        os.lstat(public)
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fstat(lock_file)
        os.fstat(file)
        fcntl.fcntl(file, _SETSIG, 23)
        fcntl.fcntl(file, _SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(file, _SETLEASE, fcntl.F_UNLCK)
        os.rename(public, hidden)
        fcntl.flock(lock_file, fcntl.LOCK_UN)

    try:
        yield call
    finally:
        os.close(file)
        os.close(lock_file)
        os.unlink(hidden)
        os.unlink(lock)
