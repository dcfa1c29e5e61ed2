"""Fixtures for every test: a namespace of its own, and nothing left behind.

After each test: no segment of its namespace is left after gc, no child process, no descriptor. What
lives longer than a test on purpose is known by name here, and nothing else is tolerated.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

import shmarray
from shmarray import registry
from shmarray.pool import Pool as EnginePool
from shmarray.registry.removal import read_page
from shmarray.segment.descriptor import Words, is_known_layout
from shmarray.segment.mapping import DIRECTORY

# Whoever starts the tests in the background of a shell has Ctrl-C ignored, for all processes under it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A shared machine stalls for longer than any deadline that would still tell something.
settings.register_profile("shmarray", deadline=None)
settings.load_profile("shmarray")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--storm-seconds",
        type=float,
        default=20.0,
        help="how long the kill storm lasts, both ways to make a file together (the nightly form: 600)",
    )
    parser.addoption(
        "--cpython-tests",
        action="store_true",
        help="run all of CPython's tests of multiprocessing on shmarray.multiprocessing (some minutes)",
    )
    parser.addoption(
        "--worker-kills",
        type=int,
        default=8,
        help="how many workers of crash-safe calls are killed (the nightly form: 1000)",
    )
    parser.addoption(
        "--fuzz-rounds",
        type=int,
        default=20_000,
        help="how often a descriptor page is changed at random and opened (offline: 1000000)",
    )
    parser.addoption(
        "--large",
        action="store_true",
        help="also make an array of more than 4 GiB (needs that much free shared memory), and 10,000 arrays in turn",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests of the fault table could not run here."""
    skipped = [report for report in terminalreporter.getreports("skipped") if "test_row_" in report.nodeid]
    if skipped:
        terminalreporter.write_line(f"fault table: {len(skipped)} tests skipped, see the reasons above")


@pytest.fixture
def storm_s(request: pytest.FixtureRequest) -> float:
    """How long a kill storm is to last, in seconds."""
    seconds: float = request.config.getoption("--storm-seconds")
    return seconds


def segment_files(namespace: str) -> list[str]:
    """All files of a namespace but its lock."""
    return sorted(
        name for name in os.listdir(DIRECTORY) if name.startswith(f"{namespace}~") and not name.endswith("~.lock")
    )


def is_in_flight(file_name: str) -> bool:
    """Whether a handle was pickled and not taken: such a segment stays for a while, as documented."""
    with open(f"{DIRECTORY}/{file_name}", "rb") as file:
        page = read_page(file.fileno(), os.fstat(file.fileno()).st_size)
    return is_known_layout(page) and Words.of_page(page).is_in_flight


def children() -> set[int]:
    """Pids of this process's children, zombies included, but the ones known to live on."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    after_name = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(after_name[1]) == os.getpid():
                found.add(int(entry))
    return found - known_children()


def known_children() -> set[int]:
    """Workers of the default pool, and the standard library's servants."""
    known = set()
    pool = sys.modules.get("shmarray.pool")
    worker_pids: Callable[[], set[int]] | None = getattr(pool, "worker_pids", None)
    if worker_pids is not None:
        known |= set(worker_pids())
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:
        known.add(tracker._resource_tracker._pid)
    server = sys.modules.get("multiprocessing.forkserver")
    if server is not None:
        known.add(server._forkserver._forkserver_pid)
    return known


def descriptors() -> dict[int, str]:
    """Open descriptors and what they are, but the ones known to live on."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue  # the listing's own
        if not is_known_descriptor(int(entry), target):
            found[int(entry)] = target
    return found


def is_known_descriptor(fd: int, target: str) -> bool:
    """The namespace's lock stays open between drops; the pool and the tracker keep theirs."""
    if target.removesuffix(" (deleted)").endswith("~.lock"):
        return True
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None and fd == tracker._resource_tracker._fd:
        return True
    server = sys.modules.get("multiprocessing.forkserver")
    if server is not None and fd == server._forkserver._forkserver_alive_fd:
        return True
    pool = sys.modules.get("shmarray.pool")
    held: Callable[[], set[int]] | None = getattr(pool, "held_descriptors", None)
    return held is not None and fd in held()


@pytest.fixture(autouse=True)
def namespace(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The test's own namespace, here and in the processes it starts; checked to be empty at its end."""
    name = f"t{os.getpid()}-{uuid.uuid4().hex[:10]}"
    monkeypatch.setenv("SHMARRAY_NAMESPACE", name)
    # Assigned, not `override`n: an override is a context variable, which new threads do not see.
    before = shmarray.config.namespace
    shmarray.config.namespace = name
    gc.collect()
    # What lives on (modules, the compiler's tables) is not looked through again: that took longer than most tests.
    gc.freeze()
    registry.trim()
    open_before = descriptors()
    try:
        yield name
        gc.collect()
        registry.trim()
        registry.gc()
        if segment_files(name) or children() or any(open_before.get(fd) != what for fd, what in descriptors().items()):
            gc.unfreeze()  # a cycle may lead through what was there before the test
            gc.collect()
            registry.trim()
            registry.gc()
        # A worker that had an array through a function's closure lets go of it when it next does something.
        until = time.monotonic() + 5.0
        while True:
            left = [file_name for file_name in segment_files(name) if not is_in_flight(file_name)]
            if not left or time.monotonic() > until:
                break
            time.sleep(0.02)
            registry.gc()
        opened = {fd: what for fd, what in descriptors().items() if open_before.get(fd) != what}
        remaining = children()
        for file_name in segment_files(name):
            os.unlink(f"{DIRECTORY}/{file_name}")  # the next test is not to suffer
        registry.gc()  # now also the lock's file has no reason to stay
        lock = f"{DIRECTORY}/{name}~.lock"
        assert not os.path.exists(lock), f"the namespace's lock is left: {lock}"
        assert not left, f"segments left after gc: {left}"
        assert not remaining, f"child processes left: {remaining}"
        assert not opened, f"descriptors left: {opened}"
    finally:
        shmarray.config.namespace = before


@pytest.fixture
def pool() -> EnginePool:
    """The default pool, with two lanes whatever the machine; it lives on."""
    before = shmarray.config.workers
    shmarray.config.workers = 2
    try:
        made = shmarray.get_pool()
        if made.lanes != 2:
            made.close()
            made = shmarray.get_pool()
        return made
    finally:
        shmarray.config.workers = before
