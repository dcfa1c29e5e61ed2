"""The `shmarray` command: what lies in shared memory, and the demonstration.

Nothing of the library imports this package. `main` is what the installed command calls.
"""

from __future__ import annotations

from shmarray.cli.main import main

__all__ = ["main"]
