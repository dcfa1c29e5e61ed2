"""Creation, opening and adopting: what comes out, and what is refused."""

from __future__ import annotations

import threading
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

import shmarray as sa
from shmarray.errors import SegmentExistsError, SegmentNotFoundError


def test_empty_has_shape_dtype_and_a_segment() -> None:
    a = sa.empty((3, 4), "f4")
    assert type(a) is sa.SharedArray
    assert (a.shape, a.dtype, a.flags.c_contiguous, a.is_shared, a.name) == (
        (3, 4),
        np.float32,
        True,
        True,
        None,
    )


@pytest.mark.parametrize("shape", [(), 0, 5, (0, 3), (2, 3, 4), [2, 3], np.int64(3), (np.int32(2),)])
def test_zeros_takes_every_way_to_say_a_shape(shape: object) -> None:
    assert np.array_equal(sa.zeros(shape), np.zeros(shape))
    assert sa.zeros(shape).shape == np.zeros(shape).shape


def test_zeros_clears_recycled_pages() -> None:
    for _ in range(3):
        a = sa.zeros(100_000)
        assert not a.any()
        a += 1
        del a


@pytest.mark.parametrize("dtype", ["?", "i1", "<u2", ">f8", "c16", "M8[ms]", "m8[s]", "S5", "U3", "f2", "V7"])
def test_zeros_of_every_kind_are_numpys(dtype: str) -> None:
    assert sa.zeros(3, dtype).tobytes() == np.zeros(3, dtype).tobytes()
    assert sa.zeros(3, dtype).dtype == np.dtype(dtype)


def test_ones_and_full_fill() -> None:
    assert np.array_equal(sa.ones((2, 2), int), np.ones((2, 2), int))
    assert np.array_equal(sa.full((2, 3), [1, 2, 3]), np.full((2, 3), [1, 2, 3]))
    assert sa.full(2, 7).dtype == np.full(2, 7).dtype
    assert sa.full(2, "ab").tolist() == ["ab", "ab"]
    big = sa.full((3000, 400), 2.5)
    assert big.min() == big.max() == 2.5


def test_full_that_does_not_broadcast_is_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        sa.full(3, [1, 2])


def test_array_copies_once_and_asarray_not_at_all() -> None:
    source = np.arange(6).reshape(2, 3)
    a = sa.array(source)
    source[0, 0] = 99
    assert a[0, 0] == 0
    assert sa.asarray(a) is a
    view = sa.asarray(np.asarray(a)[1])
    assert type(view) is sa.SharedArray
    view[:] = 5
    assert a[1].tolist() == [5, 5, 5]
    assert sa.asarray(a, float).dtype == float
    assert sa.asarray(source).is_shared


@pytest.mark.parametrize(
    "thing",
    [
        [1, 2.5],
        "text",
        3,
        [["a", "bcd"]],
        np.arange(6.0).reshape(2, 3).T,
        np.ones(3)[::-1],
        np.float32(2),
        range(4),
    ],
)
def test_array_agrees_with_numpy(thing: object) -> None:
    a, expected = sa.array(thing), np.array(thing)
    assert a.dtype == expected.dtype
    assert np.array_equal(a, expected)
    assert a.flags.c_contiguous


def test_array_converts_to_a_dtype() -> None:
    assert sa.array([1.7, 2.2], int).tolist() == [1, 2]
    assert sa.array(np.arange(3), "U").dtype == np.arange(3).astype("U").dtype
    assert sa.array(np.arange(3), "M8[s]").dtype == np.dtype("M8[s]")
    large = sa.array(np.arange(1_000_000), "f4")
    assert np.array_equal(large, np.arange(1_000_000, dtype="f4"))


def test_open_sees_the_same_memory() -> None:
    a = sa.zeros((2, 3), name="alpha")
    b = sa.open("alpha", shape=(2, 3), dtype=float)
    b[1] = 7
    assert a[1].tolist() == [7, 7, 7]
    assert (a.name, b.name, a[0].name, b.T.name) == ("alpha",) * 4


def test_open_read_only_cannot_be_written() -> None:
    a = sa.zeros(3, name="ro")
    b = sa.open("ro", "r")
    with pytest.raises(ValueError, match="read-only"):
        b[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        b.flags.writeable = True
    a[0] = 5
    assert b[0] == 5


def test_copy_on_write_keeps_its_writes_to_itself() -> None:
    a = sa.zeros(3, name="cow")
    b = sa.open("cow", "c")
    b[0] = 1
    assert (a[0], b[0], b.is_shared) == (0, 1, False)
    assert sa.asarray(b) is not b


def test_open_waits_for_the_name() -> None:
    made: list[sa.SharedArray] = []
    maker = threading.Thread(target=lambda: made.append(sa.ones(2, name="later")))
    maker.start()
    assert sa.open("later", timeout=30).shape == (2,)
    maker.join()


def test_open_asserts_shape_and_dtype() -> None:
    a = sa.zeros((2, 3), name="sized")
    with pytest.raises(ValueError, match=r"'sized' has shape \(2, 3\), not \(3, 2\)"):
        sa.open("sized", shape=(3, 2))
    with pytest.raises(ValueError, match="'sized' has dtype float64, not int32"):
        sa.open("sized", dtype="i4")
    del a


def test_open_of_nothing_says_so() -> None:
    with pytest.raises(SegmentNotFoundError):
        sa.open("nobody")
    with pytest.raises(SegmentNotFoundError):
        sa.open("nobody", timeout=0)


@pytest.mark.parametrize("mode", ["w+", "w", "", "rw"])
def test_other_modes_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=r"mode must be 'r\+', 'r' or 'c'"):
        sa.open("x", mode)  # type: ignore[arg-type]


