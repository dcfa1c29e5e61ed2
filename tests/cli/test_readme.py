"""The README's examples run as pasted, and its commands are where CI looks for them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import shmarray as sa

_SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "readme.py"

pytestmark = pytest.mark.skipif(not _SCRIPT.exists(), reason="not in a checkout")


def _readme() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readme = _readme() if _SCRIPT.exists() else None
EXAMPLES = readme.blocks("python") if readme else []


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs_as_pasted(number: int) -> None:
    readme.run_example(
        sys.executable,
        EXAMPLES[number],
        namespace=f"{sa.config.namespace}-r{number}",
        search_path=str(Path(sa.__file__).parents[1]),
    )


def test_commands_make_their_own_environment() -> None:
    for purpose, ending in (("demo", "shmarray demo"), ("test", "pytest -n auto")):
        command = readme.command(purpose)
        assert command.startswith("python3 -m venv ")
        assert command.endswith(ending)
