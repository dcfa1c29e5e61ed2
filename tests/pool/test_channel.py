"""Messages arrive whole and in order, with their descriptors, and sending never blocks."""

from __future__ import annotations

import os

import pytest

from shmarray.pool.channel import Channel, ChannelClosedError


@pytest.fixture
def ends():
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    yield ours, other
    ours.close()
    other.close()


def test_messages_arrive_in_order(ends):
    ours, other = ends
    for number in range(50):
        ours.send(("job", number))
    assert [other.receive()[0] for _ in range(50)] == [("job", number) for number in range(50)]
    assert other.receive() is None


def test_a_message_larger_than_a_packet_arrives_whole(ends):
    ours, other = ends
    large = os.urandom(3_000_000)
    ours.send(("small", 1))
    ours.send(("large", large))
    assert other.receive()[0] == ("small", 1)
    assert other.receive()[0] == ("large", large)


def test_descriptors_travel_with_their_message(ends):
    ours, other = ends
    reader, writer = os.pipe()
    ours.send("take it", [writer])
    os.close(writer)
    message, (received,) = other.receive()
    assert message == "take it"
    os.write(received, b"hello")
    os.close(received)
    assert os.read(reader, 10) == b"hello"
    os.close(reader)


def test_a_reader_that_does_not_read_does_not_block_the_sender(ends):
    ours, other = ends
    for number in range(2000):
        ours.send((number, b"x" * 1000))
    received = []
    while len(received) < 2000:
        message = other.receive()
        if message is None:
            ours.flush()
        else:
            received.append(message[0][0])
    assert received == list(range(2000))


def test_what_waits_with_descriptors_can_be_withdrawn(ends):
    ours, other = ends
    with open(os.devnull) as file:
        number = 0
        while not ours.waiting:  # until the other side's buffer is full
            ours.send(number := number + 1)
        before = len(os.listdir("/proc/self/fd"))
        for of in "abab":
            ours.send(f"a file of {of}", [file.fileno()], of=of)
        ours.withdraw("a")
        assert len(os.listdir("/proc/self/fd")) == before + 2
    received, files = [], []
    while len(received) < number + 2:
        message = other.receive()
        if message is None:
            ours.flush()
        else:
            received.append(message[0])
            files += message[1]
    assert received == [*range(1, number + 1), "a file of b", "a file of b"]
    assert len(files) == 2
    for fd in files:
        os.close(fd)


def test_a_closed_end_is_an_error_on_both_sides():
    ours, theirs = Channel.pair()
    theirs.close()
    with pytest.raises(ChannelClosedError):
        ours.send("anybody?")
    with pytest.raises(ChannelClosedError):
        ours.receive(timeout_s=1.0)
    ours.close()
