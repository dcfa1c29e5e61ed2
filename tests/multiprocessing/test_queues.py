"""Queues and pipes keep the arrays they carry until these are received, or nobody can receive them: by no clock."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_sharer
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray import multiprocessing as mp
from shmarray import packing, registry
from shmarray.errors import SegmentNotFoundError
from tests.conftest import segment_files
from tests.processes import run_python, wait_until

KINDS = ["Queue", "JoinableQueue", "SimpleQueue", "Pipe", "one-way Pipe"]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A handle that is kept by time is lost at once, here and in all processes."""
    monkeypatch.setenv("SHMARRAY_HANDLE_TTL_S", "0")
    before = sa.config.handle_ttl_s
    sa.config.handle_ttl_s = 0.0
    yield
    sa.config.handle_ttl_s = before


class Channel:
    """One of the kinds, with one face."""

    def __init__(self, kind: str, method: str = "fork") -> None:
        context = mp.get_context(method)
        self.taker: Any
        self.giver: Any
        if "Pipe" in kind:
            self.taker, self.giver = context.Pipe(duplex=kind == "Pipe")
        else:
            self.taker = self.giver = getattr(context, kind)()
        self.context = context

    def put(self, thing: Any) -> None:
        if hasattr(self.giver, "put"):
            self.giver.put(thing)
        else:
            self.giver.send(thing)

    def get(self) -> Any:
        return self.taker.get() if hasattr(self.taker, "get") else self.taker.recv()

    def close(self) -> None:
        for end in {id(end): end for end in (self.taker, self.giver) if end is not None}.values():
            end.close()
            if hasattr(end, "join_thread"):
                end.join_thread()
        self.taker = self.giver = None  # a Queue that was not put into closes its ends with the object


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> Iterator[Channel]:
    made = Channel(request.param)
    yield made
    made.close()


def put_new(give: Callable[[Any], None], *values: float) -> None:
    for value in values:
        give(sa.full(1000, value))


@pytest.mark.parametrize("channel", KINDS, indirect=True)
def test_arrays_outlive_a_sender_that_exits_at_once(channel: Channel) -> None:
    sender = channel.context.Process(target=put_new, args=(channel.put, 1.0, 2.0))
    sender.start()
    sender.join()
    assert sender.exitcode == 0
    registry.gc()
    first, second = channel.get(), channel.get()
    assert isinstance(first, sa.SharedArray)
    assert first.sum() == 1000.0
    assert second.sum() == 2000.0


def test_a_pipe_of_the_original_loses_them() -> None:
    taker, giver = multiprocessing.Pipe(duplex=False)
    with taker, giver:
        put_new(giver.send, 1.0)
        registry.gc()
        with pytest.raises(SegmentNotFoundError):
            taker.recv()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_they_reach_a_process_that_inherited_nothing(method: str) -> None:
    channels = [Channel(kind, method) for kind in ("SimpleQueue", "Queue")]
    for channel in channels:
        put_new(channel.put, 1.0)
    wait_until(lambda: not channels[1].taker.empty())
    registry.gc()
    receiver = channels[0].context.Process(target=take_one, args=[channel.taker for channel in channels])
    receiver.start()
    receiver.join()
    assert receiver.exitcode == 0
    for channel in channels:
        channel.close()


def take_one(*queues: Any) -> None:
    for queue in queues:
        assert queue.get().sum() == 1000.0


@pytest.mark.parametrize("channel", ["SimpleQueue", "one-way Pipe"], indirect=True)
def test_what_nobody_can_receive_any_more_goes(channel: Channel, namespace: str) -> None:
    put_new(channel.put, 1.0, 2.0)
    registry.gc()
    assert len(segment_files(namespace)) == 2
    channel.get()
    channel.close()
    registry.gc()
    assert not segment_files(namespace)


@pytest.mark.parametrize("channel", ["SimpleQueue", "Pipe"], indirect=True)
def test_what_a_killed_receiver_had_not_received_goes(channel: Channel, namespace: str) -> None:
    receiver = channel.context.Process(target=signal.pause)
    receiver.start()
    sender = channel.context.Process(target=put_new, args=(channel.put, 1.0))
    sender.start()
    sender.join()
    channel.close()
    registry.gc()
    assert segment_files(namespace)  # the receiver still could
    receiver.kill()
    receiver.join()
    registry.gc()
    assert not segment_files(namespace)


def test_many_receivers_share_a_queue(namespace: str) -> None:
    queue, done = mp.Queue(), mp.SimpleQueue()
    receivers = [mp.Process(target=pass_on, args=(queue, done)) for _ in range(3)]
    for receiver in receivers:
        receiver.start()
    for number in range(60):
        queue.put((number, sa.full(10, number)) if number % 3 else number)
    found = sorted(done.get() for _ in range(60))
    assert found == sorted((number, float(number)) for number in range(60))
    for _ in receivers:
        queue.put(None)
    for receiver in receivers:
        receiver.join()
    queue.close()
    queue.join_thread()
    done.close()
    registry.gc()
    assert not segment_files(namespace)