def test_if_exists_raise_open_and_replace() -> None:
    a = sa.full(3, 5.0, name="once")
    with pytest.raises(SegmentExistsError):
        sa.zeros(3, name="once")
    b = sa.zeros(3, name="once", if_exists="open")
    assert b.tolist() == [5, 5, 5], "what is there is not cleared"
    assert sa.full(3, 1.0, name="once", if_exists="open").tolist() == [5, 5, 5]
    with pytest.raises(ValueError, match="shape"):
        sa.zeros(4, name="once", if_exists="open")
    with pytest.raises(ValueError, match="dtype"):
        sa.zeros(3, int, name="once", if_exists="open")
    c = sa.zeros(4, name="once", if_exists="replace")
    assert a.tolist() == [5, 5, 5]
    assert sa.open("once").shape == (4,)
    assert sa.zeros(2, name="fresh", if_exists="open").tolist() == [0, 0]
    with pytest.raises(ValueError, match="if_exists"):
        sa.zeros(2, if_exists="maybe")  # type: ignore[arg-type]
    del c


@pytest.mark.parametrize("bad", ["a/b", "", ".hidden", "x" * 201, "new\nline", "ä", "sp ace", "nul\0"])
def test_bad_names_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="name"):
        sa.zeros(1, name=bad)


@pytest.mark.parametrize("shape", [-1, (2, -3), (2**40, 2**40), 2**62])
def test_impossible_shapes_are_refused(shape: object) -> None:
    with pytest.raises((ValueError, MemoryError)):
        sa.empty(shape)


@pytest.mark.parametrize("shape", [2.5, "3", (1, 2.0), None])
def test_shapes_that_are_not_integers_are_refused(shape: object) -> None:
    with pytest.raises(TypeError):
        sa.empty(shape)


@pytest.mark.parametrize("dtype", [object, [("a", "O")], "O"])
def test_object_dtypes_are_refused(dtype: object) -> None:
    with pytest.raises(TypeError, match="object"):
        sa.empty(3, dtype)
    with pytest.raises(TypeError, match="object"):
        sa.array([object()])
    with pytest.raises(TypeError, match="object"):
        sa.from_raw("x", 3, dtype)


def test_keep_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        sa.zeros(1, keep=True)


def test_keep_outlives_its_holders_until_unlinked() -> None:
    a = sa.zeros(2, name="kept", keep=True)
    a[0] = 3
    assert a.keep
    del a
    assert sa.open("kept")[0] == 3
    sa.unlink("kept")
    with pytest.raises(SegmentNotFoundError):
        sa.open("kept")
    with pytest.raises(SegmentNotFoundError):
        sa.unlink("kept")


def test_arrays_stay_usable_after_unlink() -> None:
    a = sa.ones(1000, name="gone")
    view = a[::-3]
    a.unlink()
    with pytest.raises(SegmentNotFoundError):
        sa.open("gone")
    del a
    view += 1
    assert view.sum() == 2 * view.size


def test_the_last_view_keeps_the_memory() -> None:
    a = sa.array(np.arange(10))
    views = [a[2:], np.asarray(a)[::2], memoryview(a), a.T.reshape(2, 5)]
    segment = a.shm
    assert segment is not None
    segment.close()
    del a, segment
    assert [np.asarray(view).ravel()[1] for view in views] == [3, 2, 1, 1]


def test_chunks_are_what_was_asked_for() -> None:
    assert sa.zeros((10, 6), chunks=(4, -1)).chunks == (4, 6)
    assert sa.zeros((10, 6), chunks=3).chunks == (3, 6)
    assert sa.zeros((10, 6), name="cut", chunks=(5, 2)).chunks == (5, 2)
    with sa.config.override(chunk_nbytes=80):
        assert sa.zeros(100).chunks == (10,)
    with pytest.raises(ValueError, match="chunk"):
        sa.zeros((10, 6), chunks=(1, 2, 3))
    with pytest.raises(ValueError, match="chunk"):
        sa.zeros((10, 6), chunks=0)


def test_from_raw_reads_what_the_standard_library_made() -> None:
    foreign = SharedMemory(create=True, size=64)
    try:
        assert foreign.buf is not None
        foreign.buf[:] = bytes(range(64))
        a = sa.from_raw(foreign.name, 8, "u1")
        assert a.tolist() == list(range(8))
        a[0] = 77
        assert foreign.buf[0] == 77
        readonly = sa.from_raw(foreign.name, (2, 2), "u1", "r")
        with pytest.raises(ValueError, match="read-only"):
            readonly[0, 0] = 1
        with pytest.raises(ValueError, match="bytes"):
            sa.from_raw(foreign.name, 1_000_000)
        del a, readonly
        assert SharedMemory(foreign.name).buf is not None, "dropping our array does not take the segment"
    finally:
        foreign.close()
        foreign.unlink()


def test_from_raw_of_nothing_says_so() -> None:
    with pytest.raises(SegmentNotFoundError):
        sa.from_raw("no-such-segment", 3)
    with pytest.raises(ValueError, match="mode"):
        sa.from_raw("x", 3, mode="w+")  # type: ignore[arg-type]
