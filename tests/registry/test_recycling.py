"""Warm recycling: pages are reused by the process that made them, and only if nobody else can have them."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory

import pytest

import shmarray
from shmarray import registry
from shmarray.errors import SegmentExistsError, SegmentNotFoundError
from shmarray.registry.store import store
from shmarray.segment.descriptor import GENERATION
from tests.conftest import segment_files
from tests.processes import holding, run_python


@pytest.mark.parametrize("name", [None, "x"])
def test_the_next_segment_of_that_size_gets_the_same_pages(name: str | None) -> None:
    first = registry.create(100_000, "u1", name=name)
    address = first.address
    del first
    second = registry.create(100_000, "u1", name=name)
    assert second.address == address
    assert not second.fresh
    assert registry.usage().recycled == 0


def test_nameless_and_named_segments_reuse_each_others_pages(namespace: str) -> None:
    address = registry.create(5000, "u1").address
    named = registry.create(5000, "u1", name="x")
    assert named.address == address
    del named
    nameless = registry.create(5000, "u1")
    assert nameless.address == address
    assert registry.list() == []
    assert nameless.name in segment_files(namespace)


def test_a_somewhat_smaller_segment_reuses_and_a_much_smaller_one_does_not() -> None:
    first = registry.create(1_000_000, "u1")
    address = first.address
    del first
    fitting = registry.create(900_000, "u1", name="fitting")
    assert fitting.address == address
    assert registry.info("fitting").nbytes == 900_000
    assert run_python("from shmarray import registry; print(registry.attach('fitting').nbytes)").stdout == "900000\n"
    del fitting
    other = registry.create(1_000_000, "u1")
    address = other.address
    del other
    assert registry.create(1000, "u1").address != address


def test_a_dropped_name_is_gone_at_once_though_its_pages_stay(namespace: str) -> None:
    del_me = registry.create(1000, "u1", name="x")
    del del_me
    assert registry.usage().recycled
    assert registry.list() == []
    with pytest.raises(SegmentNotFoundError):
        registry.attach("x")
    run_python("from shmarray import registry; registry.create(3, name='x')")
    assert registry.trim() == 8192
    assert segment_files(namespace) == []


def reused(address: int, nbytes: int = 7000) -> bool:
    return registry.create(nbytes, "u1").address == address and not registry.create(nbytes, "u1").fresh


def parked() -> int:
    return registry.usage().recycled


def test_a_published_segment_is_never_reused() -> None:
    segment = registry.create(7000, "u1")
    assert segment.name
    del segment
    assert parked() == 0


def test_a_pickled_segment_is_never_reused() -> None:
    segment = registry.create(7000, "u1", name="x")
    text = pickle.dumps(segment)
    assert pickle.loads(text).key == segment.key
    del segment
    assert parked() == 0


def test_a_segment_that_another_process_attached_is_never_reused_even_after_it_has_gone() -> None:
    segment = registry.create(7000, "u1", name="x")
    run_python("from shmarray import registry; registry.attach('x')")
    del segment
    assert parked() == 0


def test_a_segment_that_a_stock_reader_has_open_is_never_reused(namespace: str) -> None:
    segment = registry.create(7000, "u1", name="x")
    segment.buf[0] = 3
    # The reader guesses the file's name, so nothing of ours hears of it: the kernel's count does.
    code = f"""
from multiprocessing import resource_tracker, shared_memory
shm = shared_memory.SharedMemory(name="{namespace}~x")
resource_tracker.unregister(shm._name, "shared_memory")
"""
    with holding(code):
        del segment
        assert parked() == 0
    assert segment_files(namespace) == []


def test_a_segment_alive_across_a_fork_is_never_reused(namespace: str) -> None:
    code = """
import os
from shmarray import registry
kept = registry.create(7000, "u1", name="kept")
warm = registry.create(9000, "u1").address
read, write = os.pipe()
pid = os.fork()
if not pid:
    # The cache is the parent's: gone here, and its file untouched.
    assert registry.usage().recycled == 0
    os.read(read, 1)
    assert kept.buf[0] == 9
    os._exit(0)
