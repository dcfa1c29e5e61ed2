"""What the demonstration works on: real terrain, as large as the free shared memory allows.

The terrain is `jacksboro_fault_dem.npz`, which matplotlib ships as sample data: a piece of the SRTM elevation
model around the Jacksboro fault in Tennessee, 344 x 403 cells of 3 arc seconds, in whole metres. Mirrored
tiles of it make a mosaic without cliffs at the seams.

Invariant: a mosaic is whole tiles, at least one, and everything the demonstration allocates for it fits into
what was free when it was planned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FEET_PER_METRE", "MosaicPlan", "Terrain", "fill_mosaic", "load_terrain", "plan_mosaic"]

#: The international foot is 0.3048 m exactly.
FEET_PER_METRE = 1 / 0.3048

#: Metres in a degree of latitude, and in one of longitude at the equator.
_METRES_PER_DEGREE = 111_200.0

#: Shared bytes the demonstration holds at its fullest for each byte of the mosaic: the elevations and the
#: slope in float32, the shade and two versions of the soft shade in one byte each: (4 + 4 + 3 * 1) / 4.
SHARED_PER_MOSAIC_BYTE = 2.75

#: What is left to the other programs of the machine.
_SHARE_OF_FREE = 0.85


@dataclass(frozen=True, slots=True, eq=False)
class Terrain:
    """An elevation model: heights in metres, and the size of a cell on the ground in metres."""

    metres: npt.NDArray[np.int16]
    cell_x_m: float
    cell_y_m: float


@dataclass(frozen=True, slots=True)
class MosaicPlan:
    """How many tiles of a terrain there are to be, and whether that is what was asked for."""

    tiles: tuple[int, int]
    shape: tuple[int, int]
    asked_nbytes: int
    free_nbytes: int
    reduced: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(np.float32).itemsize


def load_terrain() -> Terrain:
    """The elevation model from matplotlib's sample data.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is missing.
    """
    from matplotlib import cbook

    sample: Any = cbook.get_sample_data("jacksboro_fault_dem.npz")
    metres = np.ascontiguousarray(sample["elevation"], dtype=np.int16)
    latitude = (float(sample["ymin"]) + float(sample["ymax"])) / 2
    return Terrain(
        metres=metres,
        cell_x_m=float(sample["dx"]) * _METRES_PER_DEGREE * math.cos(math.radians(latitude)),
        cell_y_m=float(sample["dy"]) * _METRES_PER_DEGREE,
    )


def plan_mosaic(tile: tuple[int, int], nbytes: int, free_nbytes: int) -> MosaicPlan:
    """A nearly square mosaic of whole tiles: about `nbytes` of float32, or less where less is free.

    Parameters
    ----------
    tile : tuple of int
        Rows and columns of one tile.
    nbytes : int
        Bytes the mosaic should take.
    free_nbytes : int
        Shared memory that may still be reserved.

    Examples
    --------
    >>> plan_mosaic((344, 403), 400_000_000, 10**12).shape
    (9976, 10075)
    >>> plan_mosaic((344, 403), 400_000_000, 64_000_000).reduced
    True
    """
    fitting = int(free_nbytes * _SHARE_OF_FREE / SHARED_PER_MOSAIC_BYTE)
    budget = min(nbytes, fitting)
    rows, columns = tile
    cells = budget / np.dtype(np.float32).itemsize
    across = max(1, round(math.sqrt(cells) / columns))
    down = max(1, round(cells / (across * columns) / rows))
    if across * down * rows * columns * 4 > fitting:  # rounding up is welcome, but not past what is there
        down = max(1, int(cells / (across * columns) / rows))
    return MosaicPlan(
        tiles=(down, across),
        shape=(down * rows, across * columns),
        asked_nbytes=nbytes,
        free_nbytes=free_nbytes,
        reduced=fitting < nbytes,
    )


def fill_mosaic(out: npt.NDArray[np.float32], tile: npt.NDArray[np.int16]) -> None:
    """Write mirrored copies of `tile` all over `out`, whose shape is a multiple of the tile's."""
    rows, columns = tile.shape
    straight = np.empty((rows, out.shape[1]), dtype=np.float32)
    for across, start in enumerate(range(0, out.shape[1], columns)):
        straight[:, start : start + columns] = tile[:, ::-1] if across % 2 else tile
    for down, start in enumerate(range(0, out.shape[0], rows)):
        out[start : start + rows] = straight[::-1] if down % 2 else straight


def shows_terrain(mosaic: npt.NDArray[np.float32], tile: npt.NDArray[np.int16]) -> bool:
    """Whether every tile of a mosaic in metres is the terrain, mirrored as its place demands."""
    rows, columns = tile.shape
    for down, top in enumerate(range(0, mosaic.shape[0], rows)):
        for across, left in enumerate(range(0, mosaic.shape[1], columns)):
            here = mosaic[top : top + rows, left : left + columns]
            there = tile[:: -1 if down % 2 else 1, :: -1 if across % 2 else 1]
            if not np.array_equal(here, there):
                return False
    return True
