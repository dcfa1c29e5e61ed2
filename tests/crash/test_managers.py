"""Rows 44 and 45 of the table of faults: what strangers, broken peers and kills do to a manager."""

from __future__ import annotations

import os
import pickle
import random
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import AuthenticationError, connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray import multiprocessing as mp
from shmarray.multiprocessing import base_manager, managers, remote, server, session, sockets
from shmarray.multiprocessing.frames import send_array
from shmarray.multiprocessing.managers import ArrayManager, ArrayServer, RemoteArray
from shmarray.multiprocessing.remote import Line
from tests.crash.prelude import PRELUDE
from tests.processes import run_python, wait_until

KEY = b"a key of thirty-two random bytes"


class HastyManager(ArrayManager):
    """Has less patience, so that a test need not wait; but enough for honest clients of a busy machine."""

    class _Server(ArrayServer):
        handshake_s = 2.0


class CrampedManager(ArrayManager):
    """Has room for few, and patience enough that only the want of room can drop anybody."""

    class _Server(ArrayServer):
        handshake_s = 600.0
        lobby_room = 8


@contextmanager
def _started(kind: type[ArrayManager], address: Any) -> Iterator[ArrayManager]:
    manager = kind(address, KEY, ctx=mp.get_context("fork"))
    with manager:
        yield manager
        assert manager.array(3).sum() == 0, "others are served"
    manager.join()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[ArrayManager]:
    with _started(ArrayManager, str(tmp_path / "socket")) as manager:
        yield manager


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[ArrayManager]:
    with _started(HastyManager, str(tmp_path / "socket")) as manager:
        yield manager


@pytest.fixture
def cramped() -> Iterator[ArrayManager]:
    with _started(CrampedManager, ("127.0.0.1", 0)) as manager:
        yield manager


def _connected(address: Any) -> socket.socket:
    end = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
    end.settimeout(60)  # a watchdog
    end.connect(address)
    return end


def _read_until_dropped(end: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    received = b""
    while True:
        try:
            part = end.recv(65536)
        except ConnectionError:
            return received
        if not part:
            return received
        received += part


# --- row 44: strangers --------------------------------------------------------------------------------------


def test_row_44_silent_clients_are_dropped_and_keep_nobody_waiting(hasty: ArrayManager) -> None:
    silent = [_connected(hasty.address) for _ in range(5)]
    assert hasty.array(5).size == 5
    for end in silent:
        assert b"#CHALLENGE#" in _read_until_dropped(end)
        end.close()


def test_a_client_that_sends_a_byte_now_and_then_is_dropped_too(hasty: ArrayManager) -> None:
    with _connected(hasty.address) as slow:
        slow.settimeout(0.05)
        message = iter(struct.pack("!i", 200) + b"x" * 200)

        def is_dropped() -> bool:
            try:
                slow.send(bytes([next(message)]))
                return slow.recv(1000) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_dropped)


def test_row_44_a_flood_of_silent_clients_keeps_nobody_out(cramped: ArrayManager) -> None:
    flood = [_connected(cramped.address) for _ in range(100)]
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
    with _connected(serving.address) as end:
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
        with _connected(serving.address) as end:
            end.sendall(message)
            end.shutdown(socket.SHUT_WR)
            _read_until_dropped(end)
    assert not (tmp_path / "exploded").exists()


def test_row_44_another_user_is_hung_up_on() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = tempfile.mkdtemp(prefix="shmarray-test-")
    try:
        with _started(ArrayManager, f"{folder}/socket") as manager:
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


# --- row 44: peers with the key that are broken --------------------------------------------------------------


def _line(manager: ArrayManager, name: str) -> Line:
    line = Line(manager.address, KEY)
    line.ask("open", name, "r+")
    return line


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
        line = _line(serving, "target")
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


@pytest.mark.parametrize(
    "request_", [("frobnicate",), (), 7, ("read",), ("write", ...), ("read", "name"), ("write", ..., (9, 9))]
)
def test_requests_that_are_none_are_answered_with_an_error(serving: ArrayManager, request_: Any) -> None:
    serving.array(3, name="target")
    line = _line(serving, "target")
    line._connection.send(request_)
    assert line._connection.recv()[0] == "error"
    assert line.read((0,), (), np.dtype("f8")) == 0, "the session goes on"
    line.close()