kept.buf[0] = 9
kept_address = kept.address
del kept
assert registry.usage().recycled == 9000 // 4096 * 4096 + 8192
assert [one.name for one in registry.list()] == ["kept"]
assert registry.gc() == []
assert registry.create(9000, "u1").address == warm
again = registry.create(7000, "u1")
again.buf[0] = 1
os.write(write, b"x")
assert os.waitpid(pid, 0)[1] == 0
assert registry.gc() == ["kept"]
"""
    run_python(code)
    assert segment_files(namespace) == []


def test_a_segment_lent_to_workers_stays_reusable_and_they_hear_of_its_end() -> None:
    gone = []
    registry.on_unmap(gone.append)
    segment = registry.create(7000, "u1")
    registry.lent(segment)
    fd = segment.open_unlocked()
    address, key = segment.address, segment.key
    del segment
    assert gone == []
    again = registry.create(7000, "u1")
    assert again.address == address
    del again
    registry.trim()
    assert gone == [key]
    os.close(fd)
    store._watchers.remove(gone.append)


def test_a_segment_lent_to_workers_is_not_reused_if_others_may_have_it_too() -> None:
    named = registry.create(7000, "u1", name="x")
    registry.lent(named)  # a lease cannot tell workers from a program that opened the name
    del named
    assert parked() == 0
    kept = registry.create(7000, "u1")
    registry.lent(kept, may_be_kept=True)
    del kept
    assert parked() == 0


def test_a_kept_array_is_not_recycled() -> None:
    segment = registry.create(7000, "u1", name="x", keep=True)
    del segment
    assert parked() == 0
    assert registry.info("x").keep
    registry.unlink("x")


def test_a_name_unlinked_and_made_anew_by_another_survives_the_old_holders_end() -> None:
    mine = registry.create(7000, "u1", name="x")
    registry.unlink("x")
    with holding("from shmarray import registry; a = registry.create(5, name='x')"):
        del mine
        assert registry.info("x").shape == (5,)
        assert registry.gc() == []
        with pytest.raises(SegmentExistsError):
            registry.create(3, name="x")


def test_the_limit_bounds_what_is_kept_and_the_oldest_goes_first() -> None:
    with shmarray.config.override(recycle_nbytes=30_000):
        segments = [registry.create(8000, "u1") for _ in range(4)]
        keys = [segment.key for segment in segments]
        while segments:
            del segments[0]
        assert registry.usage().recycled <= 30_000
        again = [registry.create(8000, "u1").key for _ in range(1)]
        assert again == keys[-1:]
    with shmarray.config.override(recycle_nbytes=0):
        registry.trim()
        del_me = registry.create(8000, "u1")
        del del_me
        assert registry.usage().recycled == 0


def test_a_full_shared_memory_takes_the_kept_pages_back() -> None:
    code = """
import shmarray
from shmarray import registry
from shmarray.registry import reserve
registry.create(10_000, "u1")
assert registry.usage().recycled
from shmarray.registry.store import store
reserve._headroom.left = lambda nbytes: (0 if store.warm.nbytes else 10**9, "test")
big = registry.create(1_000_000, "u1")
assert registry.usage().recycled == 0
"""
    run_python(code)


def test_a_reader_that_opened_before_the_drop_never_sees_the_reused_pages(namespace: str) -> None:
    segment = registry.create(7000, "u1", name="x")
    mapping = segment.mapping
    before = mapping.words[GENERATION >> 3]
    assert before % 2 == 0
    del segment
    # What an attacher reads that opened the file before it was renamed:
    assert mapping.words[GENERATION >> 3] == before + 1
    again = registry.create(7000, "u1", name="x")
    assert again.mapping is mapping
    assert mapping.words[GENERATION >> 3] == before + 2


READER = """
import sys, time
from shmarray import registry
from shmarray.errors import SegmentNotFoundError
seen = 0
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until or not seen:
    try:
        a = registry.attach("x", mode=sys.argv[2])
    except SegmentNotFoundError:
        continue
    for _ in range(5):
        assert 255 not in bytes(a.buf)
    seen += 1
    del a
print(seen)
"""


@pytest.mark.parametrize("lend", [False, True], ids=["sole opener", "lent"])
def test_attachers_race_the_owner_and_never_hold_reused_pages(lend: bool) -> None:
    # Between two arrays "x" the owner makes a nameless one of the size, which mostly gets the pages of
    # the last, and fills it with 255. Lent segments are judged by the exported word alone, which is where
    # the order of stores and loads matters.
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, "1.5", mode], stdout=subprocess.PIPE, text=True)
        for mode in ("r", "r+")
    ]
    reuses = 0
    try:
        while any(reader.poll() is None for reader in readers):
            with suppress(SegmentExistsError):
                segment = registry.create(64, "u1", name="x")
                if lend:
                    registry.lent(segment)
                segment.buf[:] = bytes(64)
                address = segment.address
                del segment
                other = registry.create(64, "u1")
                other.buf[:] = b"\xff" * 64
                reuses += other.address == address
                # So that the next "x" never shows a 255 of this one.
                other.buf[:] = bytes(64)
                del other
    finally:
        outs = [reader.communicate(timeout=30)[0] for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0]
    assert all(int(out) > 0 for out in outs)
    assert reuses > 0


def test_threads_create_and_drop_beside_each_other() -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(300):
                name = f"t{number}" if i % 2 else None
                segment = registry.create(1000 * (1 + i % 3), "u1", name=name)
                segment.buf[:] = bytes([number]) * segment.nbytes
                if name:
                    assert registry.attach(name).address == segment.address
                assert set(bytes(segment.buf)) == {number}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_drop_by_the_garbage_collector_inside_a_locked_section_is_put_off(namespace: str) -> None:
    segment = registry.create(1000, "u1", name="x")
    cycle = [segment]
    cycle.append(cycle)  # type: ignore[arg-type]
    del segment, cycle
    with store:
        gc.collect()
        assert segment_files(namespace) == [f"{namespace}~x"]
    assert registry.list() == []
    assert SharedMemory is not None
