"""The lock of a namespace: waited for, given up, never left taken."""

from __future__ import annotations

import os
import signal

import pytest

from shmarray import config, registry
from shmarray.registry import namespace as module
from shmarray.registry import removal, warm
from shmarray.registry.namespace import NamespaceBusyError, NamespaceLock
from shmarray.registry.store import store
from tests.conftest import segment_files
from tests.processes import holding, wait_until

HOLD = """
from shmarray import config
from shmarray.registry.store import store
store.names.held(config.namespace).__enter__()
"""


def state_of(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_a_stuck_holder_is_waited_for_once_and_the_rest_is_left_to_gc(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "DROP_PATIENCE_S", 0.05)
    monkeypatch.setattr(warm, "DROP_PATIENCE_S", 0.05)
    waits: list[float] = []
    wait = NamespaceLock._wait

    def counted(self: NamespaceLock, namespace: str, timeout_s: float) -> None:
        waits.append(timeout_s)
        wait(self, namespace, timeout_s)

    monkeypatch.setattr(NamespaceLock, "_wait", counted)
    segments = [registry.create(3, "u1", name=f"n{i}") for i in range(6)]
    with holding(HOLD) as process:
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(process.pid) == "T")
        segments.clear()
        assert len(waits) == 1
        assert segment_files(namespace) != []
        registry.gc()
        assert len(waits) == 1, "gc can do without it, too"
        with pytest.raises(NamespaceBusyError, match="it is probably stopped: see who has"):
            # What the user asks for by name is waited for all the same.
            with store, store.names.held(namespace, timeout_s=0.05):
                pass
        assert len(waits) == 2
        process.send_signal(signal.SIGCONT)
    registry.gc()
    registry.trim()
    assert segment_files(namespace) == []


def test_the_back_off_ends(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACK_OFF_S", 0.0)
    lock = NamespaceLock()
    with holding(HOLD):
        for _ in range(2):
            with pytest.raises(NamespaceBusyError):
                lock.held(namespace, timeout_s=0.02, when_stuck=False)
            assert lock._stuck_until_s
    with lock.held(namespace, when_stuck=False):
        pass
    lock.forget()


def test_an_error_after_the_lock_gives_it_back(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = NamespaceLock()
    lock.prepare(namespace)

    def fail(fd: int) -> os.stat_result:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fstat", fail)
        with pytest.raises(OSError, match="Input/output error"):
            lock.held(namespace)
    other = NamespaceLock()
    with other.held(namespace, timeout_s=0.0):
        assert config.namespace == namespace
    lock.forget()
    other.forget()


def test_an_owner_killed_while_it_took_a_file_back_is_no_holder(namespace: str) -> None:
    """Its generation word stays odd for ever; openers must not wait for it to turn even."""
    from shmarray.errors import SegmentNotFoundError
    from shmarray.segment.descriptor import DESCRIPTOR_NBYTES, GENERATION
    from shmarray.segment.mapping import DIRECTORY

    segment = registry.create(3, "u1", name="x", keep=True)
    path = f"{DIRECTORY}/{segment.name}"
    del segment
    with open(path, "r+b") as file:
        file.seek(-DESCRIPTOR_NBYTES + GENERATION, os.SEEK_END)
        file.write((3).to_bytes(8, "little"))
    with pytest.raises(SegmentNotFoundError):
        registry.attach("x")
    registry.unlink("x")
