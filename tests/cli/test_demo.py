"""`shmarray demo`: the whole of it on little data, and its parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import shmarray as sa
from shmarray.cli.demo.data import fill_mosaic, plan_mosaic, shows_terrain
from shmarray.cli.demo.exactness import exact_statistics, largest_difference, same_bits
from shmarray.cli.demo.kernels import loops
from shmarray.cli.demo.measure import Comparison
from shmarray.cli.demo.report import Report

TILE = (344, 403)


def test_demo_holds_every_check(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "relief.png"
    command = [sys.executable, "-m", "shmarray.cli", "demo", "--nbytes", "8MB", "--out", str(out), "--workers", "2"]
    done = subprocess.run(
        [*command, "--namespace", sa.config.namespace], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checks held" in done.stdout
    assert "no arrays in namespace" in done.stdout
    assert out.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("nbytes", [1, 32_000_000, 400_000_000, 3_000_000_000])
@pytest.mark.parametrize("free", [10_000_000, 64_000_000, 10**12])
def test_mosaic_fits_into_what_is_free(nbytes: int, free: int) -> None:
    plan = plan_mosaic(TILE, nbytes, free)
    assert plan.shape == (plan.tiles[0] * 344, plan.tiles[1] * 403)
    assert plan.nbytes * 2.75 <= free
    assert plan.reduced == (nbytes * 2.75 > free * 0.85)


def test_mosaic_is_mirrored_at_every_seam() -> None:
    tile = np.arange(12, dtype=np.int16).reshape(3, 4)
    mosaic = np.empty((9, 12), np.float32)
    fill_mosaic(mosaic, tile)
    assert shows_terrain(mosaic, tile)
    np.testing.assert_array_equal(mosaic[2], mosaic[3])
    np.testing.assert_array_equal(mosaic[:, 7], mosaic[:, 8])
    mosaic[8, 11] += 1
    assert not shows_terrain(mosaic, tile)


def test_slope_of_a_plane_is_its_angle() -> None:
    slope, _, _ = loops(10.0, 20.0, 1.0)
    rows, columns = np.mgrid[0:6, 0:7].astype(np.float32)
    out = np.empty((6, 7), np.float32)
    slope(columns * 10 + rows * 0, out, 0, 6)
    np.testing.assert_allclose(out[:, 1:-1], 45, rtol=1e-6)
    slope(rows * 20, out, 0, 6)
    np.testing.assert_allclose(out[1:-1], 45, rtol=1e-6)


def test_flat_ground_is_lit_by_the_height_of_the_sun() -> None:
    _, shade, _ = loops(10.0, 10.0, 1.0)
    out = np.empty((4, 5), np.uint8)
    shade(np.zeros((4, 5), np.float32), out, 0, 4)
    np.testing.assert_array_equal(out, round(255 * np.sin(np.pi / 4)))


def test_exactness_sees_one_bit_in_the_last_row() -> None:
    left = np.ones((200, 3), np.float32)
    right = left.copy()
    assert same_bits(left, right)
    right[-1, -1] = np.nextafter(np.float32(1), np.float32(2))
    assert not same_bits(left, right)
    assert largest_difference(left, right) == pytest.approx(2**-23)
    right[-1, -1] = np.nan
    assert np.isnan(largest_difference(left, right))
    assert exact_statistics(left) == (1.0, 0.0, 1.0, 1.0)


def test_report_holds_only_if_every_check_does() -> None:
    report = Report(Console(quiet=True))
    assert not report.all_held, "nothing shown is nothing held"
    report.check("one", True)
    assert report.all_held
    report.check("two", False)
    assert not report.all_held


def test_report_names_a_missing_peer() -> None:
    console = Console(record=True, width=140, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        report = Report(console)
        report.copy_bandwidth = 1e9
        report.comparisons.append(Comparison("step", 10**9, {"shmarray": 0.5, "NumPy": 1.0}))
        report.print_table(2)
        text = console.export_text()
    assert "2.00x" in text
    assert "200" in text
    assert "-" in text