def pass_on(queue: Any, done: Any) -> None:
    while (item := queue.get()) is not None:
        number, array = item if isinstance(item, tuple) else (item, np.full(1, item))
        done.put((number, float(array[0])))


def test_a_message_takes_many_arrays_and_ctypes_objects() -> None:
    taker, giver = mp.Pipe()
    with taker, giver:
        giver.send([sa.full(1, number) for number in range(200)])
        giver.send(mp.Value("i", 7))
        registry.gc()
        assert [int(array[0]) for array in taker.recv()] == list(range(200))
        assert taker.recv().value == 7


def test_without_descriptors_to_spare_they_are_kept_by_time(namespace: str) -> None:
    taker, giver = mp.Pipe()
    array = sa.full(10, 3.0)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with taker, giver:
        assert array.shm is not None
        assert array.shm.name
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, limits[1]))
        try:
            sa.config.handle_ttl_s = 60.0
            giver.send(array)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        del array
        registry.gc()
        assert len(segment_files(namespace)) == 1
        assert taker.recv().sum() == 30.0


def test_what_cannot_be_pickled_leaves_nothing_behind(capfd: pytest.CaptureFixture[str]) -> None:
    queue = mp.Queue()
    taker, giver = mp.Pipe()
    simple = mp.SimpleQueue()
    array = sa.zeros(10)
    bad = (array, threading.Lock())
    for put in (giver.send, simple.put):
        with pytest.raises(TypeError, match="pickle"):
            put(bad)
        assert packing.end_packing() == []
    queue.put(bad)
    queue.put("next")
    assert queue.get() == "next"
    assert "cannot pickle" in capfd.readouterr().err
    queue.close()
    queue.join_thread()
    for end in (taker, giver, simple):
        end.close()


def test_messages_without_arrays_are_the_originals() -> None:
    receiver, sender = mp.Pipe(duplex=False)
    with receiver, sender:
        sender.send((1, "two"))
        theirs = multiprocessing.connection.Connection(os.dup(receiver.fileno()), writable=False)
        with theirs:
            assert theirs.recv() == (1, "two")
        sender.send_bytes(b"bytes")
        assert receiver.recv_bytes() == b"bytes"
        for size in (0, 20_000, 200_000):
            thread = threading.Thread(target=sender.send_bytes, args=(bytes(size),))
            thread.start()
            assert len(receiver.recv_bytes()) == size
            thread.join()


def test_what_goes_wrong_in_a_pipe_is_what_goes_wrong_in_the_original() -> None:
    for make in (mp.Pipe, multiprocessing.Pipe):
        receiver, sender = make(duplex=False)
        with receiver:
            for thing in (7, "two", b"three", (1, None), [2.5], {"a": [1]}):
                sender.send(thing)
                sender.send_bytes(memoryview(b"as bytes"))
                assert receiver.recv() == thing
                assert receiver.recv_bytes() == b"as bytes"
            sender.send_bytes(b"0123456789", 2, 5)
            assert receiver.recv_bytes(5) == b"23456"
            with pytest.raises(OSError, match="write-only"):
                sender.recv()
            with pytest.raises(OSError, match="read-only"):
                receiver.send(1)
            os.write(sender.fileno(), struct.pack("!i", 10) + b"half")
            sender.close()
            with pytest.raises(OSError, match="closed"):
                sender.send(1)
            with pytest.raises(OSError, match="got end of file during message"):
                receiver.recv()
            with pytest.raises(EOFError):
                receiver.recv_bytes()


def test_ends_travel_to_other_processes() -> None:
    outer, inner = mp.Pipe(), mp.Pipe()
    outer[0].send(inner[0])
    arrived = outer[1].recv()
    inner[0].close()
    put_new(inner[1].send, 1.0)
    registry.gc()
    assert arrived.recv().sum() == 1000.0
    for end in (*outer, inner[1], arrived):
        end.close()
    resource_sharer.stop()  # the standard library's thread for this


def test_without_arrays_they_need_no_numpy() -> None:
    run_python("""
import sys
import shmarray.multiprocessing as mp
queue, simple, (taker, giver) = mp.Queue(), mp.SimpleQueue(), mp.Pipe()
for put, get in ((queue.put, queue.get), (simple.put, simple.get), (giver.send, taker.recv)):
    put([1, "two"])
    assert get() == [1, "two"]
assert "numpy" not in sys.modules
""")
