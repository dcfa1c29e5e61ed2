"""How many cores may this process use?

The least of what the scheduler allows (affinity), what the cgroup's quota pays for, and what the user or the test
runner has said: `LOKY_MAX_CPU_COUNT`, and `PYTEST_XDIST_WORKER_COUNT` test processes that share the machine.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["available_cores"]


def available_cores() -> int:
    """Cores this process may keep busy, at least 1.

    Examples
    --------
    >>> 1 <= available_cores() <= (os.cpu_count() or 1)
    True
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = _cgroup_quota()
    if quota is not None:
        cores = min(cores, math.ceil(quota))
    cores = min(cores, _positive_variable("LOKY_MAX_CPU_COUNT") or cores)
    sharing = _positive_variable("PYTEST_XDIST_WORKER_COUNT")
    if sharing:
        cores = cores // sharing
    return max(1, int(cores))


def _positive_variable(name: str) -> int | None:
    try:
        value = int(os.environ.get(name, ""))
    except ValueError:
        return None
    return value if value > 0 else None


def _cgroup_quota(cgroup: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores' worth of CPU time that the cgroup (v2 or v1) may use, the tightest of it and its parents; None: no
    limit."""
    quotas = []
    for hierarchy, path in _memberships(membership):
        roots = (
            [(cgroup, _quota_v2)] if hierarchy == "" else [(cgroup / "cpu", _quota_v1), (cgroup / hierarchy, _quota_v1)]
        )
        for root, read in roots:
            here = root / path.lstrip("/")
            while True:
                quota = read(here)
                if quota is not None:
                    quotas.append(quota)
                if here == root or root not in here.parents:
                    break
                here = here.parent
    return min(quotas, default=None)


def _memberships(membership: Path) -> list[tuple[str, str]]:
    found = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            found.append((controllers, path))
    return found


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
