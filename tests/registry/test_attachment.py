"""Attaching: the same pages, in three modes; what is planted under a name is refused and never hangs."""

from __future__ import annotations

import errno
import os
import socket
import threading

import numpy as np
import pytest

from shmarray import registry
from shmarray.errors import CorruptSegmentError, SegmentAccessError, SegmentNotFoundError
from tests.conftest import segment_files
from tests.processes import holding, run_python, wait_until


def test_another_process_sees_and_changes_the_same_pages() -> None:
    segment = registry.create(4, "u1", name="x")
    run_python("from shmarray import registry; registry.attach('x').buf[2] = 42")
    assert segment.buf[2] == 42


def test_the_same_process_shares_one_mapping() -> None:
    first = registry.create(4, "u1", name="x")
    second = registry.attach("x")
    assert second.address == first.address
    assert second.key == first.key
    del first
    second.buf[0] = 1
    assert registry.attach("x").buf[0] == 1


@pytest.mark.parametrize("elsewhere", [False, True], ids=["own", "another's"])
def test_read_only_and_private_mappings(elsewhere: bool) -> None:
    def check() -> None:
        read, private = registry.attach("x", mode="r"), registry.attach("x", mode="c")
        assert (read.mode, private.mode) == ("r", "c")
        assert not np.asarray(read).flags.writeable
        assert read.buf.readonly
        private.buf[0] = 5
        assert private.buf[0] == 5
        assert read.buf[0] == 1
        writable = registry.attach("x")
        writable.buf[1] = 6
        assert read.buf[1] == 6

    if elsewhere:
        with holding("from shmarray import registry; a = registry.create(4, 'u1', name='x'); a.buf[0] = 1"):
            check()
    else:
        made = registry.create(4, "u1", name="x")
        made.buf[0] = 1
        check()


def test_a_read_only_mapping_alone_keeps_the_segment() -> None:
    made = registry.create(4, "u1", name="x")
    made.buf[0] = 3
    read = registry.attach("x", mode="r")
    del made
    assert registry.gc() == []
    assert registry.create(4, "u1").address != read.address
    assert read.buf[0] == 3
    assert registry.attach("x").buf[0] == 3
    del read
    with pytest.raises(SegmentNotFoundError):
        registry.attach("x")


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be .* \(copy-on-write\); got 'w\+'"):
        registry.attach("x", mode="w+")


def test_a_name_nobody_has_is_not_found_and_says_why() -> None:
    with pytest.raises(SegmentNotFoundError, match="never created, was unlinked, or its last holder") as caught:
        registry.attach("x")
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.name == "x"


def test_waiting_ends_when_the_name_appears() -> None:
    made = []
    found = []
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        found.append(registry.attach("x", timeout_s=30))

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    made.append(registry.create(3, name="x"))
    thread.join()
    assert found[0].key == made[0].key
    with pytest.raises(SegmentNotFoundError):
        registry.attach("y", timeout_s=0.01)


def plant(kind: str, path: str) -> None:
    if kind == "symlink":
        os.symlink("/etc/passwd", path)
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
    else:
        with open(path, "wb") as file:
            file.write(bytes(8192))
        os.chmod(path, 0o666 if kind == "mode 0666" else 0o600)
        if kind == "foreign uid":
            os.chown(path, 12345, 12345)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("symlink", "it is a symbolic link"),
        ("fifo", "it is no regular file"),
        ("directory", "it is a directory"),
        ("socket", "it is no regular file"),
        ("mode 0666", "its mode is 0666, which lets others in"),
        ("foreign uid", "it belongs to user 12345"),
    ],
)
def test_what_is_planted_is_refused_and_left_alone(namespace: str, kind: str, reason: str) -> None:
    if kind == "foreign uid" and os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    path = f"/dev/shm/{namespace}~x"
    plant(kind, path)
    try:
        with pytest.raises(SegmentAccessError, match=f"{reason}.*If it should not be there remove it"):
            registry.attach("x")
        with pytest.raises(SegmentAccessError, match=reason):
            registry.info("x")
        assert registry.gc() == []
        assert registry.list() == []
        assert registry.usage().used >= 0
        assert os.path.lexists(path)
    finally:
        os.rmdir(path) if kind == "directory" else os.unlink(path)


@pytest.mark.parametrize("size", [0, 1, 100, 4095, 4097, 8191])
def test_a_truncated_segment_is_corrupt_not_a_signal(namespace: str, size: int) -> None:
    run_python("from shmarray import registry; registry.create(4096, 'u1', name='x', keep=True)")
    os.truncate(f"/dev/shm/{namespace}~x", size)
    with pytest.raises(CorruptSegmentError, match="no size of a segment; it was truncated"):
        registry.attach("x")
    assert registry.list() == []
    assert registry.gc() == []
    registry.unlink("x")


def test_a_file_without_a_descriptor_page_is_corrupt_and_never_reclaimed(namespace: str) -> None:
    with open(f"/dev/shm/{namespace}~x", "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(os.urandom(8192))
    with pytest.raises(CorruptSegmentError, match="it has no descriptor page"):
        registry.attach("x")
    assert registry.gc() == []
    assert registry.list() == []
    registry.unlink("x")


def test_a_segment_of_a_newer_layout_is_refused_and_never_reclaimed(namespace: str) -> None:
    run_python("from shmarray import registry; a = registry.create(3, name='x', keep=True)")
    path = f"/dev/shm/{namespace}~x"
    with open(path, "r+b") as file:
        file.seek(-4096 + 8, os.SEEK_END)
        file.write((2).to_bytes(4, "little"))
    with pytest.raises(CorruptSegmentError, match="update shmarray"):
        registry.attach("x")
    assert registry.gc() == []
    assert segment_files(namespace) == [f"{namespace}~x"]
    registry.unlink("x")


def test_another_programs_segment_is_adopted_and_never_removed() -> None:
    name = f"foreign-{os.getpid()}"
    path = f"/dev/shm/{name}"
    with open(path, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(b"abcdef")
    try:
        adopted = registry.adopt(name, 6, mode="r+")
        assert bytes(adopted.buf) == b"abcdef"
        adopted.buf[0] = ord("x")
        assert adopted.lock_address == 0
        assert adopted.user_name is None
        read = registry.adopt("/" + name, 3, mode="r")
        assert bytes(read.buf) == b"xbc"
        with pytest.raises(ValueError, match="has 6 bytes; this shape and dtype need 7"):
            registry.adopt(name, 7)
        del adopted, read
        assert registry.gc() == []
        assert os.path.exists(path)
    finally:
        os.unlink(path)


@pytest.mark.parametrize("name", ["", "a/b", "/", "..", "a\0", "x" * 256])
def test_a_foreign_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a segment"):
        registry.adopt(name, 3)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "mode 0666"])
def test_a_foreign_segment_that_others_can_write_is_refused(kind: str) -> None:
    name = f"foreign-{os.getpid()}"
    path = f"/dev/shm/{name}"
    plant(kind, path)
    try:
        with pytest.raises(SegmentAccessError, match="is not a private file of user"):
            registry.adopt(name, 3)
    finally:
        os.rmdir(path) if kind == "directory" else os.unlink(path)


def test_holders_are_listed() -> None:
    segment = registry.create(3, name="x")
    with holding("from shmarray import registry; a = registry.attach('x')") as other:
        wait_until(lambda: registry.info("x").holders == tuple(sorted((os.getpid(), other.pid))))
    assert registry.info("x").holders == (os.getpid(),)
    assert segment.nbytes == 24
    assert errno.ENOENT
