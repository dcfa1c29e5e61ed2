"""Programs to run in processes of their own.

In a module of its own name: several directories of tests have a `conftest`, and an import by that name may
find another one's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_REPOSITORY = _HERE.parents[1]


def start(
    script: str, *, arguments: tuple[str, ...] = (), environ: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(_REPOSITORY), str(_HERE)])
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": path, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
