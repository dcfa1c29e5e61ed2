"""What setup.cfg lists by hand is what there is, and the package goes by one name alone."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not (ROOT / "setup.cfg").exists(), reason="not in a checkout")


def test_setup_cfg_lists_every_package() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    link = ROOT / "shmarray" / "kernels"
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "shmarray").rglob("__init__.py")
        if link not in path.parents
    }
    found |= {
        ".".join(("shmarray", *path.parent.relative_to(ROOT).parts)) for path in (ROOT / "kernels").rglob("__init__.py")
    }
    assert listed == found


def test_kernels_refuse_to_be_imported_under_their_folder_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import kernels"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "shmarray.kernels" in done.stderr


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, shmarray; print(sorted({'numba', 'cloudpickle', 'click', 'rich'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
