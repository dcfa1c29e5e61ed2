"""How fast is `2.5 * x + y * y` into an existing array, when memory is the limit?

Ours and prange work on the very same shared pages; prange, numexpr and NumPy also on private ones with huge
pages, which are faster than shared memory without them. Every result is compared with NumPy's.
"""

from __future__ import annotations

import ctypes
import mmap

import numba
import numexpr
import numpy as np
from harness import Contestant, Suite, arguments

import shmarray as sa


@sa.elementwise
def axpy(x, y):  # type: ignore[no-untyped-def]
    return 2.5 * x + y * y


@numba.njit(parallel=True, error_model="numpy")
def axpy_threads(x, y, out):  # type: ignore[no-untyped-def]
    for i in numba.prange(x.size):
        out[i] = 2.5 * x[i] + y[i] * y[i]


def private_huge(count: int) -> np.ndarray:
    """Float64 in private memory that the kernel is asked to back with huge pages, each page touched."""
    pages = mmap.mmap(-1, count * 8 + (2 << 20), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    start = -address % (2 << 20)
    array = np.frombuffer(pages, np.float64, count, start)
    array[:] = 0
    return array


def huge_kilobytes(array: np.ndarray) -> str:
    """How much of an array's memory the kernel maps with huge pages."""
    address = array.__array_interface__["data"][0]
    inside, size, huge = False, 0, 0
    with open("/proc/self/smaps", encoding="utf-8") as smaps:
        for line in smaps:
            head = line.split(maxsplit=1)[0]
            if "-" in head and not head.endswith(":"):
                first, _, last = head.partition("-")
                inside = int(first, 16) < address + array.nbytes and address < int(last, 16)
            elif inside and head == "Size:":
                size += int(line.split()[1])
            elif inside and head in ("AnonHugePages:", "ShmemPmdMapped:"):
                huge += int(line.split()[1])
    return f"{huge / max(size, 1):.0%}"


def main() -> None:
    options = arguments(__doc__, count={"type": int, "default": 20_000_000, "help": "elements (20 million)"})
    suite = Suite(f"2.5*x + y*y into out, {options.count:,} float64", options)
    lanes = len(sa.get_pool().workers)
    numba.set_num_threads(min(lanes, numba.config.NUMBA_NUM_THREADS))
    numexpr.set_num_threads(lanes)
    random = np.random.default_rng(0)
    x, y, out = (sa.empty(options.count) for _ in range(3))
    for array in (x, y):
        random.random(out=np.asarray(array))
    np.asarray(out)[:] = 0
    xs, ys, outs = np.asarray(x), np.asarray(y), np.asarray(out)
    xp, yp, outp, scratch = (private_huge(options.count) for _ in range(4))
    xp[:], yp[:] = xs, ys

    def numpy_axpy() -> None:
        # Without temporaries: the best that NumPy's own calls can do.
        np.multiply(xp, 2.5, out=outp)
        np.multiply(yp, yp, out=scratch)
        np.add(outp, scratch, out=outp)

    def numpy_expression() -> None:
        outp[:] = 2.5 * xp + yp * yp

    contestants = [
        Contestant("shmarray", lambda: axpy(x, y, out=out)),
        Contestant("numba prange, same pages", lambda: axpy_threads(xs, ys, outs)),
        Contestant("numba prange, private huge pages", lambda: axpy_threads(xp, yp, outp)),
        Contestant(
            "numexpr, private huge pages",
            lambda: numexpr.evaluate("2.5*x + y*y", {"x": xp, "y": yp}, out=outp),
        ),
        Contestant("NumPy out=, private huge pages", numpy_axpy),
        Contestant("NumPy as written, private huge pages", numpy_expression),
    ]
    expected = 2.5 * xs + ys * ys
    for contestant, result in zip(contestants, (outs, outs, outp, outp, outp, outp), strict=True):
        result[:] = 0
        contestant.run()
        np.testing.assert_allclose(result, expected, rtol=1e-15, err_msg=contestant.name)
    del expected
    found = suite.run("axpy", contestants, rounds=25)
    gigabytes = 3 * 8 * options.count / 1e9
    for name, result in found.items():
        suite.note(f"GB/s, {name}", round(gigabytes / result.median, 1))
    suite.note("huge pages behind the shared arrays", huge_kilobytes(xs))
    suite.note("huge pages behind the private arrays", huge_kilobytes(xp))
    suite.report()


if __name__ == "__main__":
    main()
