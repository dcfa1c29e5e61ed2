"""The hillshade as a picture: one tile of the terrain in full, and the whole mosaic it is a part of.

The relief is the elevation in colours, multiplied by the shade that the workers computed. The mosaic has more
cells than a picture has dots, so each of its dots is the mean of the cells it covers: taking every n-th cell
instead would show patterns that are not in the ground.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shmarray.cli.demo.data import FEET_PER_METRE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["block_mean", "write_picture"]

#: Heights in feet where the colours of the map change hue, low to high, and the colours: valley green to bare
#: rock.
_TINTS = ("#5b8c5a", "#8fae6b", "#c9c78a", "#d9b678", "#b98a5e", "#a27d67", "#d8cfc4", "#f7f4ef")

#: Dots along the longer side of the small map of the whole mosaic.
_OVERVIEW_DOTS = 480

#: The page, in inches.
_WIDTH, _HEIGHT = 11.2, 8.35

_INK = "#2b2b2b"


def block_mean(cells: npt.NDArray[Any], factor: int) -> npt.NDArray[np.float32]:
    """The mean of each `factor` x `factor` block; rows and columns that fill no block are left out.

    Examples
    --------
    >>> block_mean(np.array([[0, 2, 9], [4, 6, 9]], dtype=np.uint8), 2)
    array([[3.]], dtype=float32)
    """
    rows, columns = (length // factor for length in cells.shape)
    whole = cells[: rows * factor, : columns * factor]
    out = np.empty((rows, columns), dtype=np.float32)
    for row in range(rows):  # one band at a time: no copy of the mosaic
        band = whole[row * factor : (row + 1) * factor].reshape(factor, columns, factor)
        out[row] = band.mean(axis=(0, 2), dtype=np.float32)
    return out


def write_picture(
    path: Path,
    heights_ft: npt.NDArray[np.float32],
    shade: npt.NDArray[np.uint8],
    slope_deg: npt.NDArray[np.float32],
    *,
    tile: tuple[int, int],
    cell_m: tuple[float, float],
) -> None:
    """Write the picture as PNG.

    Parameters
    ----------
    path : Path
        The file; its folder must exist.
    heights_ft, shade, slope_deg : ndarray
        The mosaic and what was derived from it, same shape.
    tile : tuple of int
        Rows and columns of one tile: the first one is shown in full.
    cell_m : tuple of float
        Extent of a cell to the east and to the south, in metres.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure

    rows, columns = tile
    one = np.s_[:rows, :columns]
    low, high = (float(bound) for bound in np.percentile(heights_ft[one], (0.5, 99.8)))
    colours = LinearSegmentedColormap.from_list("relief", _TINTS)
    scale = Normalize(low, high)

    def relief(heights: npt.NDArray[np.float32], light: npt.NDArray[Any]) -> Any:
        # Shade multiplies the tint (as ink does), softened so that the dark slopes keep their colour.
        lit = 0.25 + 0.95 * (light / np.float32(255)) ** 1.15
        return np.clip(colours(scale(heights))[..., :3] * lit[..., None], 0, 1)

    # A figure of its own, not pyplot's: no display is looked for and no state is left behind.
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=130, facecolor="#fbfaf7")
    FigureCanvasAgg(figure)
    tall = rows * cell_m[1] / (columns * cell_m[0])  # height of a tile's panel by its width

    def panel(left: float, top: float, width: float, height: float, title: str) -> Axes:
        """Axes at a place in inches from the upper left corner, with a title and nothing else around."""
        axes = figure.add_axes((left / _WIDTH, 1 - (top + height) / _HEIGHT, width / _WIDTH, height / _HEIGHT))
        axes.set_title(title, loc="left", fontsize=9.5, color=_INK)
        axes.set_axis_off()
        return axes

    main_height = 7.35
    main = panel(0.35, 0.6, main_height / tall, main_height, "")
    main.imshow(relief(heights_ft[one], shade[one]), aspect="auto", interpolation="bicubic")
    main.set_title("Jacksboro fault, Tennessee", loc="left", fontsize=17, fontweight="bold", color=_INK)
    bar = 10_000 / cell_m[0]
    main.plot([14, 14 + bar], [rows - 12] * 2, color="white", linewidth=4, solid_capstyle="butt")
    main.text(14 + bar / 2, rows - 18, "10 km", color="white", ha="center", fontsize=11, fontweight="bold")

    left = 0.35 + main_height / tall + 0.45
    width = _WIDTH - left - 0.35
    height = width * tall
    slopes = panel(left, 0.6, width, height, "slope, 0 (dark) to 30 degrees (bright)")
    slopes.imshow(slope_deg[one], aspect="auto", cmap="inferno", vmin=0, vmax=30)

    across, down = (length // size for length, size in zip(heights_ft.shape[::-1], (columns, rows), strict=True))
    factor = max(1, -(-max(heights_ft.shape) // _OVERVIEW_DOTS))
    title = f"all {down} x {across} mirrored tiles: {heights_ft.shape[0]:,} x {heights_ft.shape[1]:,} cells"
    overview = panel(left, 0.6 + height + 0.45, width, main_height - height - 0.45 - 0.6, title)
    small = relief(block_mean(heights_ft, factor), block_mean(shade, factor))
    overview.imshow(small, aspect=cell_m[1] / cell_m[0], interpolation="nearest")
    overview.set_anchor("NW")
    frame = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows], [0, 0]], dtype=np.float64) / factor - 0.5
    overview.plot(frame[:, 0], frame[:, 1], color="#c1272d", linewidth=1.5, clip_on=False)

    key = figure.add_axes((left / _WIDTH, 1 - (0.6 + main_height - 0.22) / _HEIGHT, width / _WIDTH, 0.12 / _HEIGHT))
    legend = figure.colorbar(ScalarMappable(scale, colours), cax=key, orientation="horizontal")
    legend.set_label(f"elevation in feet (1,000 ft = {1000 / FEET_PER_METRE:.0f} m)", fontsize=8.5, color=_INK)
    legend.ax.tick_params(labelsize=7.5, colors=_INK)
    legend.outline.set_visible(False)
    figure.savefig(path, format="png")
