"""CPython's own tests of multiprocessing, with the import lines changed and nothing else.

They are read from the interpreter that runs (`test._test_multiprocessing`, which some distributions leave out), written
to a folder with their imports of `multiprocessing` made imports of ours, and run there in an interpreter of their own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_RUNNER = """
import sys
import unittest

import standard_tests

assert standard_tests.multiprocessing.__name__ == "shmarray.multiprocessing"

standard_tests.install_tests_in_module_dict(globals(), {method!r})

if __name__ == "__main__":
    unittest.main(argv=["standard tests", *sys.argv[1:]], verbosity=2)
"""


def _with_our_imports(source: str) -> str:
    """The same program with `multiprocessing` imported from this package."""
    source = re.sub(r"^( *)import multiprocessing$", r"\1from shmarray import multiprocessing", source, flags=re.M)
    source = re.sub(
        r"^( *)import multiprocessing\.(\w+)$",
        r"\1from shmarray import multiprocessing\n\1import shmarray.multiprocessing.\2",
        source,
        flags=re.M,
    )
    return re.sub(r"^( *)from multiprocessing\b", r"\1from shmarray.multiprocessing", source, flags=re.M)


def run_standard_tests(folder: Path, method: str, *names: str, timeout_s: float = 100.0) -> str:
    """Run CPython's test classes (`WithManagerTestContainers`, ...) on ours under a start method; what was printed."""
    try:
        spec = importlib.util.find_spec("test._test_multiprocessing")
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        pytest.skip("this interpreter does not ship test._test_multiprocessing")
    (folder / "standard_tests.py").write_text(_with_our_imports(Path(spec.origin).read_text(encoding="utf-8")))
    script = folder / f"run_{method}.py"
    script.write_text(_RUNNER.format(method=method))
    done = subprocess.run(
        [sys.executable, str(script), *names],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Ran [1-9]\d* tests? in", done.stderr, flags=re.M), done.stderr
    return done.stderr
