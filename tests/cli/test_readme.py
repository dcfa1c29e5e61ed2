"""The README's examples can be pasted, and its commands are where CI looks for them.

That the examples run, `.ci/run` shows with what users get: `.ci/readme.py` and the installed wheel.
"""

from __future__ import annotations

import codeop
import importlib.util
import subprocess
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
def test_example_can_be_pasted_line_by_line(number: int) -> None:
    """Into Python's own prompt, too: there a block ends with a blank line, and has none inside."""
    pending: list[str] = []
    for line in [*EXAMPLES[number].splitlines(), ""]:
        pending.append(line)
        if codeop.compile_command("\n".join(pending), "README.md", "single") is not None:
            pending.clear()
    assert not pending, "the example ends in the middle of a statement"


def test_an_example_that_warns_is_one_that_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        readme.run_example(sys.executable, "import warnings; warnings.warn('w')", namespace=sa.config.namespace)
    assert "UserWarning: w" in capfd.readouterr().err


def test_commands_make_their_own_environment() -> None:
    for purpose, ending in (("demo", "shmarray demo"), ("test", "pytest -n auto")):
        command = readme.command(purpose)
        assert command.startswith("python3 -m venv ")
        assert command.endswith(ending)
