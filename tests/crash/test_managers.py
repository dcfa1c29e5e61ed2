"""Row 45 of the table of faults: managers and their clients that are killed or stopped, and addresses used again."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray import multiprocessing as mp
from shmarray.multiprocessing import base_manager, managers, remote, server, session, sockets
from shmarray.multiprocessing.managers import ArrayManager, RemoteArray
from tests.crash.managers import KEY, CrampedManager, connected, started
from tests.crash.prelude import PRELUDE
from tests.processes import run_python, wait_until


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


def test_a_stopped_manager_is_a_named_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(ArrayManager, str(tmp_path / "socket")) as manager:
        with monkeypatch.context() as patch:
            patch.setattr(managers, "is_nearby", lambda offer: False)
            read, written = manager.array(1_000_000), manager.array(1_000_000)
        read[:] = 1
        written[:] = 1
        monkeypatch.setattr(remote, "TRANSFER_S", 0.2)
        os.kill(manager._process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(sa.ManagerConnectionError, match="stood still"):
                read[:]
            with pytest.raises(sa.ManagerConnectionError, match="stood still"):
                written[:] = np.zeros(written.shape)
        finally:
            os.kill(manager._process.pid, signal.SIGCONT)


def test_a_stopped_manager_is_ended_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_manager, "_FAREWELL_S", 0.2)
    manager = ArrayManager(str(tmp_path / "socket"), KEY, shutdown_timeout=0.1)
    manager.start()
    os.kill(manager._process.pid, signal.SIGSTOP)
    manager.shutdown()
    assert manager._process.exitcode == -signal.SIGKILL


def test_a_client_killed_in_a_transfer_gives_its_loans_back(tmp_path: Path) -> None:
    with started(ArrayManager, str(tmp_path / "socket")) as manager:
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


for _ in range(3):
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
    with started(CrampedManager, str(tmp_path / "socket")) as manager:
        pid = manager._process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 3, hard))
        flood = [connected(manager.address) for _ in range(20)]
        for end in flood:
            end.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_no_module_of_the_server_reads_the_wall_clock() -> None:
    for module in (server, session, sockets):
        assert module.__file__ is not None
        assert "time.time(" not in Path(module.__file__).read_text(encoding="utf-8")
