"""Shared memory that is full, or has no inodes left: row 18 of the fault table, on small mounts of its own."""

from __future__ import annotations

import pytest

from tests.crash.scripts import run

SMALL_MOUNT = """
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
    print("skip")
    sys.exit()
if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, sys.argv[1].encode()):
    print("skip")
    sys.exit()
from shmarray.errors import OutOfSharedMemoryError
"""


def run_small(code: str, environ: dict[str, str], options: str) -> None:
    if run(SMALL_MOUNT + code, environ, options) == "skip\n":
        pytest.skip("needs the right to mount a small tmpfs over /dev/shm in a mount namespace")


def test_row_18_a_full_dev_shm_is_an_error_and_never_a_signal(environ: dict[str, str]) -> None:
    code = """
held = []
try:
    while len(held) < 100:
        held.append(registry.create(300_000, "u1"))   # no page is touched before all are there
except OutOfSharedMemoryError as error:
    assert error.nbytes >= 300_000
    assert "/dev/shm" in str(error), error
assert len(held) >= 10
for segment in held:
    segment.buf[:] = bytes(segment.nbytes)
del segment
count = len(held)
held.clear()
# What is kept for reuse makes room.
again = made("x", 1, 3_000_000)
del again
registry.trim()
assert files() == [], files()
# A large request fails before it fills the mount.
try:
    registry.create(2**33, "u1")
except OutOfSharedMemoryError as error:
    assert error.free_nbytes >= 3_000_000, error
assert registry.usage().free >= 3_000_000
"""
    run_small(code, environ, "size=4m")


def test_row_18_without_inodes_it_is_the_same(environ: dict[str, str]) -> None:
    code = """
held = []
try:
    for i in range(100):
        held.append(made(f"n{i}", 1, 10))
except OutOfSharedMemoryError as error:
    assert error.limit
else:
    raise AssertionError
assert 1 < len(held) < 60, len(held)
held.clear()
registry.trim()
assert files() == [], files()
made("x")
"""
    run_small(code, environ, "size=4m,nr_inodes=40")


def test_row_18_a_full_dev_shm_mounted_for_huge_pages_is_an_error_too(environ: dict[str, str]) -> None:
    code = """
held = made(None, 1, 4 * 2**20)
with open("/proc/self/smaps") as file:
    text = file.read()
start = text.index(f"{held.address:x}-")
assert text.index("ShmemPmdMapped:", start) > start
held = []
try:
    while True:
        held.append(made(None, 1, 6 * 2**20))
except OutOfSharedMemoryError as error:
    assert error.nbytes >= 6 * 2**20
assert len(held) >= 2
held.clear()
registry.trim()
made("x", 3, 20 * 2**20)
"""
    run_small(code, environ, "size=32m,huge=advise")
