"""Files that are no segments, or that others take away: rows 26, 48 and 51 of the fault table."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import shmarray as sa
from shmarray import registry
from shmarray.errors import SegmentAccessError, SegmentExistsError, SegmentNotFoundError, ShmArrayError
from shmarray.registry import names
from shmarray.segment.descriptor import DESCRIPTOR_NBYTES
from shmarray.segment.mapping import DIRECTORY
from tests.conftest import segment_files
from tests.crash.pages import SEEDS, page_of, path_of, plant
from tests.crash.prelude import PRELUDE
from tests.processes import holding, run_python


@pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo", "directory", "foreign uid", "mode 0666", "socket"])
def test_row_26_what_is_planted_is_refused_by_every_operation_and_hangs_none(
    namespace: str, kind: str, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    path = path_of(namespace, "x")
    if kind == "symlink":
        path.symlink_to(target)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        plant(namespace, "x", page_of(SEEDS[0]), bytes(DESCRIPTOR_NBYTES))
        if kind == "foreign uid":
            if os.geteuid():
                path.unlink()
                pytest.skip("needs root, to give a file away")
            os.chown(path, 65534, 65534)
        else:
            os.chmod(path, 0o666)
    try:
        for attempt in (lambda: sa.open("x"), lambda: sa.open("x", "r"), lambda: registry.info("x")):
            with pytest.raises(SegmentAccessError, match="x"):
                attempt()
        with pytest.raises(SegmentExistsError):
            sa.zeros(3, name="x")
        with pytest.raises(SegmentAccessError):
            sa.zeros(3, name="x", if_exists="open")
        assert registry.list() == []
        assert registry.gc() == []
        assert os.path.lexists(path)
        if kind != "mode 0666":  # a file of ours, which its owner may replace and remove
            with pytest.raises(ShmArrayError):
                sa.zeros(3, name="x", if_exists="replace")
            with pytest.raises(ShmArrayError):
                sa.unlink("x")
        assert target.read_bytes() == b"precious"
    finally:
        if kind == "directory":
            path.rmdir()
        elif os.path.lexists(path):
            path.unlink()
    assert sa.zeros(3, name="x").sum() == 0


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_row_26_the_same_in_the_place_of_the_namespaces_lock(namespace: str, kind: str, tmp_path: Path) -> None:
    lock = Path(DIRECTORY) / names.lock_name(namespace)
    if kind == "symlink":
        lock.symlink_to(tmp_path / "target")
    elif kind == "fifo":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    try:
        with pytest.raises(SegmentAccessError, match=r"lock .* cannot be used"):
            sa.zeros(3, name="x")
        assert not (tmp_path / "target").exists()
        assert sa.zeros(3).sum() == 0  # without a name no lock is needed
        registry.gc()
    finally:
        if kind == "directory":
            lock.rmdir()
        else:
            lock.unlink()
    assert segment_files(namespace) == []


# ---------------------------------------------------------------- others' readers, older kernels


def test_row_48_a_stock_reader_takes_the_name_away_and_the_holders_keep_the_data(namespace: str) -> None:
    reader = """
import sys
from multiprocessing.shared_memory import SharedMemory
segment = SharedMemory(name=sys.argv[1])
assert bytes(segment.buf[:3]) == b"abc"
segment.close()
"""
    array = sa.array(np.frombuffer(b"abc", "u1"), name="x")
    file_name = array.shm.name
    with holding("import shmarray as sa\nb = sa.open('x')\nassert b[0] == 97"):
        # Its tracker cleans up what it thinks its own, and says so on standard error.
        done = subprocess.run([sys.executable, "-c", reader, file_name], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        lost = not os.path.exists(f"{DIRECTORY}/{file_name}")
        assert lost is ("leaked shared_memory" in done.stderr)
        assert array.tolist() == [97, 98, 99]
        array[0] = 100
        if not lost:  # Python 3.13 and later may leave it alone
            return
        with pytest.raises(SegmentNotFoundError, match="SharedMemory reader"):
            pickle.dumps(array)
        with pytest.raises(SegmentNotFoundError):
            array.unlink()
        anew = sa.full(3, 5, "u1", name="x")  # the name is free
        assert array.tolist() == [100, 98, 99]
        del array
        assert sa.open("x").tolist() == [5, 5, 5], "the end of the old one must not touch its namesake"
        del anew
    registry.trim()
    registry.gc()
    assert segment_files(namespace) == []


def test_row_48_workers_are_lent_an_array_whose_name_is_lost(pool: sa.Pool) -> None:
    array = sa.array(np.arange(100), name="x")
    os.unlink(f"{DIRECTORY}/{array.shm.name}")

    @sa.chunkwise(jit=False)
    def double(chunk):  # type: ignore[no-untyped-def]
        chunk *= 2

    double(array, pool=pool)
    assert np.array_equal(array, 2 * np.arange(100))


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL])
def test_row_51_where_the_mount_offers_no_nameless_files_private_names_stand_for_them(number: int) -> None:
    """What gVisor and old kernels answer; the rows 1 to 9 run over this way too, in test_lifecycle.py."""
    code = """
number = int(sys.argv[1])
real, refused = os.open, []
def open_as_there(path, flags, *arguments, **keywords):
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        refused.append(path)
        raise OSError(number, os.strerror(number))
    return real(path, flags, *arguments, **keywords)
os.open = open_as_there
nameless = made(None)
assert [name for name in files() if "~.t" in name] == files() and len(files()) == 1, files()
named = made("x")
assert refused == ["/dev/shm"] * 2
assert set(bytes(registry.attach("x").buf)) == {7}
again = nameless.name
assert registry.attach("x").key == named.key
del nameless, named
registry.trim()
collect()
"""
    run_python(PRELUDE + code, str(number))
