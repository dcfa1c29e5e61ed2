"""Listing: what is there, by whatever process, and how much memory that is."""

from __future__ import annotations

import os

import pytest

import shmarray
from shmarray import registry
from shmarray.errors import OutOfSharedMemoryError, SegmentNotFoundError
from tests.processes import holding


def test_the_list_is_the_namespaces_and_sorted() -> None:
    b, a = registry.create((2, 3), "f4", name="b", chunks=(1, 3)), registry.create(1, name="a")
    nameless, published = registry.create(3), registry.create(3, "u1")
    assert published.name
    with shmarray.config.override(namespace="another"):
        other = registry.create(1, name="z")
        assert [one.name for one in registry.list()] == ["z"]
        del other
        registry.trim()
    found = registry.list()
    assert [one.name for one in found] == ["a", "b", None]
    info = registry.info("b")
    assert info == found[1]
    assert info.shape == (2, 3)
    assert info.chunks == (1, 3)
    assert info.nbytes == 24
    assert info.creator_pid == os.getpid()
    assert info.holders == (os.getpid(),)
    assert info.keep is False
    assert info.dirty is False
    assert info.created > 1e9
    assert (a.nbytes, b.nbytes, nameless.nbytes) == (8, 24, 24)


def test_no_name_of_one_namespace_shows_in_another() -> None:
    with shmarray.config.override(namespace="a"):
        first = registry.create(1, name="b.c")
    with shmarray.config.override(namespace="a.b"):
        assert registry.list() == []
        second = registry.create(1, name="c")
        assert registry.info("c").shape == (1,)
    assert first.name != second.name
    with shmarray.config.override(namespace="a"):
        del first
        registry.trim()
    with shmarray.config.override(namespace="a.b"):
        del second
        registry.trim()


def test_usage_adds_up() -> None:
    assert registry.usage()[:3] == (0, 0, 0)
    with holding("from shmarray import registry; a = registry.create(4096, 'u1', name='x')"):
        mine = registry.create(8192, "u1")
        assert registry.usage().used == 8192 + 12288
        del mine
        usage = registry.usage()
        assert usage.used == 8192 + 12288
        assert usage.recycled == 12288
    assert usage.free > 0
    assert usage.limit is None
    with shmarray.config.override(max_nbytes=10**6):
        assert registry.usage().limit == 10**6


@pytest.mark.parametrize("kept_for_reuse", [False, True])
def test_free_is_what_the_quota_still_allows(kept_for_reuse: bool) -> None:
    with shmarray.config.override(max_nbytes=10**6):
        held = registry.create(300_000, "u1")
        if kept_for_reuse:
            parked = registry.create(100_000, "u1")
            del parked
            assert registry.usage().recycled
        free = registry.usage().free
        assert 500_000 < free < 700_000
        with pytest.raises(OutOfSharedMemoryError):
            registry.create(free + 1, "u1")
        rest = registry.create(free, "u1")
        assert registry.usage().free == 0
        with pytest.raises(OutOfSharedMemoryError):
            registry.create(1, "u1")
        del held, rest


def test_info_of_nothing_is_not_found() -> None:
    with pytest.raises(SegmentNotFoundError):
        registry.info("x")


def test_looking_does_not_hold() -> None:
    made = registry.create(3, name="x")
    registry.list()
    registry.info("x")
    del made
    assert registry.list() == []
