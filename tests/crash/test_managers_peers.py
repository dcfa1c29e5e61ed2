"""Row 44 of the table of faults: peers that have a manager's key and are broken."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import shmarray as sa
from shmarray import multiprocessing as mp
from shmarray.multiprocessing import session
from shmarray.multiprocessing.frames import send_array
from shmarray.multiprocessing.managers import ArrayManager
from tests.crash.managers import opened_line, started
from tests.processes import wait_until


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[ArrayManager]:
    with started(ArrayManager, str(tmp_path / "socket")) as manager:
        yield manager


def test_row_44_malformed_frames_are_refused_and_change_nothing(serving: ArrayManager) -> None:
    array = serving.array(1000, "i4", name="target")
    array += 7
    good: list[bytes] = []
    ours, theirs = mp.Pipe()
    with ours, theirs:
        send_array(theirs, np.arange(1000, dtype="i4"))
        good = [ours.recv_bytes(), ours.recv_bytes()]
    header, payload = good
    flipped = bytearray(payload)
    flipped[1234] ^= 4
    for messages in (
        [header, bytes(flipped)],
        [header, payload + b"x"],
        [payload, header],
        [b"", b""],
        [header, payload[:-4]],
        [pickle.dumps(("read", ()))],
    ):
        line = opened_line(serving, "target")
        end = line._connection
        end.send(("write", (slice(None),), (1000,)))
        assert end.recv() == ("ok", None)
        for message in messages:
            try:
                end.send_bytes(message)
            except OSError:  # it has hung up already
                break
        try:
            kind, error, _ = end.recv()
            assert kind == "error"
            assert isinstance(error, sa.DamagedFrameError)
            with pytest.raises((EOFError, OSError)):
                end.recv()
        except ConnectionResetError:
            pass  # hung up with bytes of ours unread, which may cost the error its way
        line.close()
        assert (array == 7).all()


def test_requests_that_are_none_are_answered_with_an_error_and_the_session_goes_on(serving: ArrayManager) -> None:
    serving.array(3, name="target")
    line = opened_line(serving, "target")
    for request in (("frobnicate",), (), 7, ("read",), ("write", ...), ("read", "name"), ("write", ..., (9, 9))):
        line._connection.send(request)
        assert line._connection.recv()[0] == "error"
        assert line.read((0,), (), np.dtype("f8")) == 0
    line._connection.send_bytes(b"\x80\x05no pickle.")
    assert line._connection.recv()[0] == "error"
    assert line.read((0,), (), np.dtype("f8")) == 0
    for request in (("join", "x", "r+"), ("open", 3, "r"), ("create", -1, "f8", {"name": None})):
        line._connection.send(request)
        assert line._connection.recv()[0] == "error"
        with pytest.raises(ValueError, match="no array"):  # what cannot be lent leaves it with nothing
            line.ask("read", (0,))
        line.ask("open", "target", "r+")
        assert line.read((0,), (), np.dtype("f8")) == 0
    line.close()


def test_who_stands_still_in_a_transfer_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "TRANSFER_S", 0.3)  # inherited by the server
    with started(ArrayManager, str(tmp_path / "socket")) as manager:
        array = manager.array(1_000_000, name="target")
        tasks = f"/proc/{manager._process.pid}/task"
        reader, writer = opened_line(manager, "target"), opened_line(manager, "target")
        writer._connection.send(("write", (slice(None),), (1_000_000,)))
        reader._connection.send(("read", (slice(None),)))
        # The writer sends nothing, the reader takes nothing.
        assert writer._connection.recv() == ("ok", None)
        kind, error, _ = writer._connection.recv()
        assert kind == "error"
        assert isinstance(error, sa.ManagerConnectionError)
        wait_until(lambda: len(os.listdir(tasks)) == 1)  # its main thread: both sessions have ended
        with pytest.raises((EOFError, OSError)):
            while True:
                reader._connection.recv_bytes()
        reader.close()
        writer.close()
        array[0] = 1
