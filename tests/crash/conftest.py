"""What several files of this folder need of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.fixture
def memory_group() -> Iterator[tuple[Path, Path]]:
    """A memory control group of 96 MiB: where its processes are named, and its own folder. Of either version."""
    name = f"shmarray-test-{os.getpid()}"
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / name
        with suppress(OSError):
            group.mkdir()
            try:
                (group / limit).write_text(str(96 << 20))
                yield group / "cgroup.procs", group
                return
            finally:
                with suppress(OSError):
                    group.rmdir()
    pytest.skip("needs the right to make a memory control group")


@pytest.fixture(params=[{}, {"SHMARRAY_NO_TMPFILE": "1"}], ids=["O_TMPFILE", "fallback"])
def environ(request: pytest.FixtureRequest) -> dict[str, str]:
    environ: dict[str, str] = request.param
    return environ
