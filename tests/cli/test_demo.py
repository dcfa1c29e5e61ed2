"""`shmarray demo`: its options and its exit status, and its parts. The whole of it runs in `.ci/run`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import shmarray as sa
from shmarray.cli.demo import steps
from shmarray.cli.demo.data import fill_mosaic, plan_mosaic, shows_terrain
from shmarray.cli.demo.exactness import exact_statistics, largest_difference, same_bits
from shmarray.cli.demo.kernels import loops
from shmarray.cli.demo.measure import Comparison
from shmarray.cli.demo.report import Report
from shmarray.cli.main import cli
from tests.processes import run_python

TILE = (344, 403)


class ShortStage(steps.Stage):
    """The stage with its arrays and its terrain, and none of what takes compiling."""

    fails = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ahead = None
        seen.append(self)

    def build(self) -> None:
        fill_mosaic(self.plain_ground, self.terrain.metres)
        if self.fails:
            self.plain_ground[-1, -1] += 1
        held = shows_terrain(self.plain_ground, self.terrain.metres)
        self.report.check("every tile of the mosaic is the terrain, mirrored", held)
        self.report.comparisons.append(Comparison("fill", self.plan.nbytes, {"NumPy": 2.0, "shmarray": 1.0}))

    def copy(self) -> None:
        self.report.copy_bandwidth = 1e9

    def convert(self) -> None:
        self.ground *= self.factor

    def derive(self) -> None:
        self.slope[...] = 10
        self.shade[...] = 200

    def statistics(self) -> None:
        pass

    kill = statistics


seen: list[ShortStage] = []


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """The command on its smallest size with a short stage, started in an empty folder."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(steps, "Stage", ShortStage)
    monkeypatch.setattr(steps, "available_cores", lambda: 1)  # nothing to compile ahead
    # matplotlib keeps fonts open; the picture itself is drawn in `.ci/run`.
    monkeypatch.setattr(steps, "write_picture", lambda path, *_, **__: path.write_bytes(b"\x89PNG\r\n\x1a\n"))
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    yield lambda *arguments: runner.invoke(cli, ["demo", "--nbytes", "8MB", *arguments])
    seen.clear()


def test_demo_shares_draws_and_leaves_nothing(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("--out", "relief.png")
    assert result.exit_code == 0, result.output
    assert re.search(r"fill .* 2\.00x", result.output), "the table"
    assert "what the second program wrote is here" in result.output
    assert "checks held" in result.output
    assert "no arrays in namespace" in result.output
    assert "the picture is written (8 B)" in result.output
    assert (tmp_path / "relief.png").exists()


def test_demo_ends_with_1_if_one_check_fails(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShortStage, "fails", True)
    for step in ("neighbour", "draw"):
        monkeypatch.setattr(ShortStage, step, lambda *_: None)
    left = sa.zeros(3, name="anothers")  # was there before: no reason to fail
    result = run("--workers", "1")
    assert result.exit_code == 1
    assert "does not hold: every tile of the mosaic" in result.output
    assert "Only 1 of 2 checks held" in result.output
    assert "1 of other programs were there before" in result.output
    assert sa.config.workers is None, "--workers is for the command alone"
    del left


def test_demo_sees_what_it_left(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[sa.SharedArray] = []
    monkeypatch.setattr(ShortStage, "neighbour", lambda *_: left.append(sa.zeros(3, name="forgotten")))
    monkeypatch.setattr(ShortStage, "draw", lambda *_: None)
    result = run()
    assert result.exit_code == 1
    left.clear()
    assert "forgotten" in result.output
    assert "does not hold: nothing is left in shared memory" in result.output


def test_demo_uses_the_lanes_it_is_told(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = []

    def enter(stage: ShortStage) -> None:
        lanes.append(sa.config.workers)
        raise sa.OutOfSharedMemoryError("no room for the terrain")

    monkeypatch.setattr(ShortStage, "__enter__", enter)
    result = run("--workers", "3")
    assert lanes == [3]
    assert (result.exit_code, result.stderr) == (1, "Error: no room for the terrain\n")


@pytest.mark.parametrize(
    "option", ["--out=/nowhere/at/all.png", "--nbytes=7MB", "--workers=0", "--out=/tmp", "--out=relief.txt"]
)
def test_demo_refuses_options_that_cannot_be(run: Callable[..., Result], option: str) -> None:
    result = run(option)
    assert result.exit_code == 2
    assert option.split("=")[0] in result.stderr
    assert not seen, "nothing is begun"


KEYS = """
from shmarray.cli.demo.kernels import EXAGGERATION, SUNS, loops, over_chunks, steep_counter
slope, shade, soft_shade = loops(200.0, 300.0, EXAGGERATION)
keys = [over_chunks(loop, "u1")._key() for loop in (slope, shade, soft_shade(SUNS))] + [steep_counter()._key()]
print(keys)
"""


def test_what_is_compiled_ahead_has_the_key_by_which_the_demo_looks_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    exec(KEYS, {})
    assert run_python(KEYS).stdout == capsys.readouterr().out


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
