"""The arithmetic of the demonstration, as loops that numba compiles.

Slope and shade follow Horn's method (B. K. P. Horn, "Hill shading and the reflectance map", Proc. IEEE 69,
1981), as GDAL and ArcGIS do: a gradient from the eight neighbours, weighted 1-2-1. The shade needs no angle,
since the cosine of the angle between the ground and the sun is a scalar product of their unit vectors.

Invariant: one loop serves the workers and the threads, so that a difference in time is one of the machinery
(and of how `arctan` is computed). Every number in the loops is a float32: a literal would make numba compute
in float64.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

import shmarray as sa

__all__ = ["EXAGGERATION", "STEEP_DEG", "SUNS", "Light", "Loop", "loops", "over_chunks", "steep_counter", "suns"]

#: A loop over the rows `first:last` of `ground` that writes the same rows of `out`. Beyond the edges of
#: `ground`, its outermost cells go on.
Loop = Callable[[Any, Any, int, int], None]


#: Heights are stretched by this for the shade: the cells are 90 m wide, and the hills are old and round.
EXAGGERATION = 2.5

#: Ground steeper than this counts as steep.
STEEP_DEG = np.float32(20)

#: Directions of the soft light.
SUNS = 8

_compiled: Any = numba.njit(error_model="numpy", nogil=True)


@dataclass(frozen=True, slots=True)
class Light:
    """A direction to a light as a unit vector: x to the east, y to the south (down the rows), z up."""

    x: float
    y: float
    z: float

    @classmethod
    def at(cls, azimuth_deg: float, altitude_deg: float) -> Light:
        """The light at a compass bearing and a height above the horizon, in degrees.

        Examples
        --------
        >>> Light.at(90, 0).x
        1.0
        """
        azimuth, altitude = math.radians(azimuth_deg), math.radians(altitude_deg)
        flat = math.cos(altitude)
        return cls(math.sin(azimuth) * flat, -math.cos(azimuth) * flat, math.sin(altitude))


def suns(count: int) -> tuple[Light, ...]:
    """Lights all round the sky, the north-west ones first in number: a soft light that still models relief.

    Bearings are spread evenly over 260 degrees around 315, as in multidirectional hillshades.
    """
    return tuple(Light.at(315 + 260 * (k / max(1, count - 1) - 0.5), 30 + 25 * (k % 2)) for k in range(count))


def loops(cell_x: float, cell_y: float, exaggeration: float) -> tuple[Loop, Loop, Callable[[int], Loop]]:
    """The loops, compiled when called, for ground whose cells have this size in the unit of the heights.

    Parameters
    ----------
    cell_x, cell_y : float
        Extent of a cell along a row and down a column.
    exaggeration : float
        By how much heights are stretched for the shade (not for the slope).

    Returns
    -------
    slope, shade, soft_shade
        `slope` writes degrees as float32; `shade` writes 0 to 255 as uint8; `soft_shade(count)` is a
        loop that writes the mean shade of `count` suns: the same gradient, and as much arithmetic as one
        likes.
    """
    per_x, per_y = np.float32(1 / (8 * cell_x)), np.float32(1 / (8 * cell_y))
    stretch_x, stretch_y = np.float32(exaggeration / (8 * cell_x)), np.float32(exaggeration / (8 * cell_y))
    degrees = np.float32(180 / math.pi)
    one, half, zero, white = np.float32(1), np.float32(0.5), np.float32(0), np.float32(255)
    sun = Light.at(315, 45)
    sun_x, sun_y, sun_z = np.float32(sun.x), np.float32(sun.y), np.float32(sun.z)

    @_compiled
    def slope_of(east, south):  # type: ignore[no-untyped-def]
        rise_x, rise_y = east * per_x, south * per_y
        return np.arctan(np.sqrt(rise_x * rise_x + rise_y * rise_y)) * degrees

    @_compiled
    def shade_of(east, south):  # type: ignore[no-untyped-def]
        rise_x, rise_y = east * stretch_x, south * stretch_y
        lit = (sun_z - rise_x * sun_x - rise_y * sun_y) / np.sqrt(rise_x * rise_x + rise_y * rise_y + one)
        return np.uint8(max(lit, zero) * white + half)

    def soft_shade(count: int) -> Loop:
        lights = tuple((np.float32(light.x), np.float32(light.y), np.float32(light.z)) for light in suns(SUNS))
        turns = count // SUNS
        share = np.float32(1 / (turns * SUNS))

        @_compiled
        def soft_shade_of(east, south):  # type: ignore[no-untyped-def]
            rise_x, rise_y = east * stretch_x, south * stretch_y
            lit = zero
            for turn in range(turns):
                # Each turn lowers the lights a little, so that none can be left out as a repetition.
                dim = np.float32(turn) * np.float32(1e-3)
                for light in lights:
                    lit += max(light[2] - dim - rise_x * light[0] - rise_y * light[1], zero)
            lit *= share / np.sqrt(rise_x * rise_x + rise_y * rise_y + one)
            return np.uint8(min(lit * white + half, white))

        return _over_rows(soft_shade_of)  # type: ignore[no-any-return]

    return _over_rows(slope_of), _over_rows(shade_of), soft_shade


def _over_rows(value: Any) -> Any:
    """The loop that writes `value(eastward rise, southward rise)` of each cell; both in eighths of a cell."""

    @_compiled
    def rises(north, here, south, west, j, east):  # type: ignore[no-untyped-def]
        right = north[east] + here[east] + here[east] + south[east]
        left = north[west] + here[west] + here[west] + south[west]
        below = south[west] + south[j] + south[j] + south[east]
        above = north[west] + north[j] + north[j] + north[east]
        return right - left, below - above

    @_compiled
    def loop(ground, out, first, last):  # type: ignore[no-untyped-def]
        rows, columns = ground.shape
        end = columns - 1
        for i in range(first, last):
            north, here, south = ground[max(i - 1, 0)], ground[i], ground[min(i + 1, rows - 1)]
            line = out[i]
            x, y = rises(north, here, south, 0, 0, min(1, end))
            line[0] = value(x, y)
            # Counted from 0, so that numba sees that no index is negative: otherwise the loop does not
            # vectorise.
            for west in range(end - 1):
                x, y = rises(north, here, south, west, west + 1, west + 2)
                line[west + 1] = value(x, y)
            x, y = rises(north, here, south, max(end - 1, 0), end, end)
            line[end] = value(x, y)

    return loop


def over_chunks(loop: Loop, dtype: Any) -> Any:
    """A kernel of a mosaic that runs a loop on every chunk, with a margin of one cell."""

    def run(ground: Any, chunk_info: Any) -> Any:
        # The margin is cut off by the library; at the edges of the mosaic there is none, and the loop copes.
        out = np.empty(ground.shape, dtype)
        loop(ground, out, chunk_info.before[0], ground.shape[0] - chunk_info.after[0])
        return out

    return sa.chunkwise(run, halo=1)


def steep_counter() -> Any:
    """A reduction that counts the cells steeper than `STEEP_DEG`."""
    limit = STEEP_DEG

    def count_steep(count: Any, degrees: Any) -> Any:
        return count + (degrees > limit)

    return sa.reduction(count_steep, identity=0, combine=operator.add)
