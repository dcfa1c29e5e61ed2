"""CPython's own tests of managers pass on ours, under every start method."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from tests.multiprocessing.test_cpython import failures, original, run

CLASSES = (
    "WithManagerTestContainers",
    "WithManagerTestMyManager",
    "WithManagerTestRemoteManager",
    "WithManagerTestManagerRestart",
)


@pytest.mark.skipif(original is None, reason="this interpreter does not ship CPython's tests")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_the_standard_librarys_tests_of_managers_pass(
    request: pytest.FixtureRequest, tmp_path: Path, method: str
) -> None:
    if method == "spawn" and not request.config.getoption("--cpython-tests"):
        pytest.skip("runs with --cpython-tests: it is forkserver's, but slower")
    said = run(tmp_path, method, CLASSES)
    assert not failures(said), said
    assert "skipped" not in said, said
