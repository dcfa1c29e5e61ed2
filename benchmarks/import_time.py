"""What does `import shmarray` cost over `import numpy`?

Each turn is a new interpreter, timed from before its start to after its end. What an interpreter that imports
nothing takes is measured too, and taken off both for the ratio.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import OURS, Contestant, Suite, arguments


def start(program: str) -> None:
    """Run a program in a new interpreter, from the folder that holds the package."""
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root, stdin=subprocess.DEVNULL)


def main() -> None:
    suite = Suite("importing", arguments(__doc__))
    found = suite.run(
        "a new interpreter",
        [
            Contestant(f"{OURS}: import shmarray", lambda: start("import shmarray")),
            Contestant("import numpy", lambda: start("import numpy")),
            Contestant(
                "import numpy, multiprocessing.shared_memory",
                lambda: start("import numpy, multiprocessing.shared_memory"),
            ),
            Contestant("import numba", lambda: start("import numba")),
            Contestant("nothing", lambda: start("pass")),
        ],
        rounds=30,
    )
    nothing = found["nothing"].median
    share = (found[f"{OURS}: import shmarray"].median - nothing) / (found["import numpy"].median - nothing)
    suite.note("import shmarray / import numpy, the interpreter's own start taken off both", round(share, 2))
    program = "import sys, shmarray; print(*sorted({'numba', 'cloudpickle', 'click', 'rich'} & {*sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
    )
    suite.note("heavy modules that import shmarray loads", loaded.stdout.strip() or "none")
    suite.report()


if __name__ == "__main__":
    main()
