"""Does a wheel hold what the checkout has, and nothing else?

    check_wheel.py WHEEL

The packages are listed by hand in setup.cfg and `kernels/` lies beside `shmarray/`, so a module that nobody listed
would be missing from the wheel while every test in the checkout still finds it. Compared file by file and byte by byte.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: What may stand beside the metadata that every wheel has.
_METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}


def expected(root: Path = ROOT) -> dict[str, Path]:
    """Path in the wheel -> file in the checkout."""
    files = {"shmarray/py.typed": root / "shmarray" / "py.typed"}
    link = root / "shmarray" / "kernels"
    for path in sorted((root / "shmarray").rglob("*.py")):
        if link not in path.parents:  # found again below, by its place on the disk
            files[path.relative_to(root).as_posix()] = path
    for path in sorted((root / "kernels").rglob("*.py")):
        files["shmarray/" + path.relative_to(root).as_posix()] = path
    return files


def faults(wheel: Path, root: Path = ROOT) -> list[str]:
    """What is wrong with the wheel, one line each."""
    found: list[str] = []
    wanted = expected(root)
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = {name for name in names if ".dist-info/" in name}
        for name in sorted(wanted.keys() - names):
            found.append(f"missing: {name} (is its package listed in setup.cfg?)")
        for name in sorted(names - metadata - wanted.keys()):
            found.append(f"should not be there: {name}")
        for name in sorted(wanted.keys() & names):
            if archive.read(name) != wanted[name].read_bytes():
                found.append(f"differs from the checkout: {name}")
        inner = {name.split(".dist-info/", 1)[1] for name in metadata}
        for name in sorted(_METADATA - inner):
            found.append(f"missing metadata: {name}")
        for name in sorted(inner - _METADATA):
            found.append(f"unexpected metadata: {name}")
        for name in metadata:
            if name.endswith("/top_level.txt") and archive.read(name).split() != [b"shmarray"]:
                found.append(f"the wheel installs top-level names other than shmarray: {archive.read(name)!r}")
    return found


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__)
        return 2
    wheel = Path(arguments[0])
    problems = faults(wheel)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{wheel.name}: {len(expected())} files, each as in the checkout")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
