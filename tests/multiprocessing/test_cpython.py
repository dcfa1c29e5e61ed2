"""CPython's own tests of multiprocessing, run on this package: what passes on the original passes here.

The tests are those of the interpreter at hand, where it ships them, with the names of modules replaced. A short
selection runs always, everything with `--cpython-tests`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

try:
    from test import _test_multiprocessing as original
except ImportError:
    original = None

pytestmark = pytest.mark.skipif(original is None, reason="this interpreter does not ship CPython's tests")

POOL = ("WithProcessesTestPool", "WithProcessesTestPoolWorkerErrors", "WithProcessesTestPoolWorkerLifetime")
CTYPES = ("WithProcessesTestValue", "WithProcessesTestArray", "WithProcessesTestSharedCTypes")
MANAGERS = (
    "WithManagerTestContainers",
    "WithManagerTestMyManager",
    "WithManagerTestRemoteManager",
    "WithManagerTestManagerRestart",
)
OTHERS = (
    "WithProcessesTestSharedMemory",
    "WithManagerTestLock",
    "WithProcessesTestLock",
    "WithProcessesTestQueue",
    "WithManagerTestQueue",
    "WithManagerTestPool",
)

#: Long because they sleep, and what they test is tested here without.
SLOW = (
    "test_async_timeout",
    "test_pool_worker_lifetime_early_close",
    "test_qsize",
    "test_shared_memory_SharedMemoryServer_ignores_sigint",
    "test_timeout",
)

MODULE = """
import sys
import unittest
from {source} import install_tests_in_module_dict
install_tests_in_module_dict(globals(), {method!r})
for name in list(globals()):
    if name.startswith("With") and name not in {names!r}:
        del globals()[name]
    elif isinstance(globals()[name], type) and issubclass(globals()[name], unittest.TestCase):
        if not name.startswith("With"):
            del globals()[name]
        for slow in {slow!r}:
            if name in globals() and hasattr(globals()[name], slow):
                setattr(globals()[name], slow, None)
if __name__ == "__main__":
    unittest.main(module={module!r}, argv=["tests"])
"""


def of_ours(source: str) -> str:
    """The tests' source for this package."""
    source = re.sub(
        r"^(\s*)import multiprocessing$", r"\1import shmarray.multiprocessing as multiprocessing", source, flags=re.M
    )
    source = re.sub(r"^(\s*)import multiprocessing\.", r"\1import shmarray.multiprocessing.", source, flags=re.M)
    source = source.replace("from multiprocessing", "from shmarray.multiprocessing")
    # It has the package by importing submodules of it.
    source = source.replace(
        "\nimport shmarray.multiprocessing.connection\n",
        "\nimport shmarray.multiprocessing as multiprocessing\nimport shmarray.multiprocessing.connection\n",
        1,
    )
    # Programs that tests start must find the package.
    source = source.replace("'-E', '-c'", "'-c'")
    environ = "**{'__isolated': False, 'PYTHONPATH': os.environ['PYTHONPATH']}"
    return re.sub(r"""assert_python_ok\((["']-c["'], cmd[^)]*)\)""", rf"assert_python_ok(\1, {environ})", source)


def run(folder: Path, method: str, names: tuple[str, ...], *, ours: bool = True, slow: tuple[str, ...] = ()) -> str:
    """Run some of the classes; what unittest said."""
    source = "test._test_multiprocessing"
    if ours:
        source = "ours_test_multiprocessing"
        (folder / f"{source}.py").write_text(of_ours(Path(original.__file__).read_text()))
    module = f"tests_under_{method}"
    text = MODULE.format(source=source, method=method, names=names, slow=slow, module=module)
    (folder / f"{module}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    return done.stderr


def failures(said: str) -> set[str]:
    """Names of the tests that did not pass."""
    assert re.search(r"^Ran [1-9]\d* tests? in", said, re.M), said
    return set(re.findall(r"^(?:FAIL|ERROR): (\S+ \(\S+?\))", said, re.M))


#: What each start method could break that the others would not show.
SELECTION = {
    "fork": POOL + CTYPES + MANAGERS,
    "spawn": ("WithProcessesTestValue",),
    "forkserver": ("WithManagerTestContainers", "WithManagerTestMyManager"),
}


@pytest.mark.parametrize("method", SELECTION)
def test_a_selection_passes(method: str, tmp_path: Path) -> None:
    said = run(tmp_path, method, SELECTION[method], slow=SLOW)
    assert not failures(said), said


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("names", [(name,) for name in POOL + CTYPES + MANAGERS + OTHERS], ids=lambda names: names[0])
def test_all_that_passes_on_the_original(
    names: tuple[str, ...], method: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--cpython-tests"):
        pytest.skip("runs with --cpython-tests")
    said = run(tmp_path, method, names)
    here = failures(said)
    if here:
        there = failures(run(tmp_path, method, names, ours=False))
        assert here <= there, said
