"""Making segments: what is made, what is refused, and what the refusal says."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import shmarray
from shmarray import registry
from shmarray.errors import (
    OutOfSharedMemoryError,
    SegmentAccessError,
    SegmentExistsError,
    SegmentNotFoundError,
    ShmArrayError,
)
from shmarray.registry import creation, reserve
from shmarray.segment import libc
from tests.conftest import segment_files
from tests.processes import holding, run_python
from tests.strategies import dtypes, shapes


def test_a_new_segment_reads_as_zero_and_describes_itself() -> None:
    registry.trim()
    segment = registry.create((3, 5), "f4", chunks=(1, 5))
    assert segment.fresh
    assert not np.asarray(segment).any()
    assert segment.descriptor.shape == (3, 5)
    assert segment.descriptor.chunks == (1, 5)
    assert segment.descriptor.creator_pid == os.getpid()
    assert segment.nbytes == 60
    assert segment.user_name is None


@given(dtypes(), shapes())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_created_is_what_info_reads(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    segment = registry.create(shape, dtype, name="x")
    info = registry.info("x")
    assert (info.shape, info.dtype, info.nbytes) == (shape, dtype, segment.nbytes)


@pytest.mark.parametrize(
    "name",
    ["a/b", "../x", "", ".hidden", "x" * 201, "a b", "a\n", "a\0b", "\x1b[31m", "naïve", "a~b", "a:b", "*"],
)
def test_names_that_are_none_are_refused(name: str) -> None:
    for call in (
        lambda: registry.create(3, name=name),
        lambda: registry.attach(name),
        lambda: registry.unlink(name),
    ):
        with pytest.raises(ValueError, match="is no name for an array: use 1 to 200 characters of A-Z a-z 0-9"):
            call()


def test_a_name_must_be_a_string() -> None:
    with pytest.raises(TypeError, match="must be a str; got int: 3"):
        registry.create(3, name=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["x" * 200, "a.b-c_D9", "-", "_"])
def test_names_up_to_the_limit_are_taken(name: str) -> None:
    segment = registry.create(3, name=name)
    assert registry.attach(name).key == segment.key
    assert segment.name.endswith(name)


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        (-1, ValueError, "no negative lengths"),
        ((3, -2), ValueError, "no negative lengths"),
        (2**62, ValueError, "more than an address can reach"),
        ((2**40, 2**40), ValueError, "more than an address can reach"),
        ((0, 2**62, 2**62), ValueError, "more than an address can reach"),
        ((1,) * 65, ValueError, "at most 64 dimensions; got 65"),
        (2.5, TypeError, "must be an int or a sequence of ints"),
        ((2, "3"), TypeError, "must be an int or a sequence of ints"),
        (None, TypeError, "must be an int or a sequence of ints"),
    ],
)
def test_shapes_that_cannot_be_are_refused(shape: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        registry.create(shape)


@pytest.mark.parametrize("shape", [3, np.int64(3), (3,), [3], np.array([3]), True + 2])
def test_shapes_are_taken_as_numpy_takes_them(shape: Any) -> None:
    assert registry.create(shape).descriptor.shape == (3,)


def test_objects_are_refused_with_advice() -> None:
    with pytest.raises(TypeError, match=r"dtype object cannot be shared.*use a numeric or fixed-width dtype"):
        registry.create(3, object)


def test_chunks_must_fit_the_shape() -> None:
    with pytest.raises(ValueError, match=r"chunks must be 2 positive lengths for shape \(3, 4\); got \(1,\)"):
        registry.create((3, 4), chunks=(1,))


def test_keep_and_if_exists_ask_for_a_name() -> None:
    with pytest.raises(ValueError, match="are for named arrays; give it a name"):
        registry.create(3, keep=True)
    with pytest.raises(ValueError, match="are for named arrays; give it a name"):
        registry.create(3, if_exists="open")
    with pytest.raises(ValueError, match="must be 'raise', 'open' or 'replace'; got 'maybe'"):
        registry.create(3, name="x", if_exists="maybe")  # type: ignore[arg-type]


def test_a_taken_name_is_an_error_that_says_what_to_do() -> None:
    held = registry.create(3, name="x")
    with pytest.raises(SegmentExistsError, match=r"already; open it with shmarray\.open") as caught:
        registry.create(3, name="x")
    assert caught.value.name == "x"
    assert isinstance(caught.value, FileExistsError)
    assert registry.attach("x").key == held.key


def test_if_exists_open_gives_the_same_pages_and_asserts_shape_and_dtype() -> None:
    made = registry.create((2, 3), "f4", name="x", if_exists="open")
    assert registry.create((2, 3), "f4", name="x", if_exists="open").address == made.address
    with pytest.raises(ValueError, match=r"'x' exists with shape \(2, 3\) and dtype float32, not \(3, 2\)"):
        registry.create((3, 2), "f4", name="x", if_exists="open")
    with pytest.raises(ValueError, match=r"not .* and float64; open it as it is"):
        registry.create((2, 3), "f8", name="x", if_exists="open")


def test_replacing_leaves_the_old_one_to_its_holders(namespace: str) -> None:
    old = registry.create(3, "u1", name="x")
    old.buf[0] = 1
    new = registry.create(5, "u1", name="x", if_exists="replace")
    assert registry.attach("x").address == new.address != old.address
    assert old.buf[0] == 1
    del old
    assert registry.info("x").shape == (5,)
    assert segment_files(namespace) == [new.name]


def test_replacing_also_takes_a_free_name() -> None:
    made = registry.create(5, "u1", name="x", if_exists="replace")
    assert registry.attach("x").address == made.address


def test_a_name_left_by_a_crash_is_free(namespace: str) -> None:
    code = "import os, signal; from shmarray import registry; a = registry.create(3, name='x'); os._exit(0)"
    run_python(code)
    assert segment_files(namespace) == [f"{namespace}~x"]
    assert registry.create(4, name="x").descriptor.shape == (4,)


def test_a_kept_array_lives_without_holders_until_unlink() -> None:
    run_python("from shmarray import registry; a = registry.create(3, 'u1', name='x', keep=True); a.buf[1] = 9")
    assert registry.gc() == []
    again = registry.attach("x")
    assert again.buf[1] == 9
    del again
    with pytest.raises(SegmentExistsError):
        registry.create(3, name="x")
    assert [one.keep for one in registry.list()] == [True]
    registry.unlink("x")
    with pytest.raises(SegmentNotFoundError):
        registry.attach("x")


def test_the_quota_counts_the_namespace(namespace: str) -> None:
    with shmarray.config.override(max_nbytes=100_000):
        with holding("from shmarray import registry; a = registry.create(60_000, 'u1', name='other')"):
            first = registry.create(20_000, "u1")
            with pytest.raises(OutOfSharedMemoryError, match=r"config\.max_nbytes allows; drop arrays") as caught:
                registry.create(20_000, "u1")
            assert caught.value.limit == "config.max_nbytes"
        second = registry.create(20_000, "u1")
        assert first.key != second.key


def test_more_than_there_is_names_the_limit_and_leaves_nothing(namespace: str) -> None:
    nbytes = reserve.free_nbytes() * 2 + 2**34
    with pytest.raises(OutOfSharedMemoryError, match=r"of shared memory \([0-9,]+ bytes\) were asked for") as caught:
        registry.create(nbytes, "u1", name="x")
    assert caught.value.nbytes >= nbytes
    assert isinstance(caught.value, MemoryError)
    assert caught.value.__notes__ == [f"The memory is for an array of shape ({nbytes},) and dtype uint8."]
    assert segment_files(namespace) == []


def test_without_descriptors_the_error_says_so_and_passes(namespace: str) -> None:
    code = """
