"""The object that keeps a mapping: the standard class made safe."""

from __future__ import annotations

import gc
import os
import pickle
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from shmarray import registry
from shmarray.errors import SegmentNotFoundError
from shmarray.segment import Segment, map_descriptor, segment_of, unmap
from tests.conftest import segment_files
from tests.processes import run_python


def test_it_is_a_standard_shared_memory_object() -> None:
    segment = registry.create(10, "u1")
    assert isinstance(segment, SharedMemory)
    assert isinstance(segment, Segment)
    assert segment.size == 10
    segment.buf[:3] = b"abc"
    assert bytes(segment.buf[:4]) == b"abc\0"


def test_the_class_is_not_called() -> None:
    with pytest.raises(TypeError, match=r"use shmarray\.empty, open or from_raw"):
        Segment(name="x")


def test_views_outlive_close_unlink_and_the_segment() -> None:
    segment = registry.create(1000, "f8", name="x")
    view = np.asarray(segment).view("f8")[::-3]
    segment.close()
    assert segment.buf is None
    segment.close()
    segment.unlink()
    del segment
    gc.collect()
    view[:] = 7
    assert view.sum() == 7 * len(view)


def test_segment_of_sees_through_any_view() -> None:
    segment = registry.create((4, 6), "f4")
    array = np.ndarray((4, 6), "f4", buffer=np.asarray(segment))
    assert segment_of(array[1:, ::-2].T.reshape(3, 3).view("u4")) is segment
    assert segment_of(np.frombuffer(segment.buf, "u1")) is segment
    assert segment_of(np.zeros(3)[1:]) is None


def test_looking_at_a_nameless_segment_does_not_publish_it(namespace: str) -> None:
    segment = registry.create(3)
    assert "Segment(None" in repr(segment)
    assert segment_files(namespace) == []
    assert segment.name in os.listdir("/dev/shm")
    assert segment.name in repr(segment)


def test_a_stock_reader_sees_the_data_from_its_first_byte() -> None:
    segment = registry.create(4, "<u4", name="x")
    np.asarray(segment).view("<u4")[:] = [1, 2, 3, 4]
    code = """
import sys
from multiprocessing import resource_tracker, shared_memory
shm = shared_memory.SharedMemory(name=sys.argv[1])
resource_tracker.unregister(shm._name, "shared_memory")
print(shm.buf[0], shm.buf[4], shm.buf[8])
shm.close()
"""
    assert run_python(code, segment.name).stdout == "1 2 3\n"


def test_the_resource_tracker_is_never_started() -> None:
    code = """
from multiprocessing import resource_tracker
import pickle
from shmarray import registry
a = registry.create(3, name="x")
b = registry.attach("x", mode="r")
pickle.loads(pickle.dumps(a)).name
a.unlink()
assert resource_tracker._resource_tracker._pid is None
"""
    run_python(code)
    assert resource_tracker is not None


def test_it_pickles_as_a_reference_to_the_same_pages() -> None:
    segment = registry.create(3, "f8")
    again = pickle.loads(pickle.dumps(segment))
    assert again.key == segment.key
    assert again.address == segment.address
    assert len(pickle.dumps(segment)) < 400


def test_an_empty_segment_has_an_address_and_a_descriptor() -> None:
    segment = registry.create((0, 3), name="x")
    assert segment.nbytes == 0
    assert np.asarray(segment).shape == (0,)
    assert len(segment.buf) == 0
    assert registry.info("x").shape == (0, 3)


def test_another_mapping_of_an_unlocked_descriptor_sees_the_pages() -> None:
    segment = registry.create(4096, "u1")
    fd = segment.open_unlocked()
    address = map_descriptor(fd, 8192, writable=True)
    os.close(fd)
    segment.buf[5] = 77
    other = np.ndarray(8192, "u1", buffer=(__import__("ctypes").c_char * 8192).from_address(address))
    assert other[5] == 77
    del other
    unmap(address, 8192)


def test_without_descriptor_and_name_nothing_can_be_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    segment = registry.create(3, name="x")
    registry.unlink("x")
    mapping = segment.mapping
    fd, mapping.fd = mapping.fd, -1
    with pytest.raises(SegmentNotFoundError, match="unlinked and its descriptor given up"):
        segment.open_unlocked()
    mapping.fd = fd


def test_the_lock_words_are_there_where_a_lock_can_be() -> None:
    segment = registry.create(3, name="x")
    assert segment.lock_address > segment.address
    assert registry.attach("x", mode="r").lock_address == 0
    assert registry.attach("x", mode="c").lock_address == 0
