"""The story that the demonstration tells, one function a step, each with its checks.

Invariant: whatever happens in a step, the arrays are unlinked and dropped when the stage closes, so that
nothing is left for the last check to find.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import shmarray as sa
from shmarray import registry
from shmarray.cli.demo.ahead import Ahead
from shmarray.cli.demo.crash import is_replaced, run_and_kill
from shmarray.cli.demo.data import FEET_PER_METRE, MosaicPlan, Terrain, fill_mosaic, shows_terrain
from shmarray.cli.demo.exactness import exact_statistics, largest_difference, same_bits
from shmarray.cli.demo.kernels import EXAGGERATION, STEEP_DEG, SUNS, loops, over_chunks, steep_counter
from shmarray.cli.demo.measure import compare, copy_bandwidth
from shmarray.cli.demo.neighbour import backing_of
from shmarray.cli.demo.peers import NumpyPeer, ThreadsPeer, write_edges
from shmarray.cli.demo.picture import write_picture
from shmarray.cli.demo.report import Report
from shmarray.cli.rendering import format_nbytes
from shmarray.pool.cores import available_cores

__all__ = ["Stage", "left_behind"]

#: How much the second program raises the ground, in feet.
_RISE = 100.0

#: At most so many suns has the soft shade in which a worker is killed; small ground needs more for there to be time.
_MOST_SUNS = 1024


class Stage:
    """The arrays, the kernels and the peers of one run; a context manager.

    Parameters
    ----------
    terrain, plan
        The tile and how many of it.
    report : Report
        Where steps, times and checks go.
    """

    def __init__(self, terrain: Terrain, plan: MosaicPlan, report: Report) -> None:
        self.terrain = terrain
        self.plan = plan
        self.report = report
        self.name = f"jacksboro-{os.getpid()}"
        self.factor = np.float32(FEET_PER_METRE)
        self.cell_ft = terrain.cell_x_m * FEET_PER_METRE, terrain.cell_y_m * FEET_PER_METRE
        self.ahead: Ahead | None = None

    def __enter__(self) -> Stage:
        if available_cores() > 1:
            self.ahead = Ahead(*self.cell_ft)
        self.ground = sa.empty(self.plan.shape, np.float32, name=self.name, if_exists="replace")
        self.slope = sa.empty(self.plan.shape, np.float32)
        self.shade = sa.empty(self.plan.shape, np.uint8)
        #: Private memory for what peers write, touched once so that they pay for no page fault.
        self.scratch = np.zeros(self.plan.shape, np.float32)
        self.pool = sa.get_pool()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.ahead is not None:
            self.ahead.close()
        with contextlib.suppress(sa.SegmentNotFoundError):
            sa.unlink(self.name)
        del self.ground, self.slope, self.shade, self.scratch

    @property
    def lanes(self) -> int:
        return len(self.pool.workers)

    @property
    def plain_ground(self) -> np.ndarray:
        """The same pages for the peers, as an ordinary array."""
        return np.asarray(self.ground)

    # -- the steps ------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Tile the terrain into the named array, and compile everything on a few rows of it."""
        report = self.report
        with report.step(f"fill the shared array {self.name!r} with the mosaic"):
            fill_mosaic(self.plain_ground, self.terrain.metres)
            report.check(
                "every tile of the mosaic is the terrain, mirrored",
                shows_terrain(self.plain_ground, self.terrain.metres),
                f"{self.plan.tiles[0]} x {self.plan.tiles[1]} tiles",
            )
        with report.step("compile the kernels: ours once for all processes, and the peers'"):
            slope, shade, soft_shade = loops(*self.cell_ft, EXAGGERATION)
            self._soft_shade: Any = lambda suns: over_chunks(soft_shade(suns), np.uint8)
            self._run_slope = over_chunks(slope, np.float32)
            self._run_shade = over_chunks(shade, np.uint8)
            self.numpy = NumpyPeer(*self.cell_ft, EXAGGERATION)
            self.threads = ThreadsPeer(slope, shade, self.lanes)
            self._warm_up()

    def _warm_up(self) -> None:
        """Call everything that will be timed once, on the first rows, where it is compiled."""
        few = slice(0, 64)
        ground, slope, shade = self.ground[few], self.slope[few], self.shade[few]
        plain, out = np.asarray(ground), np.asarray(shade)
        self.threads.slope(plain, self.scratch[few])
        self.threads.shade(plain, out)
        self.threads.convert(self.scratch[few], self.factor)
        self.threads.statistics(plain)
        self.threads.count_steep(np.asarray(slope), STEEP_DEG)
        if self.ahead is not None:  # ours it has compiled meanwhile, on the other core
            self.ahead.wait()
        self._run_slope(ground, out=slope)
        self._run_shade(ground, out=shade)
        self.count_steep = steep_counter()
        self.count_steep(slope)

    def copy(self) -> None:
        """Measure what this machine can copy: the yardstick of the table."""
        with self.report.step("measure the copy bandwidth on all cores"):
            pages = np.asarray(self.slope)
            self.report.copy_bandwidth = copy_bandwidth(self.plain_ground, pages)
        self.report.say(f"{self.report.copy_bandwidth / 1e9:.1f} GB/s, read and written")

    def convert(self) -> None:
        """Metres to feet, in place: the plain NumPy operator, on all cores."""
        report, ground, plain, scratch = self.report, self.ground, self.plain_ground, self.scratch
        with report.step("convert the heights from metres, as SRTM has them, to feet in place"):
            address = plain.ctypes.data
            np.copyto(scratch, plain)

            def ours() -> None:
                np.multiply(ground, self.factor, out=ground)

            report.comparisons.append(
                compare(
                    "metres to feet, in place",
                    2 * plain.nbytes,
                    before=lambda: np.copyto(plain, scratch),
                    contestants={
                        "NumPy": lambda: self.numpy.convert(plain, self.factor),
                        "numba threads": lambda: self.threads.convert(plain, self.factor),
                        "shmarray": ours,
                    },
                )
            )
            np.multiply(scratch, self.factor, out=scratch)
            report.check(
                "the conversion in place gives NumPy's bits, at the same address",
                self.plain_ground.ctypes.data == address and same_bits(plain, scratch),
            )
        highest = float(self.terrain.metres.max())
        report.say(f"the highest cell: {highest:.0f} m = {float(np.max(plain[:344])):.0f} ft")

    def derive(self) -> None:
        """Slope and hillshade: a kernel with a halo of one cell, across the workers."""
        report, plain = self.report, self.plain_ground
        slope, shade = np.asarray(self.slope), np.asarray(self.shade)
        inner = np.s_[1:-1, 1:-1]
        with report.step("slope of the ground in degrees, from the eight neighbours of each cell"):
            report.comparisons.append(
                compare(
                    "slope (halo 1, arctan)",
                    2 * plain.nbytes,
                    contestants={
                        "NumPy": lambda: self.numpy.slope(plain, self.scratch[inner]),
                        "numba threads": lambda: self.threads.slope(plain, slope),
                        "shmarray": lambda: self._run_slope(self.ground, out=self.slope),
                    },
                )
            )
            write_edges(self.numpy.slope, plain, self.scratch)
            worst = largest_difference(slope, self.scratch)
            report.check(
                "the slope is NumPy's to a thousandth of a degree, across all chunk borders",
                worst <= 1e-3,
                f"largest difference {worst:.1e} degrees",
            )
        with report.step("hillshade, lit from the north-west"):
            theirs = self.scratch.view(np.uint8)[:, : plain.shape[1]]
            report.comparisons.append(
                compare(
                    "hillshade (halo 1)",
                    plain.nbytes + shade.nbytes,
                    contestants={
                        "NumPy": lambda: self.numpy.shade(plain, theirs[inner]),
                        "numba threads": lambda: self.threads.shade(plain, shade),
                        "shmarray": lambda: self._run_shade(self.ground, out=self.shade),
                    },
                )
            )
            write_edges(self.numpy.shade, plain, theirs)
            worst = largest_difference(shade, theirs)
            report.check(
                "the hillshade is NumPy's within one grey level of 255",
                worst <= 1,
                f"largest difference {worst:.0f}",
            )

    def statistics(self) -> None:
        """Statistics by reductions: NumPy's names, and a fold of our own."""
        report, ground, plain = self.report, self.ground, self.plain_ground
        found: dict[str, Any] = {}

        def ours() -> None:
            found["all"] = (np.mean(ground), np.std(ground), np.min(ground), np.max(ground))

        def fold() -> None:
            found["steep"] = self.count_steep(self.slope)

        steep = np.asarray(self.slope)
        with report.step("statistics: mean, std, min, max, and a count by a reduction of our own"):
            report.comparisons.append(
                compare(
                    "mean, std, min, max",
                    4 * plain.nbytes,
                    contestants={
                        "NumPy": lambda: self.numpy.statistics(plain),
                        "numba threads": lambda: self.threads.statistics(plain),
                        "shmarray": ours,
                    },
                )
            )
            report.comparisons.append(
                compare(
                    f"cells steeper than {STEEP_DEG:.0f} degrees",
                    plain.nbytes,
                    contestants={
                        "NumPy": lambda: self.numpy.count_steep(steep, float(STEEP_DEG)),
                        "numba threads": lambda: self.threads.count_steep(steep, STEEP_DEG),
                        "shmarray": fold,
                    },
                )
            )
            mean, std, lowest, highest = (float(value) for value in found["all"])
            true_mean, true_std, true_lowest, true_highest = exact_statistics(plain)
            held = math.isclose(mean, true_mean, rel_tol=1e-6) and math.isclose(std, true_std, rel_tol=1e-5)
            report.check(
                "the statistics are those of a double-precision sum",
                held and (lowest, highest) == (true_lowest, true_highest),
                f"mean {mean:.2f} ft, std {std:.2f}, min {lowest:.1f}, max {highest:.1f}",
            )
            expected = self.numpy.count_steep(steep, float(STEEP_DEG))
            report.check(
                f"a fold counts the cells steeper than {STEEP_DEG:.0f} degrees exactly",
                int(found["steep"]) == expected,
                f"{100 * expected / plain.size:.1f} % of the ground",
            )

    def neighbour(self) -> None:
        """A second, unrelated program opens the array by its name and changes it."""
        report, plain = self.report, self.plain_ground
        with report.step("a second program opens the array by name and raises the ground"):
            np.add(plain, np.float32(_RISE), out=self.scratch)
            command = [sys.executable, "-m", "shmarray.cli.demo.neighbour", self.name, str(_RISE)]
            environment = {**os.environ, "SHMARRAY_NAMESPACE": sa.config.namespace}
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
            )
            if done.returncode:
                report.check("the second program opens the array", False, done.stderr.strip()[-400:])
                return
            seen = json.loads(done.stdout)
            report.check(
                "what the second program wrote is here, every cell of it",
                same_bits(plain, self.scratch),
                f"process {seen['pid']} raised the ground by {_RISE:.0f} ft",
            )
            report.check(
                "both programs map the same pages, says the kernel",
                seen["backing"] == backing_of(plain),
                f"device:inode {seen['backing']}",
            )
            growth = int(seen["private_growth_nbytes"])
            allowed = max(plain.nbytes // 20, 12_000_000)  # an interpreter that works grows by some megabytes
            report.check(
                "the second program copied nothing",
                growth < allowed,
                f"private memory grew by {format_nbytes(growth)}; it changed {format_nbytes(plain.nbytes)}",
            )

    def kill(self) -> None:
        """A worker is killed in the middle of a step; the result must be that of an undisturbed one."""
        report = self.report
        with report.step("kill a worker with SIGKILL in the middle of a step"):
            out = sa.empty(self.plan.shape, np.uint8)
            suns, landed = SUNS, None
            while True:
                step = self._soft_shade(suns)
                step(self.ground, out=self.shade)
                out[...] = 0
                disturbed = functools.partial(step, self.ground, out=out)
                landed = run_and_kill(self.pool, disturbed, np.asarray(out))
                if landed is not None or suns >= _MOST_SUNS:
                    break
                suns *= 4
            report.check(
                "a worker was killed while the step ran, and has been replaced",
                landed is not None and is_replaced(self.pool, landed, self.lanes),
                "no step was long enough" if landed is None else f"process {landed}",
            )
            report.check(
                "the result is exact all the same, bit for bit",
                same_bits(np.asarray(out), np.asarray(self.shade)),
                f"{out.size:,} cells lit by {suns} suns",
            )
            del disturbed, out

    def draw(self, path: Path) -> None:
        """Write the hillshade as a picture."""
        with self.report.step(f"draw the relief into {path}"):
            write_picture(
                path,
                self.plain_ground,
                np.asarray(self.shade),
                np.asarray(self.slope),
                tile=self.terrain.metres.shape,
                cell_m=(self.terrain.cell_x_m, self.terrain.cell_y_m),
            )
            with path.open("rb") as file:
                signature = file.read(8)
            self.report.check(
                "the picture is written",
                signature == b"\x89PNG\r\n\x1a\n",
                format_nbytes(path.stat().st_size),
            )


def left_behind(report: Report, before: set[str | None]) -> None:
    """Ask `shmarray ls`, in a process of its own, what is left; nothing may be that was not there before."""
    with report.step("shmarray ls"):
        command = [sys.executable, "-m", "shmarray.cli", "ls"]
        start = functools.partial(
            subprocess.Popen,
            env={**os.environ, "SHMARRAY_NAMESPACE": sa.config.namespace},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with start(command) as people, start([*command, "--json"]) as programs:
            shown, _ = people.communicate(timeout=60)
            listed, _ = programs.communicate(timeout=60)
        names = {entry["name"] for entry in json.loads(listed)} if programs.returncode == 0 else {"?"}
    for line in shown.splitlines():
        report.say(line)
    remark = "" if names <= {None} else f"{len(names & before)} of other programs were there before"
    report.check("nothing is left in shared memory", names <= before, remark)


def free_nbytes() -> int:
    """Bytes of shared memory that may still be reserved."""
    return int(registry.usage().free)


def names_now() -> set[str | None]:
    """The names in the namespace now: those of other programs, before the demonstration begins."""
    return {entry.name for entry in registry.list()}
