"""The same steps in plain NumPy and in numba's threads, on the same pages: what ours is compared with.

NumPy works through blocks of rows that fit into a core's cache: faster than the usual whole-array
expressions, and without their temporaries of the array's size. The threads run the very loops that our
workers run.

Invariant: no handicap. Peers write into memory that has been touched before, and are compiled before they are
timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np

from shmarray.cli.demo.kernels import Light, Loop

__all__ = ["NumpyPeer", "ThreadsPeer", "write_edges"]

#: Rows that the NumPy peer and each bite of a thread take at a time.
_ROWS = 16


def _blocks(rows: int, step: int = _ROWS) -> Iterator[tuple[int, int]]:
    return ((first, min(first + step, rows)) for first in range(0, rows, step))


class NumpyPeer:
    """Each step as NumPy expressions, a block of rows at a time."""

    def __init__(self, cell_x: float, cell_y: float, exaggeration: float) -> None:
        self._per = np.float32(1 / (8 * cell_x)), np.float32(1 / (8 * cell_y))
        self._stretch = np.float32(exaggeration / (8 * cell_x)), np.float32(exaggeration / (8 * cell_y))
        self._sun = Light.at(315, 45)

    @staticmethod
    def _gradient(ground: np.ndarray, per: tuple[np.float32, np.float32]) -> tuple[np.ndarray, np.ndarray]:
        """Horn's gradient of the inner cells of a block that has a margin of one."""
        upper, middle, lower = ground[:-2], ground[1:-1], ground[2:]
        down = upper + middle + middle + lower
        rise_x = (down[:, 2:] - down[:, :-2]) * per[0]
        step = lower - upper
        rise_y = (step[:, :-2] + step[:, 1:-1] + step[:, 1:-1] + step[:, 2:]) * per[1]
        return rise_x, rise_y

    def slope(self, ground: np.ndarray, out: np.ndarray) -> None:
        """Slope in degrees of the inner cells; `out` is two rows and two columns smaller than `ground`."""
        for first, last in _blocks(out.shape[0]):
            rise_x, rise_y = self._gradient(ground[first : last + 2], self._per)
            steepness = np.sqrt(rise_x * rise_x + rise_y * rise_y)
            np.multiply(np.arctan(steepness, out=steepness), np.float32(180 / math.pi), out=out[first:last])

    def shade(self, ground: np.ndarray, out: np.ndarray) -> None:
        """Hillshade of the inner cells, 0 to 255."""
        sun = self._sun
        for first, last in _blocks(out.shape[0]):
            rise_x, rise_y = self._gradient(ground[first : last + 2], self._stretch)
            lit = np.float32(sun.z) - rise_x * np.float32(sun.x) - rise_y * np.float32(sun.y)
            lit /= np.sqrt(rise_x * rise_x + rise_y * rise_y + np.float32(1))
            np.maximum(lit, np.float32(0), out=lit)
            out[first:last] = lit * np.float32(255) + np.float32(0.5)

    @staticmethod
    def convert(ground: np.ndarray, factor: np.float32) -> None:
        np.multiply(ground, factor, out=ground)

    @staticmethod
    def statistics(ground: np.ndarray) -> tuple[float, float, float, float]:
        return float(np.mean(ground)), float(np.std(ground)), float(np.min(ground)), float(np.max(ground))

    @staticmethod
    def count_steep(slope: np.ndarray, limit: float) -> int:
        return sum(int(np.count_nonzero(slope[first:last] > limit)) for first, last in _blocks(slope.shape[0]))


class ThreadsPeer:
    """Each step as a numba function with `parallel=True`.

    Parameters
    ----------
    slope, shade : Loop
        The very loops that our workers run.
    lanes : int
        Threads to use: as many as ours has lanes.
    """

    def __init__(self, slope: Loop, shade: Loop, lanes: int) -> None:
        numba.set_num_threads(min(lanes, numba.config.NUMBA_NUM_THREADS))
        self.slope = self._over_rows(slope)
        self.shade = self._over_rows(shade)
        self.convert, self.statistics, self.count_steep = _compile_threads()

    @staticmethod
    def _over_rows(loop: Loop) -> Callable[[np.ndarray, np.ndarray], None]:
        rows_a_bite = _ROWS

        @numba.njit(parallel=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
        def run(ground: Any, out: Any) -> None:
            rows = out.shape[0]
            for bite in numba.prange((rows + rows_a_bite - 1) // rows_a_bite):
                loop(ground, out, bite * rows_a_bite, min(rows, (bite + 1) * rows_a_bite))

        return run  # type: ignore[no-any-return]


def _compile_threads() -> tuple[Any, Any, Any]:
    compiled = numba.njit(parallel=True, error_model="numpy", nogil=True)

    @compiled  # type: ignore[untyped-decorator]
    def convert(ground: Any, factor: Any) -> None:
        for i in numba.prange(ground.shape[0]):
            for j in range(ground.shape[1]):
                ground[i, j] *= factor

    @compiled  # type: ignore[untyped-decorator]
    def statistics(ground: Any) -> Any:
        rows, columns = ground.shape
        total = 0.0
        lowest = np.float32(np.inf)
        highest = np.float32(-np.inf)
        for i in numba.prange(rows):
            here = 0.0
            low, high = np.float32(np.inf), np.float32(-np.inf)
            for j in range(columns):
                cell = ground[i, j]
                here += cell
                low, high = min(low, cell), max(high, cell)
            total += here
            lowest = min(lowest, low)
            highest = max(highest, high)
        mean = total / (rows * columns)
        squares = 0.0
        for i in numba.prange(rows):
            here = 0.0
            for j in range(columns):
                here += (ground[i, j] - mean) ** 2
            squares += here
        return mean, math.sqrt(squares / (rows * columns)), lowest, highest

    @compiled  # type: ignore[untyped-decorator]
    def count_steep(slope: Any, limit: Any) -> int:
        count = 0
        for i in numba.prange(slope.shape[0]):
            here = 0
            for j in range(slope.shape[1]):
                here += slope[i, j] > limit
            count += here
        return count

    return convert, statistics, count_steep


def write_edges(loop: Callable[[np.ndarray, np.ndarray], None], ground: np.ndarray, out: np.ndarray) -> None:
    """Do the outermost rows and columns, as if the border cells went on outside.

    `loop(ground, out)` writes the inner cells of its ground alone: NumPy does the inside in one go, which is
    what is timed, and the rim by this.
    """
    for rows, keep in ((slice(0, 2), 0), (slice(-2, None), -1)):
        ring = np.pad(ground[rows], ((1, 1), (1, 1)), mode="edge")
        done = np.empty((ring.shape[0] - 2, ring.shape[1] - 2), dtype=out.dtype)
        loop(ring, done)
        out[keep] = done[keep]
    for columns, keep in ((slice(0, 2), 0), (slice(-2, None), -1)):
        ring = np.pad(ground[:, columns], ((1, 1), (1, 1)), mode="edge")
        done = np.empty((ring.shape[0] - 2, ring.shape[1] - 2), dtype=out.dtype)
        loop(ring, done)
        out[:, keep] = done[:, keep]
