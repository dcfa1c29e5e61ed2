"""A cache of its own for every test, and other processes to run code in."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.jit.jit_programs import start


@pytest.fixture(autouse=True)
def cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SHMARRAY_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def run_program() -> Callable[..., str]:
    """Run a script in a new process and return what it prints."""

    def run(script: str, *arguments: str, **environ: str) -> str:
        process = start(script, arguments=arguments, environ=environ)
        output, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
        return str(output)

    return run


_WORKER = """
import pickle, sys
import numpy as np
from shmarray import jit
from tests.jit.loops import apply
with open(sys.argv[1], "rb") as file:
    tasks = pickle.load(file)
results = []
for payload, x, y in tasks:
    entry = jit.load(payload)
    try:
        results.append(apply(entry, x, y))
    except Exception as error:
        results.append(error)
with open(sys.argv[2], "wb") as file:
    pickle.dump((results, jit.statistics()), file)
"""


@pytest.fixture
def run_elsewhere(tmp_path: Path, run_program: Callable[..., str]) -> Callable[..., Any]:
    """Load payloads in a new process and run each on its arrays: results (or exceptions), statistics."""

    def run(*tasks: tuple[bytes, Any, Any]) -> Any:
        (tmp_path / "tasks").write_bytes(pickle.dumps(tasks))
        run_program(_WORKER, str(tmp_path / "tasks"), str(tmp_path / "results"))
        return pickle.loads((tmp_path / "results").read_bytes())

    return run
