"""The second compiler of the demonstration: it has our kernels compiled while the first program compiles the peers'.

Run as `python -m shmarray.cli.demo.ahead CELL_X CELL_Y`, by :class:`Ahead`. Machine code is kept on disk under a key of
everything that decides it, so what one process compiles every other one finds there.

Invariant: nothing depends on it. Whatever it does not leave behind, the first program compiles itself.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

import shmarray as sa
from shmarray.cli.demo.kernels import EXAGGERATION, SUNS, loops, over_chunks, steep_counter

__all__ = ["Ahead", "compile_ahead"]


class Ahead:
    """The process, from its start to its end.

    Parameters
    ----------
    cell_x, cell_y : float
        Extent of a cell in the unit of the heights, which is part of the compiled code.
    """

    def __init__(self, cell_x: float, cell_y: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "shmarray.cli.demo.ahead", repr(cell_x), repr(cell_y)],
            env={**os.environ, "SHMARRAY_NAMESPACE": sa.config.namespace, "SHMARRAY_WORKERS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        """Until it is done, well or not."""
        self._process.wait()

    def close(self) -> None:
        """End it, if it is not done."""
        self._process.terminate()
        self._process.wait()


def compile_ahead(cell_x: float, cell_y: float) -> None:
    """Call each kernel on a few rows, where it is compiled."""
    ground = sa.zeros((64, 64), np.float32)
    slope, shade, soft_shade = loops(cell_x, cell_y, EXAGGERATION)
    degrees = over_chunks(slope, np.float32)(ground)
    steep_counter()(degrees)
    over_chunks(shade, np.uint8)(ground)
    over_chunks(soft_shade(SUNS), np.uint8)(ground)


if __name__ == "__main__":
    compile_ahead(float(sys.argv[1]), float(sys.argv[2]))