@pytest.mark.parametrize("request_", [("join", "x", "r+"), ("open", 3, "r"), ("create", -1, "f8", {"name": None})])
def test_what_cannot_be_lent_leaves_the_session_with_nothing(serving: ArrayManager, request_: Any) -> None:
    serving.array(3, name="target")
    line = _line(serving, "target")
    line._connection.send(request_)
    assert line._connection.recv()[0] == "error"
    with pytest.raises(ValueError, match="no array"):
        line.ask("read", (0,))
    line.ask("open", "target", "r+")
    assert line.read((0,), (), np.dtype("f8")) == 0
    line.close()


def test_requests_that_are_no_pickle_are_answered_with_an_error(serving: ArrayManager) -> None:
    serving.array(3, name="target")
    line = _line(serving, "target")
    line._connection.send_bytes(b"\x80\x05no pickle.")
    assert line._connection.recv()[0] == "error"
    assert line.read((0,), (), np.dtype("f8")) == 0
    line.close()


def test_who_stands_still_in_a_transfer_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "TRANSFER_S", 0.3)  # inherited by the server
    with _started(ArrayManager, str(tmp_path / "socket")) as manager:
        array = manager.array(1_000_000, name="target")
        tasks = f"/proc/{manager._process.pid}/task"
        reader, writer = _line(manager, "target"), _line(manager, "target")
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


# --- row 45: kills -------------------------------------------------------------------------------------------


def _killed_first(manager: ArrayManager, function: Any) -> Any:
    """The function, with its server killed just before."""

    def wrapper(*arguments: Any) -> Any:
        os.kill(manager._process.pid, signal.SIGKILL)
        manager._process.join()
        return function(*arguments)

    return wrapper


@pytest.mark.parametrize("direction", ["read", "write"])
def test_row_45_a_manager_killed_in_a_transfer_is_a_named_error_and_arrays_live_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str
) -> None:
    address = str(tmp_path / "socket")
    manager = ArrayManager(address, KEY)
    manager.start()
    near = manager.array((500, 1000), name="used", keep=True)
    near[:] = 3
    with monkeypatch.context() as patch:
        patch.setattr(managers, "is_nearby", lambda offer: False)
        far = manager.open("used")
        assert isinstance(far, RemoteArray)
        assert far[0, 0] == 3
        step = {"read": "receive_array", "write": "send_array"}[direction]
        patch.setattr(remote, step, _killed_first(manager, getattr(remote, step)))
        with pytest.raises(sa.ManagerConnectionError, match="in the middle of a transfer"):
            if direction == "read":
                far[...]
            else:
                far[...] = np.ones(far.shape)
    with pytest.raises(sa.ManagerConnectionError, match="no manager answers"):
        far[0, 0]
    near += 1
    assert os.path.exists(address), "the killed one's socket is there, stale"
    with ArrayManager(address, KEY) as second:
        reopened = second.open("used")
        assert reopened.shm.key == near.shm.key
        assert reopened[-1, -1] in ((4,) if direction == "read" else (2, 4))
        with pytest.raises(sa.SegmentNotFoundError, match="started anew"):
            far[0, 0]
        second.unlink("used")
    assert os.listdir(tmp_path) == []
    manager.shutdown()


