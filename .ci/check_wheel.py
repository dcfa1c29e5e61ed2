"""Does a wheel hold what the checkout has, and nothing else?

    check_wheel.py WHEEL

The packages are listed by hand in setup.cfg and `kernels/` lies beside `shmarray/`, so a module that nobody
listed would be missing from the wheel while every test in the checkout still finds it. Compared file by file
and byte by byte.
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
    wanted = expected(root)
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = {name for name in names if ".dist-info/" in name}
        inner = {name.split(".dist-info/", 1)[1] for name in metadata}
        common = sorted(wanted.keys() & names)
        differing = [name for name in common if archive.read(name) != wanted[name].read_bytes()]
        top_level = [archive.read(name).split() for name in metadata if name.endswith("/top_level.txt")]
    missing = sorted(wanted.keys() - names)
    found = [f"missing: {name} (is its package listed in setup.cfg?)" for name in missing]
    found += [f"should not be there: {name}" for name in sorted(names - metadata - wanted.keys())]
    found += [f"differs from the checkout: {name}" for name in differing]
    found += [f"missing metadata: {name}" for name in sorted(_METADATA - inner)]
    found += [f"unexpected metadata: {name}" for name in sorted(inner - _METADATA)]
    if top_level != [[b"shmarray"]]:
        found.append(f"the wheel should install shmarray alone at the top level; it has {top_level}")
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