import os, resource
from shmarray import registry
from shmarray.errors import OutOfSharedMemoryError
held = registry.create(3, name="held")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for attempt in (lambda: registry.create(10**6, name="x"), lambda: registry.attach("kept")):
    try:
        attempt()
    except OutOfSharedMemoryError as error:
        assert "ulimit -n" in str(error), error
    else:
        raise AssertionError
for fd in taken:
    os.close(fd)
registry.create(10**6, name="x")
assert registry.attach("kept").nbytes == 24
assert registry.attach("held").key == held.key
"""
    kept = registry.create(3, name="kept")
    run_python(code)
    assert registry.attach("kept").key == kept.key


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_another_users_file_of_that_name_is_not_replaced(namespace: str) -> None:
    path = f"/dev/shm/{namespace}~x"
    with open(path, "wb"):
        pass
    os.chown(path, 12345, 12345)
    try:
        with pytest.raises(SegmentExistsError):
            registry.create(3, name="x")
        with pytest.raises(SegmentAccessError, match="is not a private file of user"):
            registry.create(3, name="x", if_exists="open")
        with pytest.raises(SegmentAccessError, match="cannot be replaced"):
            registry.create(3, name="x", if_exists="replace")
        with pytest.raises(SegmentAccessError, match="left alone"):
            registry.unlink("x")
        assert registry.gc() == []
        assert os.stat(path).st_uid == 12345
    finally:
        os.unlink(path)


def test_where_the_system_is_not_linux_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "LINUX", False)
    with pytest.raises(ShmArrayError, match="on Linux only"):
        registry.create(3)
    with pytest.raises(ShmArrayError, match="on Linux only"):
        registry.attach("x")


def test_the_modules_import_where_nothing_of_linux_is(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import sys
sys.modules["fcntl"] = None
sys.platform = "win32"
import os
del os.O_TMPFILE, os.O_NOFOLLOW, os.O_CLOEXEC, os.O_NONBLOCK, os.register_at_fork
from shmarray import registry
from shmarray.errors import ShmArrayError
try:
    registry.create(3)
except ShmArrayError as error:
    assert "on Linux only" in str(error)
else:
    raise AssertionError
assert registry.gc() == []
"""
    run_python(code)


