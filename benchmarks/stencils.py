"""How fast are filters and stencils over 5000 x 4000 float32?

A gaussian of sigma 3 is the figure that matters; beside it other filters against scipy.ndimage, and a laplacian written
as a stencil against the same loop in numba, by threads, over the very same pages. Every result is compared with the
peer's before anything is timed.
"""

from __future__ import annotations

import numba
import numpy as np
from harness import Contestant, Suite, arguments
from scipy import ndimage

import shmarray as sa


@sa.stencil(halo=1, mode="reflect")
def laplacian(u):  # type: ignore[no-untyped-def]
    return u[-1, 0] + u[1, 0] + u[0, -1] + u[0, 1] - np.float32(4) * u[0, 0]


@numba.njit(parallel=True)
def laplacian_threads(u, out):  # type: ignore[no-untyped-def]
    rows, columns = u.shape
    for i in numba.prange(rows):
        up, down = max(i - 1, 0), min(i + 1, rows - 1)
        for j in range(1, columns - 1):
            out[i, j] = u[up, j] + u[down, j] + u[i, j - 1] + u[i, j + 1] - np.float32(4) * u[i, j]
        for j in (0, columns - 1):
            left, right = max(j - 1, 0), min(j + 1, columns - 1)
            out[i, j] = u[up, j] + u[down, j] + u[i, left] + u[i, right] - np.float32(4) * u[i, j]


def main() -> None:
    options = arguments(
        __doc__,
        rows={"type": int, "default": 5000, "help": "rows (5000)"},
        columns={"type": int, "default": 4000, "help": "columns (4000)"},
    )
    suite = Suite(f"filters over {options.rows} x {options.columns} float32", options)
    lanes = len(sa.get_pool().workers)
    numba.set_num_threads(min(lanes, numba.config.NUMBA_NUM_THREADS))
    plain = np.random.default_rng(0).random((options.rows, options.columns), dtype=np.float32)
    shared, out, result = sa.array(plain), sa.zeros(plain.shape, dtype="float32"), np.zeros_like(plain)
    pages, target = np.asarray(shared), np.asarray(out)
    ops = sa.ops
    cases = {
        "gaussian, sigma 3": (
            lambda: ops.gaussian_filter(shared, 3, out=out),
            lambda: ndimage.gaussian_filter(plain, 3, output=result),
        ),
        "uniform, 5 x 5": (
            lambda: ops.uniform_filter(shared, 5, out=out),
            lambda: ndimage.uniform_filter(plain, 5, output=result),
        ),
        "maximum, 9 x 9": (
            lambda: ops.maximum_filter(shared, 9, out=out),
            lambda: ndimage.maximum_filter(plain, 9, output=result),
        ),
        "median, 3 x 3": (
            lambda: ops.median_filter(shared, 3, out=out),
            lambda: ndimage.median_filter(plain, 3, output=result),
        ),
    }
    for name, (ours, scipys) in cases.items():
        ours(), scipys()
        np.testing.assert_allclose(target, result, rtol=1e-5, atol=1e-6, err_msg=name)
        suite.run(name, [Contestant("shmarray", ours), Contestant("scipy.ndimage", scipys)], rounds=7, warm_up=1)

    ours, threads = (lambda: laplacian(shared, out=out)), (lambda: laplacian_threads(pages, result))
    ours(), threads()
    np.testing.assert_allclose(target, result, atol=1e-5, err_msg="laplacian")
    copying = Contestant("np.copyto, one core", lambda: np.copyto(result, pages))
    contestants = [Contestant("shmarray @stencil", ours), Contestant("numba prange, same pages", threads), copying]
    suite.run("laplacian", contestants, rounds=15)
    suite.report()


if __name__ == "__main__":
    main()
