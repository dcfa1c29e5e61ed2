"""The second program of the demonstration: it opens an array by name and changes it, with no copy.

Run as `python -m shmarray.cli.demo.neighbour NAME RISE`. It shares nothing with the first program but the
name: another interpreter, started afresh. It adds RISE to every element and prints what it saw as JSON.

That nothing was copied is the kernel's word, not ours: the device and inode that lie behind the address of
the data (/proc/self/maps), and the private memory of the process (RssAnon) before and after every page was
touched.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np

import shmarray as sa

__all__ = ["backing_of", "private_nbytes"]


def backing_of(array: np.ndarray) -> str:
    """What the kernel maps at the address of an array's data, as `device:inode`."""
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            span, _permissions, _offset, device, inode = line.split(maxsplit=5)[:5]
            first, _, last = span.partition("-")
            if int(first, 16) <= address < int(last, 16):
                return f"{device}:{inode}"
    raise LookupError(f"nothing is mapped at {address:#x}")


def private_nbytes() -> int:
    """Bytes of private memory that this process has touched (RssAnon)."""
    with open("/proc/self/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise LookupError("this kernel's /proc/self/status tells no RssAnon")


def raise_ground(name: str, rise: float) -> dict[str, object]:
    """Open the array called `name`, add `rise` to every element in place, and report."""
    before = private_nbytes()
    ground = sa.open(name)
    pages = np.asarray(ground)  # plain NumPy on the same memory: an unrelated program needs no workers
    corner = float(pages[0, 0])
    np.add(pages, pages.dtype.type(rise), out=pages)
    return {
        "pid": os.getpid(),
        "backing": backing_of(pages),
        "corner_before": corner,
        "corner_after": float(pages[0, 0]),
        "private_growth_nbytes": private_nbytes() - before,
    }


if __name__ == "__main__":
    print(json.dumps(raise_ground(sys.argv[1], float(sys.argv[2]))))
