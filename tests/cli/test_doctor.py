"""`shmarray doctor`: what is wrong is found, told with its remedy, and makes the exit status 1."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import shmarray as sa
from shmarray.cli.doctor import compilation, installation, memory, segments
from shmarray.cli.doctor.finding import Finding, Verdict
from shmarray.cli.main import cli
from shmarray.registry import condition, names
from shmarray.registry.inspection import FileState, inspect, lock_holders
from shmarray.segment.descriptor import DESCRIPTOR_NBYTES, Descriptor
from shmarray.segment.mapping import DIRECTORY
from tests.crash.operations import OPERATIONS
from tests.crash.prelude import PRELUDE
from tests.processes import holding, run_python, wait_until


def wrongs(findings: Iterator[Finding]) -> list[Finding]:
    return [one for one in findings if one.verdict is Verdict.WRONG]


def orphan(namespace: str, name: str) -> None:
    with pytest.raises(AssertionError):  # it is killed
        run_python("import os, sys, shmarray as sa\na = sa.zeros(3, name=sys.argv[1])\nos.kill(os.getpid(), 9)", name)


@pytest.fixture
def plant(namespace: str) -> Iterator[Callable[[str, bytes], Path]]:
    planted: list[Path] = []

    def put(name: str, content: bytes) -> Path:
        path = Path(DIRECTORY) / names.public_name(namespace, name)
        path.touch(mode=0o600)
        path.write_bytes(content)
        planted.append(path)
        return path

    yield put
    for path in planted:
        path.unlink(missing_ok=True)


def page(version: int = 1) -> bytes:
    text = bytearray(Descriptor((3,), np.dtype("u1"), 3, None, "x", False, 1, 1).pack().ljust(DESCRIPTOR_NBYTES, b"\0"))
    text[8:12] = version.to_bytes(4, "little")
    return bytes(DESCRIPTOR_NBYTES) + bytes(text)


def test_every_finding_of_a_healthy_namespace_is_told(namespace: str) -> None:
    array = sa.zeros(3, name="x")
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    document = json.loads(result.output)
    assert document["namespace"] == namespace
    assert {one["topic"] for one in document["findings"]} >= {"version", "/dev/shm", "numba", "SIMD", "huge pages"}
    ours = [one for one in document["findings"] if one["topic"] == f"namespace {namespace}"]
    assert [(one["verdict"], one["text"]) for one in ours] == [("good", "1 segment (8.19 kB) held")]
    assert document["wrong"] == sum(one["verdict"] == "wrong" for one in document["findings"])
    assert result.exit_code == (1 if document["wrong"] else 0)
    table = CliRunner().invoke(cli, ["doctor"]).output
    assert "1 segment (8.19 kB) held" in table
    del array


def test_leftovers_and_what_cannot_be_read_are_wrong_and_exit_status_1(
    namespace: str, plant: Callable[[str, bytes], Path]
) -> None:
    kept = sa.zeros(3, name="kept", keep=True)
    del kept
    plant("newer", page(version=7))
    plant("junk", b"no segment at all")
    plant("open", page()).chmod(0o666)
    orphan(namespace, "dead")
    found = {one.label: one.state for one in inspect()}
    assert found == {
        "kept": FileState.KEPT,
        "newer": FileState.NEWER,
        "junk": FileState.CORRUPT,
        "open": FileState.FOREIGN,
        "dead": FileState.ORPHAN,
    }
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1
    for part in ("dead", "shmarray gc", "layout version 7", "junk", "0666", "things are wrong"):
        assert part in result.output
    assert {one.label for one in inspect()} == set(found), "the doctor only looks"
    sa.unlink("kept")


def test_a_handle_in_flight_is_no_orphan(namespace: str) -> None:
    import pickle

    text = pickle.dumps(sa.zeros(3, name="x"))
    assert [(one.label, one.state) for one in inspect()] == [("x", FileState.IN_FLIGHT)]
    assert wrongs(segments.check_segments()) == []
    del text


def test_a_process_stopped_with_the_namespaces_lock_is_named(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_STUCK_S", 0.05)
    code = """
