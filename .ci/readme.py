"""Take the README at its word: its commands, and its Python examples run as somebody would paste them.

    readme.py command demo|test     print the shell command that ends in `shmarray demo` or in `pytest`
    readme.py examples PYTHON       run every ```python block with that interpreter, each as a script of its
    own

Needs the standard library alone. A block runs in an empty folder, in its own namespace, with warnings as
errors.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, readme: Path = README) -> list[str]:
    """The fenced blocks of one language, in order."""
    return [body for name, body in _BLOCK.findall(readme.read_text(encoding="utf-8")) if name == language]


def command(purpose: str, readme: Path = README) -> str:
    """The one shell block of the README that runs the demonstration, or the tests."""
    wanted = {"demo": "shmarray demo", "test": "pytest"}[purpose]
    found = [body.strip() for body in blocks("sh", readme) if wanted in body]
    if len(found) != 1:
        raise SystemExit(f"{readme}: expected one sh block with {wanted!r}, found {len(found)}")
    return found[0]


def run_example(python: str, source: str, *, namespace: str, timeout_s: float = 300, search_path: str = "") -> None:
    """Run one example; raise CalledProcessError, with what it printed, if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "example.py")
        script.write_text(source, encoding="utf-8")
        # Handles that nobody unpickles keep their arrays for a minute, unless told otherwise.
        environment = {**os.environ, "SHMARRAY_NAMESPACE": namespace, "SHMARRAY_HANDLE_TTL_S": "2"}
        environment.pop("PYTHONPATH", None)
        if search_path:  # for a package that is not installed
            environment["PYTHONPATH"] = search_path
        run = functools.partial(subprocess.run, cwd=folder, env=environment, check=True, stdin=subprocess.DEVNULL)
        run([python, "-W", "error", str(script)], timeout=timeout_s)
        until_s = time.monotonic() + 10
        while _left(namespace):
            if time.monotonic() > until_s:
                raise SystemExit(f"left in shared memory by an example: {_left(namespace)}")
            run([python, "-m", "shmarray", "gc"], timeout=timeout_s, stdout=subprocess.DEVNULL)


def _left(namespace: str) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"{namespace}~*")]


def main(arguments: list[str]) -> int:
    match arguments:
        case ["command", "demo" | "test" as purpose]:
            print(command(purpose))
        case ["examples", python]:
            examples = blocks("python")
            for number, source in enumerate(examples, start=1):
                print(f"example {number} of {len(examples)}: {source.splitlines()[0]}", flush=True)
                try:
                    run_example(python, source, namespace=f"readme-{os.getpid()}-{number}")
                except subprocess.CalledProcessError as error:
                    print(f"example {number} failed with status {error.returncode}:\n{source}")
                    return 1
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