def test_importing_the_registry_does_not_load_the_standard_module() -> None:
    code = """
import sys
from shmarray import registry, segment
for heavy in ("multiprocessing", "subprocess", "secrets", "numba", "logging", "tempfile", "json"):
    assert heavy not in sys.modules, heavy
assert issubclass(segment.Segment, __import__("multiprocessing.shared_memory").shared_memory.SharedMemory)
"""
    run_python(code)


def test_the_oldest_segments_give_their_descriptors_up(namespace: str) -> None:
    code = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from shmarray import registry
named = [registry.create(10, "u1", name=f"n{i}") for i in range(200)]
nameless = [registry.create(10, "u1") for i in range(200)]
assert len(os.listdir("/proc/self/fd")) < 64 + 16
for i in (0, 50, 199):
    named[i].buf[0] = nameless[i].buf[0] = i
    assert registry.attach(f"n{i}").address == named[i].address
    assert nameless[i].name in os.listdir("/dev/shm")
    for fd in (named[i].open_unlocked(), nameless[i].open_unlocked()):
        assert os.pread(fd, 1, 0)[0] == i
        os.close(fd)
registry.gc()
assert len(registry.list()) == 203
del named, nameless
registry.trim()
registry.gc()
assert registry.list() == [], registry.list()
"""
    run_python(code)
    assert segment_files(namespace) == []


@pytest.mark.parametrize("environ", [{}, {"SHMARRAY_NO_TMPFILE": "1"}], ids=["O_TMPFILE", "fallback"])
def test_a_clean_exit_leaves_no_file_at_all(namespace: str, environ: dict[str, str]) -> None:
    code = """
import sys
from shmarray import registry
named, nameless = registry.create(3, name="x"), registry.create(3)
published = registry.create(3)
published.name
registry.create(3, name="parked")
cycle = [registry.create(3, name="in-a-cycle")]
cycle.append(cycle)
"""
    run_python(code, **environ)
    assert [name for name in os.listdir("/dev/shm") if name.startswith(namespace)] == []
    assert sys.platform == "linux"


def test_a_multiprocessing_child_leaves_no_file_either(namespace: str) -> None:
    code = """
import multiprocessing as mp
from shmarray import registry
def child():
    global a
    a = registry.create(3, name="child")
if __name__ == "__main__":
    b = registry.create(3, name="parent")
    for method in ("fork", "spawn"):
        process = mp.get_context("fork").Process(target=child)
        process.start(); process.join()
        assert process.exitcode == 0
        assert [one.name for one in registry.list()] == ["parent"], registry.list()
"""
    run_python(code)
    assert segment_files(namespace) == []


def test_segments_are_reserved_whole_so_that_no_store_can_fail() -> None:
    segment = registry.create(10 * 2**20 + 5, "u1", name="x")
    status = os.stat(f"/dev/shm/{segment.name}")
    assert status.st_blocks * 512 >= status.st_size
    assert creation.check_shape(3, 1) == (3,)
