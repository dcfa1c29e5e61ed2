"""Row 44 of the table of faults: what those can do to a manager who do not have its key."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import AuthenticationError, connection
from pathlib import Path
from typing import Any

import pytest

import shmarray as sa
from shmarray.multiprocessing.managers import ArrayManager
from tests.crash.managers import CrampedManager, HastyManager, connected, read_until_dropped, started
from tests.processes import wait_until


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[ArrayManager]:
    with started(ArrayManager, str(tmp_path / "socket")) as manager:
        yield manager


@pytest.fixture
def cramped() -> Iterator[ArrayManager]:
    with started(CrampedManager, ("127.0.0.1", 0)) as manager:
        yield manager


def test_row_44_silent_and_slow_clients_are_dropped_and_keep_nobody_waiting(tmp_path: Path) -> None:
    with started(HastyManager, str(tmp_path / "socket")) as manager, connected(manager.address) as slow:
        silent = [connected(manager.address) for _ in range(5)]
        assert manager.array(5).size == 5
        slow.settimeout(0.05)
        message = iter(struct.pack("!i", 200) + b"x" * 200)

        def is_dropped() -> bool:
            try:
                slow.send(bytes([next(message)]))  # a byte now and then
                return slow.recv(1000) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_dropped)
        for end in silent:
            assert b"#CHALLENGE#" in read_until_dropped(end)
            end.close()


def test_row_44_a_flood_of_silent_clients_keeps_nobody_out(cramped: ArrayManager) -> None:
    flood = [connected(cramped.address) for _ in range(100)]
    array = cramped.array(10, name="in-the-flood")
    array += 1
    assert cramped.open("in-the-flood").sum() == 10
    threads = len(os.listdir(f"/proc/{cramped._process.pid}/task"))
    assert threads < 40, "the most that wait are bounded"
    for end in flood:
        end.close()


def test_a_flood_while_honest_clients_come_and_go(cramped: ArrayManager) -> None:
    program = """
import socket, sys
host, port = sys.argv[1].split(":")
held = []
print("ready", flush=True)
while True:
    end = socket.socket()
    end.connect((host, int(port)))
    held.append(end)
    if len(held) > 100:
        held.pop(0).close()
"""
    address = "{}:{}".format(*cramped.address)
    flood = subprocess.Popen([sys.executable, "-c", program, address], stdout=subprocess.PIPE, text=True)
    try:
        assert flood.stdout is not None
        assert flood.stdout.readline() == "ready\n"
        served = 0
        for _ in range(200):
            try:
                served += cramped.array(3).size == 3
            except sa.ManagerConnectionError:
                continue  # turned out in the handshake: the flood was faster
            if served == 5:
                break
        assert served == 5
    finally:
        flood.kill()
        flood.wait()
        flood.stdout.close()


def test_row_44_a_wrong_key_is_refused_and_told_nothing_more(serving: ArrayManager) -> None:
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            ArrayManager(serving.address, b"wrong").connect()
    with connected(serving.address) as end:
        end.setblocking(True)
        stranger = connection.Connection(end.detach())
        with stranger:
            assert b"CHALLENGE" in stranger.recv_bytes()
            stranger.send_bytes(b"x" * 16)
            assert stranger.recv_bytes() == b"#FAILURE#"
            with pytest.raises((EOFError, ConnectionError)):
                stranger.recv_bytes()


class _Bomb:
    """Unpickling it leaves a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_nothing_of_a_stranger_is_unpickled_or_believed(serving: ArrayManager, tmp_path: Path) -> None:
    bomb = pickle.dumps(_Bomb(str(tmp_path / "exploded")))
    random.seed(44)
    messages = [
        struct.pack("!i", len(bomb)) + bomb,
        struct.pack("!i", 0x7FFFFFFF) + b"x" * 1000,
        struct.pack("!i", -1) + struct.pack("!Q", 1 << 60) + b"x" * 1000,
        struct.pack("!i", -5),
        struct.pack("!i", 0),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        *(random.randbytes(random.randrange(1, 400)) for _ in range(20)),
    ]
    for message in messages:
        with connected(serving.address) as end:
            end.sendall(message)
            end.shutdown(socket.SHUT_WR)
            read_until_dropped(end)
    assert not (tmp_path / "exploded").exists()


def test_row_44_another_user_is_hung_up_on() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = tempfile.mkdtemp(prefix="shmarray-test-")
    try:
        with started(ArrayManager, f"{folder}/socket") as manager:
            os.chmod(folder, 0o755)
            program = (
                "import os, socket, sys\n"
                "os.setuid(65534)\n"
                "end = socket.socket(socket.AF_UNIX)\n"
                "end.settimeout(60)\n"
                "try:\n"
                "    end.connect(sys.argv[1])\n"
                "except PermissionError:\n"
                "    sys.exit('the file alone')\n"
                "print(end.recv(1000))\n"
            )
            command = [sys.executable, "-S", "-c", program, manager.address]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.stderr == "the file alone\n", done
            os.chmod(manager.address, 0o666)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.stdout == "b''\n", done
    finally:
        shutil.rmtree(folder)
