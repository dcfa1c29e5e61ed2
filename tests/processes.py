"""Processes for tests: scripts of their own, waited for under a watchdog, never by sleeping."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def run_python(code: str, *arguments: str, timeout_s: float = 60.0, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, in the test's namespace; its failure is the test's."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Poll under a watchdog."""
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "the condition did not come true"
        os.sched_yield()


@contextmanager
def holding(code: str, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code` up to its first line of output, and then holds what it has.

    It ends when its standard input closes, at the end of the `with` block at the latest.
    """
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{code}\nprint('ready', flush=True)\nimport sys\nsys.stdin.read()",
            *arguments,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line == "ready\n", line
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=20)
        process.stdout.close()
