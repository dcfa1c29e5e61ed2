"""Is it our package that is installed, on a system that it works on, and how many cores may it use?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from shmarray._version import __version__
from shmarray.cli.doctor.finding import Finding, good, note, wrong

__all__ = ["check_installation"]

#: Another project's distribution of our import name.
_OTHER = "shmarray"
_OURS = "shmarray-engine"


def check_installation() -> Iterator[Finding]:
    """Everything about this installation and machine."""
    yield good("version", f"shmarray {__version__}, Python {platform.python_version()}, NumPy {_version('numpy')}")
    if not sys.platform.startswith("linux"):
        yield wrong("system", f"{platform.system()}: arrays cannot be shared here", "run it on Linux")
    if not os.path.isdir("/proc/self/fd"):
        yield wrong("system", "/proc is not mounted: nameless arrays cannot be sent", "mount -t proc proc /proc")
    yield from _namesakes(sys.path)
    yield _cores()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _namesakes(path: Iterable[str]) -> Iterator[Finding]:
    """Other packages of our name: PyPI has an old one, whose files would lie in our place."""
    if (version := _version(_OTHER)) != "not installed":
        yield wrong(
            "namesake",
            f"the distribution {_OTHER!r} {version} is installed, another project's: it has our import name",
            f"pip uninstall {_OTHER}, then pip install --force-reinstall {_OURS}",
        )
    here = Path(__file__).resolve().parents[2]
    for entry in path:
        for candidate in (Path(entry or ".") / "shmarray.py", Path(entry or ".") / "shmarray" / "__init__.py"):
            if candidate.is_file() and here not in candidate.resolve().parents:
                yield wrong(
                    "namesake",
                    f"{candidate} has our import name, and may be imported in our place",
                    "rename it, or remove it from sys.path (PYTHONPATH)",
                )


def _cores() -> Finding:
    from shmarray.configuration import config
    from shmarray.pool.cores import available_cores

    machine, usable = os.cpu_count() or 1, config.workers or available_cores()
    if usable < machine:
        why = "config.workers" if config.workers else "affinity, a control group's quota, or LOKY_MAX_CPU_COUNT"
        return note("cores", f"{usable} of the machine's {machine} are used ({why})")
    return good("cores", f"all {machine} are used")
