"""The core count respects affinity, cgroup quotas and what the environment says."""

from __future__ import annotations

import os

import pytest

from shmarray.pool import available_cores
from shmarray.pool.cores import _cgroup_quota


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)


def test_affinity_bounds_the_count():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_variables_bound_the_count(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert available_cores() == 1
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "nonsense")
    assert available_cores() >= 1


def test_test_processes_share_the_cores(monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "10000")
    assert available_cores() == 1


def test_quota_of_the_unified_hierarchy_and_its_parents(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "a" / "b" / "cpu.max").write_text("max 100000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/a/b\n")
    assert _cgroup_quota(tmp_path, membership) == 1.5


def test_quota_of_the_first_hierarchy(tmp_path):
    folder = tmp_path / "cpu,cpuacct" / "job"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("200000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("5:cpu,cpuacct:/job\n9:memory:/elsewhere\n")
    assert _cgroup_quota(tmp_path, membership) == 2.0


def test_no_quota_is_none(tmp_path):
    assert _cgroup_quota(tmp_path, tmp_path / "missing") is None
