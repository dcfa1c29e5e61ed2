"""Clients that really are elsewhere: behind another /dev/shm, in another pid namespace, across a network.

Each needs a namespace of the kernel's, so root or user namespaces; the network also needs `ip`. Where the machine does
not allow one, its test is skipped and says what was missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
import pytest

import shmarray as sa
from shmarray.multiprocessing.managers import ArrayManager

KEY = b"a key of thirty-two random bytes"

# What a client is to find: in `kind` the class of an array. It leaves its marks in the array and prints the class.
CLIENT = """
import sys
import numpy as np
import shmarray as sa
address, name, kind = sys.argv[1:]
manager = sa.ArrayManager(address, b"a key of thirty-two random bytes")
manager.connect()
array = manager.open(name)
assert type(array).__name__ == kind, type(array)
assert (array.shape, array.dtype, len(array)) == ((600, 1000), np.float32, 600)
assert np.array_equal(array[::7, 10:20], np.arange(600_000, dtype="f4").reshape(600, 1000)[::7, 10:20])
array[1:, 0] = -1
assert np.asarray(array).sum(dtype="f8") == array[...].sum(dtype="f8")
own = manager.array((1000, 1000))
assert type(own).__name__ == kind
own[::2] = 1
assert own[...].sum() == 500_000
table = manager.dict()
table["x"] = 1
assert table.copy() == {"x": 1}
assert name in manager.arrays()
"""

ANOTHER_SHM = ("--mount", "sh", "-c", 'mount -t tmpfs -o size=64m shmarray-test /dev/shm && exec "$@"', "sh")
ANOTHER_PID_NAMESPACE = ("--pid", "--fork", "--mount-proc")


def _unshare() -> list[str]:
    """The command that makes namespaces here."""
    tool = shutil.which("unshare")
    if tool is None:
        pytest.skip("there is no `unshare` (package util-linux)")
    for options in ([], ["--user", "--map-root-user"]):
        command = [tool, *options]
        done = subprocess.run(
            [*command, *ANOTHER_SHM, "true"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode == 0:
            return command
    pytest.skip(f"this machine does not allow namespaces: {done.stderr.strip()}")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"


@contextmanager
def _served(address: object) -> Iterator[ArrayManager]:
    """A manager with an array whose values the client knows, and marks."""
    with ArrayManager(address, KEY) as manager:
        array = manager.array((600, 1000), "f4", name="far-away")
        array[:] = np.arange(600_000).reshape(array.shape)
        yield manager
        assert (array[1:, 0] == -1).all()
        assert array[0, 0] == 0
        assert array[0].tolist() == list(range(1000))
        assert [info.name for info in sa.registry.list()] == ["far-away"], "what the client made has gone with it"
    manager.join()


def test_the_same_host_maps(tmp_path: Path) -> None:
    with _served(str(tmp_path / "socket")) as manager:
        _run(sys.executable, "-c", CLIENT, manager.address, "far-away", "SharedArray")


@pytest.mark.parametrize("elsewhere", [ANOTHER_SHM, ANOTHER_PID_NAMESPACE], ids=["another-shm", "another-pids"])
def test_a_client_behind_other_namespaces_reads_and_writes_slices(tmp_path: Path, elsewhere: tuple[str, ...]) -> None:
    unshare = _unshare()
    with _served(str(tmp_path / "socket")) as manager:
        _run(*unshare, *elsewhere, sys.executable, "-c", CLIENT, manager.address, "far-away", "RemoteArray")


def test_another_mount_namespace_with_the_same_shm_maps(tmp_path: Path) -> None:
    unshare = _unshare()
    if len(unshare) > 1:
        pytest.skip("needs root: a user namespace is another difference")
    with _served(str(tmp_path / "socket")) as manager:
        _run(*unshare, "--mount", sys.executable, "-c", CLIENT, manager.address, "far-away", "SharedArray")


def test_another_user_of_the_host_reads_and_writes_slices() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    # Loaded first: the other user may not be allowed to read the code.
    become = "import os, numpy.random, shmarray.multiprocessing.managers as _\nos.setgroups([])\nos.setuid(65534)\n"
    with _served(("127.0.0.1", 0)) as manager:
        address = f"127.0.0.1:{manager.address[1]}"
        _run(sys.executable, "-c", become + CLIENT, address, "far-away", "RemoteArray")


@pytest.fixture
def network() -> Iterator[tuple[str, str]]:
    """A network of two: the name of the far host, and this one's address in it."""
    ip = shutil.which("ip")
    if ip is None:
        pytest.skip("there is no `ip` (package iproute2)")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    tag = uuid.uuid4().hex[:8]
    host, near, far = f"shmarray-{tag}", f"sn{tag}", f"sf{tag}"
    # Of the net that tests have for themselves (RFC 2544), a part that no test beside this one has.
    part = IPv4Address("198.18.0.0") + 4 * (int(tag, 16) % (1 << 15))
    here, there = str(part + 1), str(part + 2)
    steps = [
        ["netns", "add", host],
        ["link", "add", near, "type", "veth", "peer", "name", far, "netns", host],
        ["addr", "add", f"{here}/30", "dev", near],
        ["link", "set", near, "up"],
        ["-n", host, "addr", "add", f"{there}/30", "dev", far],
        ["-n", host, "link", "set", far, "up"],
    ]
    try:
        for step in steps:
            done = subprocess.run([ip, *step], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"this machine allows no virtual network: ip {' '.join(step)}: {done.stderr.strip()}")
        yield host, here
    finally:
        subprocess.run([ip, "netns", "delete", host], capture_output=True, check=False)  # its link goes with it
        subprocess.run([ip, "link", "delete", near], capture_output=True, check=False)


def test_a_client_on_another_host_reads_and_writes_slices_and_one_with_the_same_shm_maps(
    network: tuple[str, str],
) -> None:
    host, here = network
    unshare = _unshare()
    for namespaces, kind in (([*unshare, *ANOTHER_SHM], "RemoteArray"), ([], "SharedArray")):
        with _served((here, 0)) as manager:
            address = f"{here}:{manager.address[1]}"
            _run("ip", "netns", "exec", host, *namespaces, sys.executable, "-c", CLIENT, address, "far-away", kind)