from shmarray import config
from shmarray.registry.store import store
store.names.held(config.namespace).__enter__()"""
    assert lock_holders() == []
    with holding(code) as process:
        process.send_signal(signal.SIGSTOP)
        assert lock_holders() == [process.pid]
        (finding,) = wrongs(segments.check_segments())
        assert f"process {process.pid} has held" in finding.text
        assert "kill -CONT" in finding.remedy
        process.send_signal(signal.SIGCONT)
    wait_until(lambda: lock_holders() == [])


def test_a_small_and_a_full_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        f_frsize, f_blocks, f_bavail, f_files, f_favail = 4096, 2**14, 2**14, 1000, 1000

    monkeypatch.setattr(memory.os, "statvfs", lambda directory: Found)
    (finding,) = wrongs(memory._directory())
    assert "Docker" in finding.text
    assert "--shm-size" in finding.remedy
    Found.f_blocks, Found.f_bavail, Found.f_favail = 2**20, 10, 3
    assert [one.text.partition(": ")[2] or one.text for one in wrongs(memory._directory())] == [
        "nearly full",
        "3 more files fit",
    ]


def test_no_shared_memory_at_all(tmp_path: Path) -> None:
    assert "no such directory" in wrongs(memory._directory(str(tmp_path / "none")))[0].text


def test_a_tight_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "group_limits", lambda: [memory_limit(10**6)])
    assert "processes are killed" in wrongs(memory._groups())[0].text
    monkeypatch.setattr(memory, "group_limits", lambda: [memory_limit(10**9)])
    assert wrongs(memory._groups()) == []


def memory_limit(left_nbytes: int) -> Any:
    from shmarray.registry.reserve import GroupLimit

    return GroupLimit("/sys/fs/cgroup/x", 2 * 10**9, left_nbytes)


def test_another_projects_package_of_our_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(installation._namesakes([os.fspath(Path(sa.__file__).parents[1])])) == []
    (tmp_path / "shmarray.py").touch()
    (finding,) = wrongs(installation._namesakes([str(tmp_path)]))
    assert str(tmp_path) in finding.text
    monkeypatch.setattr(installation, "_version", lambda name: "0.0.3" if name == "shmarray" else "1")
    (finding,) = wrongs(installation._namesakes([]))
    assert "pip uninstall shmarray" in finding.remedy


def test_settings_that_hinder_numba() -> None:
    assert [one.verdict for one in compilation._settings({"NUMBA_DISABLE_JIT": "1"})] == [Verdict.WRONG]
    assert list(compilation._settings({"NUMBA_DISABLE_JIT": "0", "NUMBA_OPT": "3"})) == []
    assert [one.verdict for one in compilation._settings({"NUMBA_BOUNDSCHECK": "1", "NUMBA_OPT": "0"})] == (
        [Verdict.NOTE] * 2
    )


@pytest.mark.parametrize(
    ("features", "text"),
    [
        ({"sse2", "avx", "avx2", "avx512f"}, "512 bits"),
        ({"sse2", "avx", "avx2"}, "256 bits"),
        ({"neon"}, "128"),
        (set(), "none"),
    ],
)
def test_the_width_of_vectors(features: set[str], text: str) -> None:
    assert text in compilation._simd("cpu", features, {}).text
    assert compilation._simd("cpu", features, {"NUMBA_CPU_NAME": "generic"}).verdict is Verdict.NOTE


def test_no_place_for_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from shmarray.jit import store

    monkeypatch.setattr(store, "directory", lambda: None)
    assert "SHMARRAY_CACHE_DIR" in wrongs(iter([compilation._cache()]))[0].remedy


def test_what_is_wrong_needs_a_remedy() -> None:
    with pytest.raises(ValueError, match="names no remedy"):
        Finding("x", Verdict.WRONG, "y")


def test_arrays_of_unknown_content_are_told_with_the_reason(namespace: str) -> None:
    array = sa.zeros(3, name="spoilt")
    assert wrongs(segments.check_segments()) == []
    condition.mark_dirty(array.shm, "add changed it in place, and chunk 2 is unknown")
    (finding,) = wrongs(segments.check_segments())
    assert "'spoilt' is dirty: add changed it in place, and chunk 2 is unknown" in finding.text
    assert "array.clean()" in finding.remedy
    array.clean()
    assert wrongs(segments.check_segments()) == []


def test_a_call_that_was_cut_short_is_told_until_gc_has_finished_it(namespace: str) -> None:
    def told(failpoint: str) -> list[str]:
        run_python(PRELUDE + OPERATIONS + CALL, "replay", failpoint)
        return [one.text for one in wrongs(segments.check_segments())]

    assert told("none") == [], "while the caller lives, and after a call that has ended"
    scratch, *arrays = told("commit.copied:1:kill")
    assert "of crash-safe calls whose callers were killed" in scratch
    assert [text.partition(" waits ")[0] for text in arrays] == ["array 'u'", "array 'v'"]
    assert {one.state for one in inspect()} == {FileState.KEPT, FileState.CUT_SHORT}, "the doctor only looks"
    sa.registry.gc()
    dirty = [one.text for one in wrongs(segments.check_segments())]
    assert len(dirty) == 2
    assert all("is dirty: task was cut short: chunks 0 to 1 of 4 are done" in text for text in dirty)
    for name in ("u", "v"):
        sa.open(name).clean()
        sa.unlink(name)


#: A call on the arrays "u" and "v"; stopped in its middle, the doctor finds nothing wrong.
CALL = """
from shmarray.cli.doctor.segments import check_segments
if sys.argv[2] == "none":
    two_to_change()
    child = fork(call, failpoint="commit.copied:1:stop")
    os.waitpid(child, os.WUNTRACED)
    assert [one for one in check_segments() if one.verdict.value == "wrong"] == []
    os.kill(child, signal.SIGCONT)
    assert wait(child) == 0
else:
    two_to_change()
    assert wait(fork(call, failpoint=sys.argv[2])) == -signal.SIGKILL
"""
