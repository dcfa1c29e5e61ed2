"""What lies in the directory, and what may be wrong with it: rows 21 to 26, 48, 50 and 51 of the fault table."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import random
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

import shmarray as sa
from shmarray import registry
from shmarray.errors import (
    CorruptSegmentError,
    SegmentAccessError,
    SegmentExistsError,
    SegmentNotFoundError,
    ShmArrayError,
)
from shmarray.registry import names
from shmarray.segment.descriptor import DESCRIPTOR_NBYTES, Descriptor
from shmarray.segment.mapping import DIRECTORY
from tests.conftest import segment_files
from tests.crash.prelude import PRELUDE
from tests.processes import holding, run_python


def path_of(namespace: str, name: str) -> Path:
    return Path(DIRECTORY) / names.public_name(namespace, name)


def plant(namespace: str, name: str, page: bytes, data: bytes = b"") -> Path:
    """A file as a creator that has died might have left it."""
    path = path_of(namespace, name)
    path.touch(mode=0o600)
    path.write_bytes(data + page)
    return path


def page_of(descriptor: Descriptor) -> bytes:
    return descriptor.pack().ljust(DESCRIPTOR_NBYTES, b"\0")


def mend(page: bytearray) -> None:
    """Make the checksum right for what the page says now."""
    (end,) = struct.unpack_from("<H", page, 16)
    page[12:16] = crc32(page[16:end]).to_bytes(4, "little")


def counts() -> tuple[int, int]:
    """Open descriptors and mappings of this process."""
    with open("/proc/self/maps") as file:
        return len(os.listdir("/proc/self/fd")), sum(1 for _ in file)


# ---------------------------------------------------------------- large and many


def test_row_21_a_hundred_thousand_chunks_and_ten_thousand_arrays_in_turn(namespace: str, pool: sa.Pool) -> None:
    many = sa.zeros(200_000, "i1", chunks=2)

    @sa.elementwise
    def more(x):  # type: ignore[no-untyped-def]
        return x + 1

    more(many, out=many, pool=pool)
    assert np.asarray(many).all()
    del many
    registry.trim()
    before = counts()
    for turn in range(10_000):
        array = sa.empty(3, "i4", name=None if turn % 2 else f"n{turn}")
        array[0] = turn
    del array
    registry.trim()
    fds, maps = counts()
    assert fds <= before[0] + 2  # the namespace's lock
    assert maps <= before[1] + 20
    assert segment_files(namespace) == []


def test_row_21_a_thousand_arrays_at_once(namespace: str) -> None:
    before = counts()
    arrays = [sa.full(2, turn, "i4", name=f"n{turn}") for turn in range(1000)]
    assert len(registry.list()) == 1000
    assert [int(array[1]) for array in arrays] == list(range(1000))
    arrays.clear()
    registry.trim()
    assert counts()[0] <= before[0] + 2
    assert segment_files(namespace) == []


def test_row_22_offsets_past_four_gib(namespace: str, request: pytest.FixtureRequest) -> None:
    """On a file of holes, whose pages are not there before they are touched; `--large` has all of them there."""
    nbytes = 2**32 + 4096
    path = Path(DIRECTORY) / f"{namespace}-holes"
    path.touch(mode=0o600)
    try:
        os.truncate(path, nbytes)
        a = sa.from_raw(path.name, nbytes, "i1")
        places = [0, 2**31, 2**32 - 1, 2**32, nbytes - 1]
        for value, place in enumerate(places, 1):
            a[place] = value
        far = a[2**31 - 1 :: 2**31]  # strides that 32 bits do not hold
        assert far.tolist() == [0, 3]
        second = sa.from_raw(path.name, nbytes, "i1", "r")
        assert [int(second[place]) for place in places] == [1, 2, 3, 4, 5]
        rows = a.reshape(2**20 + 1, 4096)[:: 2**19]
        assert np.asarray(rows.sum(axis=1)).tolist() == [1, 2, 4 + 5]
        del a, far, second, rows
    finally:
        path.unlink()
    if not request.config.getoption("--large"):
        return
    whole = sa.ones(2**32 + 1, "i1")
    assert int(whole.sum(dtype="i8")) == 2**32 + 1
    whole[2**32] = 3
    tail = sa.asarray(whole[2**32 - 1 :])
    assert tail.tolist() == [1, 3]


# ---------------------------------------------------------------- descriptors that are wrong


def test_row_23_a_segment_truncated_at_every_length_is_corrupt_and_no_signal(namespace: str) -> None:
    made = registry.create(100, "u1", name="x", keep=True)
    whole = path_of(namespace, "x").read_bytes()
    del made
    registry.unlink("x")
    assert len(whole) == 2 * DESCRIPTOR_NBYTES
    path = path_of(namespace, "x")
    path.touch(mode=0o600)
    # Every length around the page and its parts, and a coarse walk over the rest.
    lengths = {*range(300), *range(4090, 4400), *range(8100, 8192), *range(0, 8192, 37)}
    for length in sorted(lengths, reverse=True):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptSegmentError):
            sa.open("x")
        with pytest.raises(CorruptSegmentError):
            registry.info("x")
    assert registry.list() == []
    path.unlink()


def test_row_23_a_page_cut_short_inside_is_corrupt(namespace: str) -> None:
    descriptor = Descriptor((3, 4), np.dtype("f8"), 96, (1, 4), "x", True, 123, 456)
    page = page_of(descriptor)
    path = plant(namespace, "x", page, bytes(4096))
    for length in range(len(descriptor.pack())):
        path.write_bytes(bytes(4096) + page[:length].ljust(DESCRIPTOR_NBYTES, b"\0"))
        with pytest.raises(CorruptSegmentError):
            sa.open("x")
    registry.gc()
    assert path.exists()  # nobody can say whose that was
    path.unlink()


def changed(page: bytes, choose: random.Random) -> bytearray:
    """Some bytes, words or stretches of a page are others now; two times in three the checksum is right again."""
    new = bytearray(page)
    for _ in range(choose.randrange(1, 4)):
        kind = choose.randrange(4)
        at = choose.randrange(120) if choose.random() < 0.9 else choose.randrange(DESCRIPTOR_NBYTES)
        if kind == 0:
            new[at] ^= 1 << choose.randrange(8)
        elif kind == 1:
            new[at] = choose.randrange(256)
        elif kind == 2:
            number = choose.choice([0, 1, 255, 2**15, 2**16 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
            at = min(at & ~7, DESCRIPTOR_NBYTES - 8)
            new[at : at + 8] = number.to_bytes(8, "little")
        else:
            other = choose.randrange(120)
            count = choose.randrange(1, 17)
            new[at : at + count] = new[other : other + count]
            del new[DESCRIPTOR_NBYTES:]
            new.extend(bytes(DESCRIPTOR_NBYTES - len(new)))
    if choose.random() < 2 / 3:
        new[:8], new[8:12] = b"SHMARRAY", (1).to_bytes(4, "little")
        mend(new)
    return new


SEEDS = [
    Descriptor((3, 4), np.dtype("<f8"), 96, (1, 4), "x", True, 123, 456),
    Descriptor((), np.dtype([("a", "<i4"), ("b", ">M8[s]", (2,))]), 20, None, "x", False, 1, 2),
    Descriptor((5, 0, 2), np.dtype("S3"), 0, None, None, False, 0, 0),
]


def check_valid(found: Descriptor, memory: Any) -> None:
    """What a descriptor says fits into its file, and can be read to the last byte."""
    assert found.nbytes <= DESCRIPTOR_NBYTES
    assert not found.dtype.hasobject
    view: np.ndarray[Any, Any] = np.ndarray(found.shape, found.dtype, memory)
    assert view.nbytes == found.nbytes
    view.tobytes()


def test_row_24_a_fuzzed_descriptor_is_an_error_or_a_valid_array(
    namespace: str, request: pytest.FixtureRequest
) -> None:
    rounds = request.config.getoption("--fuzz-rounds")
    pages = [page_of(seed) for seed in SEEDS]
    choose = random.Random(24)
    path = plant(namespace, "x", pages[0], bytes(DESCRIPTOR_NBYTES))
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_SH)  # a holder more: those that open it are never the last, who would take it along
    memory = bytearray(DESCRIPTOR_NBYTES)
    good = bad = 0
    try:
        for turn in range(rounds):
            page = changed(pages[turn % len(pages)], choose)
            try:
                check_valid(Descriptor.unpack(bytes(page), capacity=DESCRIPTOR_NBYTES, label="x"), memory)
                good += 1
            except CorruptSegmentError:
                bad += 1
            if turn % 25 == 0:  # the same through the file: opened, mapped, read, listed
                os.pwrite(fd, page, DESCRIPTOR_NBYTES)
                try:
                    segment = registry.attach("x")
                except (CorruptSegmentError, SegmentNotFoundError):
                    continue
                check_valid(segment.descriptor, segment.buf)
                del segment
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
    print(f"{rounds} rounds: {good} valid, {bad} refused")
    assert good > rounds // 50
    assert bad > rounds // 50


def test_row_25_a_descriptor_that_changes_while_it_is_read(namespace: str) -> None:
    pages = [page_of(seed) for seed in SEEDS]
    large = bytearray(page_of(Descriptor((2**40,), np.dtype("i8"), 2**43, None, "x")))
    mend(large)
    pages.append(bytes(large))
    choose = random.Random(25)
    variants = [bytes(changed(pages[turn % len(pages)], choose)) for turn in range(500)] + pages * 20
    path = plant(namespace, "x", pages[0], bytes(DESCRIPTOR_NBYTES))
    over = threading.Event()
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_SH)  # as above

    def scribble() -> None:
        while not over.is_set():
            page = choose.choice(variants)
            half = choose.randrange(DESCRIPTOR_NBYTES)
            os.pwrite(fd, page[:half], DESCRIPTOR_NBYTES)
            os.pwrite(fd, page[half:], DESCRIPTOR_NBYTES + half)

    thread = threading.Thread(target=scribble)
    thread.start()
    good = 0
    try:
        for _ in range(4000):
            try:
                segment = registry.attach("x")
            except (CorruptSegmentError, SegmentNotFoundError):
                continue
            good += 1
            assert segment.nbytes == segment.descriptor.nbytes <= DESCRIPTOR_NBYTES
            bytes(segment.buf)
            del segment
    finally:
        over.set()
        thread.join()
        os.close(fd)
        path.unlink()
    assert good


# ---------------------------------------------------------------- files that are no segments


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


# ---------------------------------------------------------------- others' readers, newer layouts, older kernels


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


def test_row_50_a_segment_of_a_newer_layout_is_refused_and_never_reclaimed(namespace: str) -> None:
    page = bytearray(page_of(SEEDS[0]))
    page[8:12] = (2).to_bytes(4, "little")
    path = plant(namespace, "x", bytes(page), bytes(DESCRIPTOR_NBYTES))
    before = path.read_bytes()
    for attempt in (lambda: sa.open("x"), lambda: registry.info("x")):
        with pytest.raises(CorruptSegmentError, match="layout version 2, this shmarray reads 1; update"):
            attempt()
    with pytest.raises(SegmentExistsError):
        sa.zeros(3, name="x")
    with pytest.raises(CorruptSegmentError):
        sa.zeros(3, name="x", if_exists="open")
    registry.gc()
    for _ in range(5):  # the gc inside creation too
        sa.zeros(3, name="other")
    assert registry.list() == []
    assert path.read_bytes() == before
    private = path.with_name(names.new_private_name(namespace))
    path.rename(private)
    registry.gc()
    assert private.read_bytes() == before, "not even under a private name"
    private.unlink()


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
