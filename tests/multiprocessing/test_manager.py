"""Managers on one host: what they share, arrays without a copy, addresses, and how a server ends."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import stat
import sys
from multiprocessing import AuthenticationError, ProcessError
from multiprocessing import managers as standard_managers
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray import multiprocessing as mp
from shmarray.multiprocessing.addresses import AddressClaim, parse_address
from shmarray.multiprocessing.managers import ArrayManager, BaseManager, RemoteArray, SyncManager
from tests.processes import holding, run_python, wait_until


def test_everything_that_the_standard_manager_shares_is_shared() -> None:
    assert sa.ArrayManager is mp.ArrayManager is ArrayManager
    assert sa.RemoteArray is mp.RemoteArray is RemoteArray
    with mp.Manager() as manager:
        assert isinstance(manager, ArrayManager)
        assert isinstance(manager, standard_managers.SyncManager)
        numbers, table, space = manager.list([1, 2]), manager.dict(a=1), manager.Namespace(x=1)
        numbers.append(3)
        table["b"] = numbers
        space.x += 1
        assert (numbers[:], table["b"][2], space.x) == ([1, 2, 3], 3, 2)
        for lock in (manager.Lock(), manager.RLock(), manager.Semaphore(1), manager.Condition()):
            with lock:
                pass
        event, queue = manager.Event(), manager.Queue()
        event.set()
        queue.put("x")
        assert event.wait(5)
        assert queue.get(timeout=5) == "x"
        assert manager.Barrier(1).wait(5) == 0
        value, array = manager.Value("i", 3), manager.Array("d", [1, 2])
        value.value += 1
        array[0] = 5
        assert (value.value, array[0], len(array)) == (4, 5.0, 2)
        with manager.Pool(1) as pool:
            assert pool.map(abs, [-1, 2]) == [1, 2]


def test_sets_are_shared() -> None:
    with mp.Manager() as manager:
        shared = manager.set([1, 2])
        shared |= {3}
        shared -= {1}
        shared.add(4)
        assert sorted(shared) == [2, 3, 4]
        assert (len(shared), 3 in shared, shared & {2, 9}, shared.isdisjoint({7})) == (3, True, {2}, True)
        shared.discard(9)
        with pytest.raises(KeyError):
            shared.remove(9)


def test_an_array_is_the_servers_own_memory_whoever_made_it() -> None:
    with mp.Manager() as manager:
        array = manager.array((3, 4), "f4", name="heights")
        assert isinstance(array, sa.SharedArray)
        assert (array.shape, array.dtype, array.name, array.sum()) == ((3, 4), np.float32, "heights", 0.0)
        array += 2
        second = manager.open("heights")
        assert second.shm.key == array.shm.key
        second[0, 0] = 9
        assert array[0, 0] == 9
        sa.open("heights")[2, 3] = 7  # as any program of the host can
        assert array[2, 3] == 7
        array = sa.ones(5, name="made-elsewhere")
        opened = manager.open("made-elsewhere", "r")
        assert opened.sum() == 5
        assert not opened.flags.writeable
        array[0] = 3
        assert opened[0] == 3


def test_arrays_lists_what_can_be_opened_and_unlink_removes_it() -> None:
    with mp.Manager() as manager:
        first = manager.array(3, "i2", name="first")
        manager.array((2, 2), name="second")
        unnamed = manager.array(7)
        listed = manager.arrays()
        assert set(listed) == {"first", "second"}
        assert (listed["first"].shape, listed["second"].dtype) == ((3,), np.float64)
        manager.unlink("first")
        assert set(manager.arrays()) == {"second"}
        with pytest.raises(sa.SegmentNotFoundError):
            manager.open("first")
        with pytest.raises(sa.SegmentNotFoundError):
            manager.unlink("first")
        first[:] = 1  # who has it keeps it
        unnamed[:] = 1
        assert manager.array(4, name="first").shape == (4,)


def test_a_named_array_lives_as_long_as_the_manager_and_an_unnamed_one_as_its_users(namespace: str) -> None:
    with mp.Manager() as manager:
        manager.array(1000, name="held")[:] = 4
        assert manager.open("held")[999] == 4
        unnamed = manager.array(1000)
        assert len(sa.registry.list()) == 2
        del unnamed
        assert [info.name for info in sa.registry.list()] == ["held"]
    assert sa.registry.list() == []


def test_kept_arrays_outlive_the_manager() -> None:
    with mp.Manager() as manager:
        manager.array(3, "i8", name="kept", keep=True)[:] = 5
        manager.array(3, "i8", name="not-kept")
    assert sa.open("kept").tolist() == [5, 5, 5]
    assert [info.name for info in sa.registry.list()] == ["kept"]
    sa.unlink("kept")


def test_an_array_in_use_outlives_the_manager() -> None:
    with mp.Manager() as manager:
        array = manager.array(3, name="in-use")
    array += 1
    assert sa.open("in-use").sum() == 3


def test_what_cannot_be_made_is_the_error_that_empty_gives() -> None:
    refused: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception]]] = [
        ((-1,), {}, ValueError),
        ((3, "O"), {}, TypeError),
        ((3,), {"name": "a/b"}, ValueError),
        ((3,), {"keep": True}, ValueError),
        ((1 << 50,), {}, sa.OutOfSharedMemoryError),
    ]
    with mp.Manager() as manager:
        for arguments, keywords, error in refused:
            with pytest.raises(error) as raised:
                manager.array(*arguments, **keywords)
            assert "Traceback" in str(raised.value.__cause__), "the server's traceback is the cause"
        assert manager.array(2).size == 2


def test_names_that_are_taken() -> None:
    with mp.Manager() as manager:
        first = manager.array(3, name="taken")
        with pytest.raises(sa.SegmentExistsError):
            manager.array(3, name="taken")
        first[:] = 8
        assert manager.array(3, name="taken", if_exists="open").sum() == 24
        assert manager.array(5, name="taken", if_exists="replace").tolist() == [0.0] * 5
        assert first.sum() == 24


def test_arrays_of_any_shape_and_dtype_begin_as_zeros() -> None:
    kinds: list[tuple[Any, Any]] = [
        ((), "f8"),
        ((0, 3), "i4"),
        (4, [("x", "<i4"), ("y", "<f8")]),
        (3, "M8[s]"),
        (2, "U5"),
    ]
    with mp.Manager() as manager:
        for shape, dtype in kinds:
            assert np.array_equal(np.asarray(manager.array(shape, dtype)), np.zeros(shape, dtype))


def test_child_processes_use_the_manager_they_are_given() -> None:
    with mp.Manager() as manager:
        table, array = manager.dict(), manager.array(4)
        child = mp.get_context("fork").Process(target=_work, args=(table, array))
        child.start()
        child.join(30)
        assert (child.exitcode, table["done"], array.tolist()) == (0, True, [1.0] * 4)


def _work(table: Any, array: sa.SharedArray) -> None:
    array[:] = 1
    table["done"] = True


# --- starting, connecting, ending ---------------------------------------------------------------------------


def test_a_manager_must_be_started() -> None:
    manager = ArrayManager()
    with pytest.raises(ProcessError, match="start"):
        manager.array(3)
    manager.start()
    with pytest.raises(ProcessError, match="Already"):
        manager.start()
    manager.shutdown()
    with pytest.raises(ProcessError):
        manager.array(3)


def test_a_server_that_cannot_import_the_program_is_told_of_the_guard() -> None:
    manager = ArrayManager(ctx=mp.get_context("forkserver"))
    with pytest.raises(EOFError, match="ended before it served.*`if __name__"):
        manager.start(initializer=os._exit, initargs=(1,))


def test_settings_reach_a_server_that_inherits_nothing(tmp_path: Path) -> None:
    script = tmp_path / "settings.py"
    script.write_text(
        "import shmarray as sa\n"
        "from shmarray import multiprocessing as mp\n"
        "if __name__ == '__main__':\n"
        "    sa.config.namespace += '-spawned'\n"
        "    with mp.get_context('spawn').Manager() as manager:\n"
        "        array = manager.array(3, name='spawned')\n"
        "        assert [info.name for info in sa.registry.list()] == ['spawned']\n"
    )
    run_python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")


def test_a_wrong_key_is_refused_and_a_missing_server_named(tmp_path: Path) -> None:
    address = str(tmp_path / "socket")
    with ArrayManager(address, b"right"):
        with pytest.raises(AuthenticationError, match=re.escape(f"{address} has another authkey")):
            ArrayManager(address, b"wrong").connect()
        second = ArrayManager(address, b"right")
        second.connect()
        assert second.list([1])[:] == [1]
    with pytest.raises(FileNotFoundError, match=re.escape(f"no manager answers at {address}")) as missing:
        ArrayManager(address, b"right").connect()
    assert missing.value.errno == errno.ENOENT
    port = _free_port()
    with pytest.raises(ConnectionRefusedError, match=f"no manager answers at 127.0.0.1:{port}") as refused:
        ArrayManager(("127.0.0.1", port), b"right").connect()
    assert isinstance(refused.value, sa.ManagerNotFoundError)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_the_default_address_lets_no_other_user_in() -> None:
    with mp.Manager() as manager:
        folder = os.stat(os.path.dirname(manager.address))
        assert stat.S_IMODE(folder.st_mode) == 0o700
        assert folder.st_uid == os.geteuid()
        assert stat.S_IMODE(os.stat(manager.address).st_mode) == 0o600


def test_a_path_is_served_by_one_and_free_again_after_it(tmp_path: Path) -> None:
    address = str(tmp_path / "socket")
    with ArrayManager(address):
        with pytest.raises(sa.ManagerAddressError, match="another manager"):
            ArrayManager(address).start()
        with pytest.raises(sa.ManagerAddressError):
            ArrayManager(address).get_server()
    assert os.listdir(tmp_path) == []
    with ArrayManager(address) as manager:
        assert manager.array(1).size == 1


def test_a_port_is_served_by_one() -> None:
    with ArrayManager(("127.0.0.1", 0), b"key") as manager:
        assert manager.array(3).shm is not None, "loopback is this host: no copy"
        with pytest.raises(sa.ManagerAddressError, match="another program"):
            ArrayManager(manager.address, b"key").start()


def test_what_is_no_socket_of_ours_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(sa.ManagerAddressError, match="not a socket"):
        AddressClaim(str(file))
    assert file.read_text() == "precious"
    living = tmp_path / "living"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(living))
        other.listen()
        with pytest.raises(sa.ManagerAddressError, match="another manager"):
            AddressClaim(str(living))
    claim = AddressClaim(str(living))  # now nobody answers there
    assert not living.exists()
    claim.close()
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("text", ["", "[::1]:80", "::1", "host:99999"])
def test_addresses_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|IPv6|port"):
        parse_address(text)


def test_an_empty_key_is_refused_on_a_network() -> None:
    with pytest.raises(ValueError, match="lets everybody in"):
        ArrayManager("127.0.0.1:0", b"")


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(sa.ManagerAddressError, match="107 bytes"):
        ArrayManager(str(tmp_path / ("x" * 120))).start()


def test_sigterm_ends_a_manager_cleanly(tmp_path: Path) -> None:
    manager = ArrayManager(str(tmp_path / "socket"))
    manager.start()
    manager.array(1000, name="not-kept")
    os.kill(manager._process.pid, signal.SIGTERM)
    manager._process.join(30)
    assert manager._process.exitcode == 0
    assert sa.registry.list() == []
    assert os.listdir(tmp_path) == []
    with pytest.raises(sa.ManagerConnectionError, match="no manager answers"):
        manager.open("not-kept")
    manager.shutdown()


def test_a_server_ends_after_its_killed_parent_when_nobody_is_connected(tmp_path: Path) -> None:
    address = str(tmp_path / "socket")
    parent = (
        "import sys, shmarray as sa\n"
        "manager = sa.ArrayManager(sys.argv[1], b'key')\n"
        "manager.start()\n"
        "open(sys.argv[1] + '.pid', 'w').write(str(manager._process.pid))\n"
    )
    with holding(parent, address) as process:
        server = int((tmp_path / "socket.pid").read_text())
        manager = ArrayManager(address, b"key")
        manager.connect()
        shared = manager.list([1])
        shared.append(2)
        process.kill()
    assert shared[:] == [1, 2], "it serves who is there"
    del shared
    wait_until(lambda: not _runs(server))
    assert not os.path.exists(address)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def test_base_managers_of_ones_own() -> None:
    class Counters(BaseManager):
        pass

    Counters.register("counter", callable=_Counter)
    with Counters(ctx=mp.get_context("fork")) as manager:
        counter = manager.counter()  # type: ignore[attr-defined]
        assert [counter.next(), counter.next()] == [1, 2]
    assert "counter" not in BaseManager._registry
    assert "list" not in BaseManager._registry
    assert "set" in SyncManager._registry
    assert sys.modules["multiprocessing.managers"].BaseManager is not BaseManager


class _Counter:
    def __init__(self) -> None:
        self._count = 0

    def next(self) -> int:
        self._count += 1
        return self._count
