"""`ls`, `info`, `rm`, `gc`: what they print, and with which exit status."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

import shmarray as sa
from shmarray.cli.main import cli
from shmarray.cli.options import ByteSize, complete_names

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    runner = CliRunner()
    return lambda *arguments: runner.invoke(cli, arguments)


def test_ls_says_that_there_is_nothing(run: Run) -> None:
    result = run("ls")
    assert result.exit_code == 0
    assert result.output == f"no arrays in namespace {sa.config.namespace!r}\n"
    assert json.loads(run("ls", "--json").output) == []


def test_ls_shows_names_shapes_and_the_sum(run: Run) -> None:
    first, second = sa.zeros((3, 5), "f4", name="alpha"), sa.zeros(10, "i8", name="beta")
    lines = run("ls").output.splitlines()
    assert "alpha" in lines[1]
    assert "3 x 5" in lines[1]
    assert "beta" in lines[2]
    assert lines[-1].startswith("2 arrays, 140 B")
    del first, second


def test_ls_json_has_plain_numbers(run: Run) -> None:
    array = sa.zeros((3, 5), "f4", name="alpha")
    (entry,) = json.loads(run("ls", "--json").output)
    assert (entry["name"], entry["shape"], entry["dtype"], entry["nbytes"]) == ("alpha", [3, 5], "float32", 60)
    assert entry["keep"] is False
    assert isinstance(entry["created"], float)
    del array


def test_ls_of_another_namespace_sees_its_own_alone(run: Run) -> None:
    array = sa.zeros(3, name="alpha")
    assert "no arrays" in run("ls", "--namespace", "quite-another").output
    assert "alpha" in run("ls").output, "the option must not outlive its command"
    del array


def test_ls_shows_unnamed_arrays_and_handles_on_their_way(run: Run) -> None:
    text = pickle.dumps(sa.zeros(3))
    lines = run("ls").output.splitlines()
    assert lines[1].endswith("in flight  (unnamed)")
    assert "1 array (24 B) in flight: pickled, and kept until somebody" in run("gc").output
    (entry,) = json.loads(run("ls", "--json").output)
    assert entry["in_flight"] is True
    array = pickle.loads(text)
    assert json.loads(run("ls", "--json").output)[0]["in_flight"] is False
    assert "in flight" not in run("gc").output
    del array


@pytest.mark.parametrize("columns", ["40", "200"])
def test_long_names_are_shown_whole(run: Run, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    name = "n" * 150
    array = sa.zeros(3, [("low", "f4"), ("when", "M8[ns]")], name=name)
    lines = run("ls").output.splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("NAME")
    assert "2 fields" in lines[1]
    assert lines[1].endswith(name)
    assert f"{name}\n" in run("info", name).output
    del array


def test_holders_beyond_a_few_are_counted() -> None:
    from shmarray.cli.listing import _holders

    array = sa.zeros(3, name="alpha")
    entry = sa.registry.info("alpha")._replace(holders=tuple(range(10, 17)))
    assert _holders(entry, most=4) == "10, 11, 12, 13, 3 more"
    assert _holders(entry).endswith("15, 16")
    assert _holders(entry._replace(holders=())) == "nobody visible"
    assert _holders(entry._replace(holders=(), keep=True)) == "nobody, kept"
    del array


def test_chunks_are_the_arrays_in_every_view_of_them(run: Run) -> None:
    for index, chunks in enumerate((None, (2, 1000))):
        array = sa.zeros((600, 1000), name=f"a{index}", chunks=chunks)
        assert sa.registry.info(f"a{index}").chunks == array.chunks
        assert json.loads(run("info", f"a{index}", "--json").output)["chunks"] == list(array.chunks)
        assert f"{array.chunks[0]} x {array.chunks[1]}" in run("info", f"a{index}").output
        del array


def test_tables_in_a_pipe_are_not_folded() -> None:
    done = subprocess.run([sys.executable, "-m", "shmarray", "doctor"], capture_output=True, text=True, check=False)
    assert done.stderr == "", done.stdout
    _, *findings, _ = done.stdout.splitlines()  # between the headings and the sum
    assert len(findings) >= 10
    assert all(line.split()[0] in ("good", "note", "wrong") for line in findings)
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_info_tells_one_array(run: Run) -> None:
    array = sa.zeros((3, 5), "f4", name="alpha")
    output = run("info", "alpha").output
    assert "3 x 5" in output
    assert "60 bytes" in output
    assert json.loads(run("info", "alpha", "--json").output)["name"] == "alpha"
    del array


def test_info_of_a_missing_array_is_exit_status_1(run: Run) -> None:
    result = run("info", "missing")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no array is called 'missing'")
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [("info", "a/b"), ("ls", "--namespace", "../x"), ("frobnicate",), ("rm",)])
def test_wrong_command_lines_are_exit_status_2(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_rm_removes_several_and_reports_the_missing(run: Run) -> None:
    arrays = [sa.zeros(3, name=name) for name in ("alpha", "beta")]
    result = run("rm", "alpha", "missing", "beta")
    assert result.exit_code == 1
    assert result.stdout == "removed alpha\nremoved beta\n"
    assert result.stderr.startswith("Error: no array is called 'missing' in namespace")
    assert "never created, was unlinked, or its last holder has gone; see `shmarray ls`" in result.stderr
    assert arrays[0].sum() == 0, "whoever holds an array keeps its data"
    assert run("rm", "--force", "missing").exit_code == 0


def test_gc_frees_what_a_killed_program_left(run: Run) -> None:
    program = (
        "import os, shmarray as sa\n"
        f"sa.config.namespace = {sa.config.namespace!r}\n"
        "a = sa.zeros(3, name='orphan')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    kept = sa.zeros(3, name="kept")
    assert json.loads(run("gc", "--json").output)["namespace"] == sa.config.namespace
    assert [entry["name"] for entry in json.loads(run("ls", "--json").output)] == ["kept"]
    del kept


def test_names_complete() -> None:
    arrays = [sa.zeros(3, name=name) for name in ("alpha", "alto", "beta")]
    assert [item.value for item in complete_names(None, None, "al")] == ["alpha", "alto"]  # type: ignore[arg-type]
    del arrays


def test_looking_around_imports_neither_numba_nor_rich() -> None:
    program = (
        "import sys\nfrom shmarray.cli.main import cli\n"
        "cli.main(['ls', '--json'], standalone_mode=False)\n"
        "assert not {'numba', 'rich', 'matplotlib', 'shmarray.cli.demo'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("text", "nbytes"), [("400MB", 400_000_000), ("1.5GiB", 3 << 29), ("64k", 64_000), ("7", 7), ("8 B", 8)]
)
def test_sizes_have_units(text: str, nbytes: int) -> None:
    assert ByteSize().convert(text, None, None) == nbytes


@pytest.mark.parametrize("text", ["0", "-1", "lots", "4XB", ""])
def test_sizes_that_are_none_are_refused(run: Run, text: str) -> None:
    result = run("demo", f"--nbytes={text}")
    assert result.exit_code == 2
    assert "400MB" in result.output or "no bytes" in result.output