@pytest.mark.parametrize("direction", ["read", "write"])
def test_a_stopped_manager_is_a_named_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str) -> None:
    with _started(ArrayManager, str(tmp_path / "socket")) as manager:
        with monkeypatch.context() as patch:
            patch.setattr(managers, "is_nearby", lambda offer: False)
            far = manager.array(1_000_000)
        far[:] = 1
        monkeypatch.setattr(remote, "TRANSFER_S", 0.2)
        os.kill(manager._process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(sa.ManagerConnectionError, match="stood still"):
                if direction == "read":
                    far[:]
                else:
                    far[:] = np.zeros(far.shape)
        finally:
            os.kill(manager._process.pid, signal.SIGCONT)


def test_a_client_killed_in_a_transfer_gives_its_loans_back(tmp_path: Path) -> None:
    with _started(ArrayManager, str(tmp_path / "socket")) as manager:
        program = """
import os, sys
import numpy as np
import shmarray as sa
from shmarray.multiprocessing import base_manager, managers, remote
managers.is_nearby = lambda offer: False
manager = sa.ArrayManager(sys.argv[1], b"a key of thirty-two random bytes")
manager.connect()
array = manager.array((500, 1000))
send_array = remote.send_array
class Dying:
    "A connection that ends its process at the fourth message, in the second frame."
    count = 0
    def __init__(self, connection):
        self.connection = connection
    def send_bytes(self, message):
        self.count += 1
        if self.count == 4:
            os.kill(os.getpid(), 9)
        self.connection.send_bytes(message)
remote.send_array = lambda connection, values: send_array(Dying(connection), values)
array[...] = np.ones(array.shape)
"""
        done = subprocess.run([sys.executable, "-c", program, manager.address], check=False)
        assert done.returncode == -signal.SIGKILL
        wait_until(lambda: sa.registry.list() == [])


def test_row_45_of_several_that_restart_at_once_one_wins(tmp_path: Path) -> None:
    run_python(
        PRELUDE
        + """
import shmarray as sa
from shmarray.multiprocessing.managers import ArrayManager

address = sys.argv[1]


def serve(started):
    ArrayManager(address, b"key").start()
    os.kill(os.getpid(), signal.SIGKILL)  # neither ends cleanly


def take(gate, results, done):
    gate.wait()
    try:
        server = ArrayManager(address, b"key").get_server()
    except sa.ManagerAddressError:
        os.write(results, b"l")
        return
    os.write(results, b"w")
    done.wait()
    os.kill(os.getpid(), signal.SIGKILL)  # and leaves its socket for the next round


for _ in range(5):
    gate, done = Gate(), Gate()
    read, write = os.pipe()
    pids = [fork(take, gate, write, done) for _ in range(8)]
    os.close(write)
    gate.open()
    told = b"".join(os.read(read, 1) for _ in pids)
    os.close(read)
    assert sorted(told) == sorted(b"w" + b"l" * 7), told
    done.open()
    statuses = sorted(wait(pid) for pid in pids)
    assert statuses == [-9] + [0] * 7, statuses
    assert os.path.exists(address)
""",
        str(tmp_path / "socket"),
    )
    with ArrayManager(str(tmp_path / "socket"), KEY) as manager:
        assert manager.array(3).size == 3


def test_a_killed_servers_pool_keeps_neither_its_address_nor_its_clients(tmp_path: Path) -> None:
    address = str(tmp_path / "socket")
    manager = ArrayManager(address, KEY, ctx=mp.get_context("fork"))
    manager.start()
    pool = manager.Pool(1)
    worker = pool.apply(os.getpid)
    os.kill(worker, signal.SIGSTOP)  # it outlives its server
    os.kill(manager._process.pid, signal.SIGKILL)
    manager._process.join()
    try:
        with pytest.raises((EOFError, ConnectionError)):
            pool.apply(abs, (1,))
        with ArrayManager(address, KEY) as second:
            assert second.array(3).size == 3
    finally:
        os.kill(worker, signal.SIGKILL)
    manager.shutdown()


def test_what_listens_and_says_nothing_is_given_up_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(base_manager, "DIAL_S", 0.2)
    with socket.socket(socket.AF_UNIX) as dumb:
        dumb.bind(str(tmp_path / "dumb"))
        dumb.listen()
        with pytest.raises(sa.ManagerConnectionError, match="did not answer"):
            ArrayManager(str(tmp_path / "dumb"), KEY).connect()


def test_a_server_without_free_descriptors_recovers(tmp_path: Path) -> None:
    with _started(CrampedManager, str(tmp_path / "socket")) as manager:
        pid = manager._process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 3, hard))
        flood = [_connected(manager.address) for _ in range(20)]
        for end in flood:
            end.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_no_module_of_the_server_reads_the_wall_clock() -> None:
    for module in (server, session, sockets):
        assert module.__file__ is not None
        assert "time.time(" not in Path(module.__file__).read_text(encoding="utf-8")
