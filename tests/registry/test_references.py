"""Handles: a segment in flight stays until one process has attached or its time has passed."""

from __future__ import annotations

import pickle

import pytest

import shmarray
from shmarray import registry
from shmarray.errors import SegmentNotFoundError
from tests.conftest import segment_files
from tests.processes import run_python

TAKE = """
import pickle, sys
segment = pickle.loads(bytes.fromhex(sys.argv[1]))
print(segment.buf[0], segment.mode)
"""


@pytest.mark.parametrize("name", [None, "x"])
def test_the_sender_may_drop_before_the_receiver_attaches(namespace: str, name: str | None) -> None:
    segment = registry.create(3, "u1", name=name)
    segment.buf[0] = 7
    text = pickle.dumps(segment)
    del segment
    assert registry.gc() == []
    assert registry.usage().in_flight == 8192
    assert run_python(TAKE, text.hex()).stdout == "7 r+\n"
    assert registry.usage().in_flight == 0
    assert segment_files(namespace) == []
    with pytest.raises(SegmentNotFoundError, match="keep the array until every receiver has attached"):
        pickle.loads(text)


def test_the_sender_may_end_before_the_receiver_attaches() -> None:
    code = """
import pickle
from shmarray import registry
segment = registry.create(3, "u1")
segment.buf[0] = 9
print(pickle.dumps(segment).hex())
"""
    text = run_python(code).stdout.strip()
    assert registry.gc() == []
    segment = pickle.loads(bytes.fromhex(text))
    assert segment.buf[0] == 9


def test_after_its_time_it_is_reclaimed(namespace: str) -> None:
    with shmarray.config.override(handle_ttl_s=0):
        segment = registry.create(3, "u1", name="x")
        text = pickle.dumps(segment)
        del segment
        assert segment_files(namespace) == []
        with pytest.raises(SegmentNotFoundError, match="has gone: its sender dropped it"):
            pickle.loads(text)


def test_a_namesake_made_anew_is_not_taken_for_it() -> None:
    segment = registry.create(3, "u1", name="x")
    reference = registry.export(segment)
    registry.unlink("x")
    del segment
    other = registry.create(3, "u1", name="x")
    with pytest.raises(SegmentNotFoundError):
        registry.attach_reference(reference)
    assert other.key != reference.key


def test_a_reference_attaches_in_the_mode_asked_for() -> None:
    segment = registry.create(3, "u1")
    reference = registry.export(segment)
    read = registry.attach_reference(reference, mode="r")
    assert read.buf.readonly
    assert read.key == segment.key
    assert pickle.loads(pickle.dumps(read)).mode == "r"


def test_an_unlinked_array_cannot_be_sent_and_says_so() -> None:
    segment = registry.create(3, "u1", name="x")
    segment.unlink()
    with pytest.raises(SegmentNotFoundError, match="was unlinked, so no other process can find it"):
        pickle.dumps(segment)
    with pytest.raises(SegmentNotFoundError, match="unlinked before"):
        segment.unlink()


def test_an_adopted_segment_pickles_by_its_name() -> None:
    segment = registry.create(5, "u1", name="x", keep=True)
    adopted = registry.adopt(segment.name, 3)
    again = pickle.loads(pickle.dumps(adopted))
    segment.buf[1] = 4
    assert again.buf[1] == 4
    assert again.nbytes == 3
    del again, adopted
    assert registry.info("x").nbytes == 5
    registry.unlink("x")
