"""What a client has that cannot map a manager's arrays: slices over the connection, exactly NumPy's."""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Iterator
from multiprocessing import Pipe
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import shmarray as sa
from shmarray import multiprocessing as mp
from shmarray.multiprocessing import frames, managers, remote
from shmarray.multiprocessing.frames import FRAME_NBYTES, pieces, receive_array, send_array
from shmarray.multiprocessing.managers import ArrayManager, RemoteArray
from shmarray.multiprocessing.selection import shape_of


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArrayManager]:
    """A manager that this process believes to be elsewhere."""
    monkeypatch.setattr(managers, "is_nearby", lambda offer: False)
    with mp.Manager() as manager:
        yield manager
    manager.join()  # lets go of what it knows of the process


def test_a_far_array_knows_what_it_is(far: ArrayManager) -> None:
    array = far.array((3, 4), "f4", name="far")
    assert isinstance(array, RemoteArray)
    assert (array.shape, array.dtype, array.ndim, array.size) == ((3, 4), np.float32, 2, 12)
    assert (array.nbytes, array.itemsize, len(array), array.name, array.mode) == (48, 4, 3, "far", "r+")
    assert "'far'" in repr(array)
    assert "float32" in repr(array)


def test_slices_are_read_and_written(far: ArrayManager) -> None:
    array = far.array((3, 4), "i4", name="far")
    array[1] = [1, 2, 3, 4]
    array[:, -1] = 9
    array[0, ::2] += 5
    expected = [[5, 0, 5, 9], [1, 2, 3, 9], [0, 0, 0, 9]]
    assert np.asarray(array).tolist() == expected
    assert sa.open("far").tolist() == expected
    row = array[1]
    row[:] = 0
    assert array[1, 0] == 1, "what was read is a copy"
    assert type(row) is np.ndarray
    assert isinstance(array[2, 3], np.int32)
    assert array[2, 3, ...].shape == ()
    assert np.sum(array) == np.sum(expected)
    assert np.array(array, dtype="f8").dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.asarray(array, copy=False)


def test_what_does_not_fit_is_refused_as_numpy_does(far: ArrayManager) -> None:
    array = far.array((3, 4), "i4")
    with pytest.raises(IndexError):
        array[3]
    with pytest.raises(IndexError):
        array[0, 0, 0]
    for key in ([0, 1], np.array([True, False, True]), True, "x", 1.5):
        with pytest.raises(TypeError, match="RemoteArray takes integers"):
            array[key]
    with pytest.raises(ValueError, match="cannot be assigned"):
        array[0] = [1, 2, 3]
    with pytest.raises(ValueError, match="invalid literal"):
        array[0] = "word"
    with pytest.raises(TypeError, match="without dimensions"):
        len(far.array(()))
    with pytest.raises(TypeError, match="ArrayManager"):
        RemoteArray()
    assert array[...].sum() == 0


def test_read_only_is_kept_to_on_both_sides(far: ArrayManager) -> None:
    far.array(3, name="far")[:] = 2
    array = far.open("far", "r")
    assert array[:].sum() == 6
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    array.mode = "r+"  # a client that does not keep to it
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert array[0] == 2
    with pytest.raises(ValueError, match="mode"):
        far.open("far", "c")  # type: ignore[arg-type]


def test_records_dates_and_scalars_travel(far: ArrayManager) -> None:
    records = far.array(3, [("x", "<i4"), ("y", "<f8")])
    records[1] = (7, 2.5)
    assert records[:].tolist() == [(0, 0.0), (7, 2.5), (0, 0.0)]
    dates = far.array(2, "M8[D]")
    dates[:] = np.array(["2024-02-29", "1970-01-01"], "M8[D]")
    assert dates[0] == np.datetime64("2024-02-29")
    scalar = far.array((), "c16")
    scalar[()] = 1 + 2j
    assert scalar[()] == 1 + 2j
    empty = far.array((0, 3))
    assert empty[:].shape == (0, 3)
    empty[:] = 1


@given(data=st.data())
@settings(max_examples=30)
def test_basic_indexing_is_numpys(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    array = np.arange(int(np.prod(shape)), dtype="i8").reshape(shape)
    assert shape_of(shape, key) == np.shape(array[key])


@given(
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7),
    itemsize=st.integers(1, 40),
    frame=st.integers(1, 200),
)
@settings(max_examples=40)
def test_pieces_are_the_array_in_order(shape: tuple[int, ...], itemsize: int, frame: int) -> None:
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "FRAME_NBYTES", frame)
        blocks = [numbers[(*index, ...)] for index in pieces(shape, itemsize)]
    assert all(block.size * itemsize <= max(frame, itemsize) for block in blocks)
    assert [number for block in blocks for number in block.reshape(-1)] == numbers.reshape(-1).tolist()


