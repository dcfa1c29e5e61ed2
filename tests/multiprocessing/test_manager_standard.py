"""CPython's own tests of managers pass on ours, under every start method."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from tests.multiprocessing.standard_suite import run_standard_tests

CLASSES = [
    "WithManagerTestContainers",
    "WithManagerTestMyManager",
    "WithManagerTestRemoteManager",
    "WithManagerTestManagerRestart",
]


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_the_standard_librarys_tests_of_managers_pass(tmp_path: Path, method: str) -> None:
    printed = run_standard_tests(tmp_path, method, *CLASSES)
    assert "skipped" not in printed, printed
