"""Descriptor pages that are wrong, or of another version: rows 23 to 25 and 50 of the fault table."""

from __future__ import annotations

import fcntl
import os
import random
import threading
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray import registry
from shmarray.errors import CorruptSegmentError, SegmentExistsError, SegmentNotFoundError
from shmarray.registry import names
from shmarray.segment.descriptor import DESCRIPTOR_NBYTES, Descriptor
from tests.crash.pages import SEEDS, mend, page_of, path_of, plant


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
    if choose.random() < 0.02:  # all of it fits together, and not the file
        length = choose.choice([DESCRIPTOR_NBYTES + 1, 2**20, 2**40])
        return bytearray(page_of(Descriptor((length,), np.dtype("u1"), length, None, "x")))
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
    pages.append(page_of(Descriptor((2**40,), np.dtype("i8"), 2**43, None, "x")))
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