def test_large_and_strided_slices_arrive_whole(far: ArrayManager) -> None:
    array = far.array((7, 90_001, 3), "f4")
    values = np.random.default_rng(1).random(array.shape, dtype="f4")
    array[...] = values
    assert np.array_equal(array[...], values)
    assert np.array_equal(array[::-2, 5:80_000:3, 1:], values[::-2, 5:80_000:3, 1:])
    array[:, ::-1] = values
    assert np.array_equal(array[:, ::-1, ::2], values[:, :, ::2])
    array[...] = 7  # one number travels
    assert array[6, 90_000, 2] == 7
    wide = far.array(3, f"V{FRAME_NBYTES + 10}")
    item = np.frombuffer(os.urandom(wide.itemsize), wide.dtype)
    wide[2:] = item
    assert wide[2:].tobytes() == item.tobytes()


def test_an_unnamed_far_array_lives_while_it_is_used(far: ArrayManager) -> None:
    array = far.array(1000)
    array[:] = 1
    assert len(sa.registry.list()) == 1
    again = pickle.loads(pickle.dumps(array))
    assert again[999] == 1
    del array
    assert again[0] == 1, "the second has a connection of its own"
    assert len(sa.registry.list()) == 1


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("receive_array", KeyboardInterrupt),
        ("receive_array", sa.DamagedFrameError),
        ("send_array", KeyboardInterrupt),
    ],
)
def test_what_was_cut_short_is_not_the_end_of_a_nameless_array(
    far: ArrayManager, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    def cut_short(*arguments: Any) -> None:
        raise error

    array = far.array(1000)
    array[:] = 5
    with monkeypatch.context() as patch:
        patch.setattr(remote, step, cut_short)
        with pytest.raises(error):
            if step == "receive_array":
                array[:]
            else:
                array[:] = 6
    assert array[:].tolist() == [5.0] * 1000, "another connection, the same array"


def test_a_forked_child_uses_it_too(far: ArrayManager) -> None:
    array = far.array(1000, "i8")
    array[:] = 1
    child = mp.get_context("fork").Process(target=_add_one, args=(array,))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert array[:].sum() == 2000


def _add_one(array: RemoteArray) -> None:
    array[:] += 1


# --- frames -------------------------------------------------------------------------------------------------


def _sent(array: np.ndarray[Any, Any]) -> list[bytes]:
    """The messages that an array becomes."""
    reader, writer = Pipe()
    with reader, writer:
        send_array(writer, array)
        messages = []
        while reader.poll():
            messages.append(reader.recv_bytes())
        return messages


def _received(messages: list[bytes], array: np.ndarray[Any, Any]) -> None:
    reader, writer = Pipe()
    with reader:
        for message in messages:
            writer.send_bytes(message)
        writer.close()
        receive_array(reader, array)


def test_what_is_sent_is_received() -> None:
    values, into = np.arange(10.0), np.zeros((10, 2))
    _received(_sent(values), into[:, 1])
    assert np.array_equal(into[:, 1], values)
    assert not into[:, 0].any()


def test_every_flipped_bit_is_noticed_and_reaches_nobody() -> None:
    values = np.arange(3, dtype="i4") + 1
    messages = _sent(values)
    for number, message in enumerate(messages):
        for bit in range(8 * len(message)):
            flipped = bytearray(message)
            flipped[bit // 8] ^= 1 << bit % 8
            damaged = [*messages[:number], bytes(flipped), *messages[number + 1 :]]
            into = np.zeros(3, "i4")
            with pytest.raises(sa.DamagedFrameError):
                _received(damaged, into)
            assert not into.any()


def test_frames_of_another_length_order_or_number_are_refused() -> None:
    values = np.arange(3, dtype="i4") + 1
    header, payload = _sent(values)
    longer = frames._FACTS.pack(b"SHMF", 1 << 31, 0)
    for messages in (
        [payload, header],
        [header, payload + b"x"],
        [header, payload[:-1]],
        [header, header],
        [header * 1000, payload],
        [longer + zlib.crc32(payload, zlib.crc32(longer)).to_bytes(4, "little"), payload],
        [b"", payload],
    ):
        with pytest.raises(sa.DamagedFrameError):
            _received(messages, np.zeros(3, "i4"))
    for messages in ([], [header]):
        with pytest.raises(EOFError):
            _received(messages, np.zeros(3, "i4"))


def test_a_manager_that_offers_something_else_is_not_believed(
    far: ArrayManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = far.array(3)
    monkeypatch.setattr(remote.Line, "_ask", lambda self, *request: ((4,), np.dtype("f8")))
    with pytest.raises(sa.DamagedFrameError, match="offered"):
        array[:]


def test_a_manager_of_another_version_says_so(far: ArrayManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PROTOCOL", 99)
    with pytest.raises(managers.RemoteError, match="version 99"):
        far.array(3)
