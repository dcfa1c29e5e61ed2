"""Scripts of this folder, run once for each way to make a file: "fallback" is row 51 of the fault table.

Where a mount offers no O_TMPFILE, files are made under a private name and renamed.
"""

from __future__ import annotations

from tests.crash.prelude import PRELUDE
from tests.processes import run_python


def run(code: str, environ: dict[str, str], *arguments: str, timeout_s: float = 60.0) -> str:
    return run_python(PRELUDE + code, *arguments, timeout_s=timeout_s, **environ).stdout
