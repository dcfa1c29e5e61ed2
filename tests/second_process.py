"""A second, unrelated process for tests: one program, or a peer that evaluates expressions."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run_program(program: str, *arguments: str, timeout_s: float = 60) -> str:
    """Run a Python program in a process of its own; what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SERVER = """
import pickle, struct, sys
read, write = sys.stdin.buffer, sys.stdout.buffer
import shmarray
scope = {"shmarray": shmarray, "np": __import__("numpy")}
while True:
    head = read.read(4)
    if not head:
        break
    payload = read.read(struct.unpack("<I", head)[0])
    try:
        source, arguments = pickle.loads(payload)
        answer = True, eval(source, {**scope, "args": arguments})
        data = pickle.dumps(answer)
    except BaseException as error:
        data = pickle.dumps((False, repr(error)))
    answer = arguments = None
    write.write(struct.pack("<I", len(data)) + data)
    write.flush()
"""


class Peer:
    """A second process that evaluates expressions on what it is sent: started once, used often."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def evaluate(self, source: str, *arguments: Any) -> Any:
        """`eval(source)` there, where `args` is the tuple of arguments."""
        payload = pickle.dumps((source, arguments))
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(len(payload).to_bytes(4, "little") + payload)
        stdin.flush()
        length = int.from_bytes(stdout.read(4), "little")
        good, answer = pickle.loads(stdout.read(length))
        assert good, answer
        return answer

    def close(self) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.close()
        self._process.wait(30)
        stdout.close()
