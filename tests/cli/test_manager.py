"""`shmarray manager`: what it prints, whom it lets in, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

import shmarray as sa
from shmarray.cli.main import cli

KEY = "a key of thirty-two random bytes"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    return path


@contextmanager
def _serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the line that it prints when it serves."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "shmarray.cli", "manager", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, line
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _ended(process: subprocess.Popen[str], number: int) -> str:
    """What a process that is ended by a signal says on standard error; it must end well."""
    process.send_signal(number)
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(30) == 0, said
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_keeps_what_is_kept(tmp_path: Path, key_file: Path, number: int) -> None:
    address = str(tmp_path / "socket")
    with _serving("--address", address, "--authkey-file", str(key_file)) as (process, line):
        assert line == f"serving the arrays of namespace {sa.config.namespace!r} at {address}\n"
        manager = sa.ArrayManager(address, KEY.encode())
        manager.connect()
        manager.array(3, name="kept", keep=True)[:] = 4
        manager.array(3, name="not-kept")
        numbers = manager.list([1])
        assert numbers[0] == 1
        assert _ended(process, number) == ""
    assert [info.name for info in sa.registry.list()] == ["kept"]
    assert sorted(os.listdir(tmp_path)) == ["key"]
    sa.unlink("kept")


def test_a_killed_one_can_be_started_again_at_once(tmp_path: Path, key_file: Path) -> None:
    arguments = ("--address", str(tmp_path / "socket"), "--authkey-file", str(key_file))
    with _serving(*arguments) as (process, _):
        process.kill()
    assert (tmp_path / "socket").exists()
    with _serving(*arguments) as (process, _):
        result = CliRunner().invoke(cli, ["manager", *arguments])
        assert result.exit_code == 1
        assert "another manager serves" in result.stderr
        manager = sa.ArrayManager(arguments[1], KEY.encode())
        manager.connect()
        assert manager.array(3).size == 3
        _ended(process, signal.SIGTERM)


def test_without_a_key_a_random_one_is_shown_once() -> None:
    with _serving("--address", ":0") as (process, line):
        found = re.search(r"at (127\.0\.0\.1:\d+)$", line)
        assert found is not None
        said = _ended(process, signal.SIGTERM)
    keys = re.findall(r"[0-9a-f]{64}", said + line)
    assert len(keys) == 1
    with _serving() as (process, line):
        assert re.search(r" at /\S+$", line), "by default not on a network"
        assert re.findall(r"[0-9a-f]{64}", _ended(process, signal.SIGTERM)) != keys


def test_what_others_can_reach_is_said_to_be_so(key_file: Path) -> None:
    with _serving("--address", "0.0.0.0:0", "--authkey-file", str(key_file)) as (process, _):
        assert "tunnel" in _ended(process, signal.SIGTERM)


def test_a_key_file_that_others_can_read_and_one_that_can_be_guessed_are_warned_of(tmp_path: Path) -> None:
    path, address = tmp_path / "key", str(tmp_path / "socket")
    path.write_bytes(b"\xff short\n")
    path.chmod(0o644)
    with _serving("--authkey-file", str(path), "--address", address) as (process, _):
        sa.ArrayManager(address, b"\xff short\n").connect()
        said = _ended(process, signal.SIGTERM)
    assert "chmod 600" in said
    assert "can be guessed" in said


def test_key_files_that_are_none_are_refused(tmp_path: Path) -> None:
    runner = CliRunner()
    empty = tmp_path / "empty"
    empty.touch(0o600)
    result = runner.invoke(cli, ["manager", "--authkey-file", str(empty)])
    assert (result.exit_code, "is empty" in result.stderr) == (1, True)
    assert runner.invoke(cli, ["manager", "--authkey-file", str(tmp_path / "missing")]).exit_code == 2
    assert runner.invoke(cli, ["manager", "--address", "host:99999"]).exit_code == 2
