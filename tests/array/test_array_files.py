"""Loading and saving .npy files: NumPy's files, whole or not at all."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray.array import files
from shmarray.errors import SegmentExistsError, SegmentNotFoundError

ROOT = Path(__file__).parents[2]

ARRAYS = {
    "flat": np.arange(7.0),
    "grid": np.arange(24, dtype="i2").reshape(4, 6),
    "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "empty": np.empty((0, 3)),
    "scalar": np.array(5.5),
    "big-endian": np.arange(4, dtype=">f8"),
    "complex": np.arange(3) * 1j,
    "bool": np.array([True, False]),
    "dates": np.array(["2020-01-01", "NaT"], "M8[D]"),
    "text": np.array(["a", "bcd", "ü"]),
    "bytes": np.array([b"a", b"bcd"]),
    "structured": np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    "unicode fields": np.array([(1, 2.0)], [("\u0431", "i4"), ("\u03b2", "f8")]),
    "many fields": np.zeros(1, [(f"field number {index}", "f8") for index in range(3000)]),
    "reversed": np.arange(10)[::-1],
    "strided": np.arange(60).reshape(3, 4, 5)[:, ::2, ::-1],
    "permuted": np.arange(60).reshape(3, 4, 5).transpose(1, 2, 0),
}


@pytest.fixture(params=ARRAYS.values(), ids=ARRAYS.keys())
def x(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.filterwarnings("ignore:Stored array in format")
def test_load_reads_what_numpy_saved(x: Any, tmp_path: Path) -> None:
    if x.dtype.names and len(x.dtype.names) > 1000:
        pytest.skip("NumPy refuses headers of that length too, unless it is told that the file is trusted")
    np.save(tmp_path / "x.npy", x)
    a = sa.load(tmp_path / "x.npy")
    assert a.dtype == x.dtype
    assert a.shape == x.shape
    assert a.flags.c_contiguous
    assert a.is_shared
    assert np.array_equal(a, x) or x.dtype.kind == "M"
    assert a.tobytes() == x.tobytes()


def test_numpy_loads_what_save_wrote(x: Any, tmp_path: Path) -> None:
    sa.save(tmp_path / "x.npy", x)
    y = np.load(tmp_path / "x.npy", max_header_size=10**7)
    assert y.dtype == x.dtype
    assert y.tobytes() == x.tobytes()
    assert os.listdir(tmp_path) == ["x.npy"]


@pytest.mark.filterwarnings("ignore:Stored array in format")
def test_files_are_numpys_byte_for_byte(x: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "theirs.npy", x)
    sa.save(tmp_path / "ours.npy", x)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x.T, lambda x: x[::2, ::-1]], ids=["C", "F", "strided"])
def test_many_slices_by_several_threads(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SLICE_NBYTES", 10_000)
    x = make(np.random.default_rng(0).normal(size=(300, 200)))
    told: list[tuple[int, int]] = []
    sa.save(tmp_path / "x", sa.array(x) if x.flags.c_contiguous else x, progress=lambda *state: told.append(state))
    assert told[-1] == (x.nbytes, x.nbytes)
    assert len(told) > 10
    told.clear()
    a = sa.load(tmp_path / "x.npy", progress=lambda *state: told.append(state))
    assert told[-1] == (x.nbytes, x.nbytes)
    assert np.array_equal(a, x)
    assert np.array_equal(np.load(tmp_path / "x.npy"), x)


def test_progress_draws_a_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sa.save(tmp_path / "x.npy", np.zeros(1000), progress=True)
    sa.load(tmp_path / "x.npy", progress=True)
    printed = capsys.readouterr()
    assert "x.npy" in printed.out + printed.err


def test_names_and_keywords_go_to_the_array(tmp_path: Path) -> None:
    sa.save(tmp_path / "x", np.arange(6).reshape(2, 3))
    a = sa.load(str(tmp_path / "x.npy"), name="loaded", chunks=(1, 3))
    assert (a.name, a.chunks) == ("loaded", (1, 3))
    with pytest.raises(SegmentExistsError):
        sa.load(tmp_path / "x.npy", name="loaded")
    a[:] = 0
    assert not sa.load(tmp_path / "x.npy", name="loaded", if_exists="open").any()


def test_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"o\.npy.*Python objects"):
        sa.load(tmp_path / "o.npy")
    with pytest.raises(TypeError, match=r"p\.npy.*Python objects"):
        sa.save(tmp_path / "p.npy", np.array([None]))
    assert not (tmp_path / "p.npy").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUM", b"hello world, this is no array", b"\x93NUMPY\x09\x00", pickle.dumps([1]),
     b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x03\x00\xff\x00\x00\x00{'descr': ", b"PK\x03\x04zip"],
)  # fmt: skip
def test_what_is_no_npy_file_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.npy"):
        sa.load(tmp_path / "bad.npy")


def test_a_file_cut_short_is_refused_and_leaves_no_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.arange(1000))
    content = (tmp_path / "x.npy").read_bytes()
    for length in (10, 100, 127, 128, 4000, len(content) - 1):
        (tmp_path / "x.npy").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"x\.npy"):
            sa.load(tmp_path / "x.npy", name="cut", keep=True)
    (tmp_path / "x.npy").write_bytes(content)

    def stops(*_: Any) -> int:
        return 0

    monkeypatch.setattr(files.os, "preadv", stops)
    with pytest.raises(ValueError, match=r"x\.npy: cut short while"):
        sa.load(tmp_path / "x.npy", name="cut", keep=True)
    with pytest.raises(SegmentNotFoundError):
        sa.open("cut")


def test_headers_are_data_not_code(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').getpid(),)}\n"
        length = len(text).to_bytes(2 if version == 1 else 4, "little")
        (tmp_path / "x.npy").write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + text)
        with pytest.raises(ValueError, match=r"x\.npy"):
            sa.load(tmp_path / "x.npy")


def test_missing_files_and_folders_say_their_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.npy"):
        sa.load(tmp_path / "nothing.npy")
    with pytest.raises(FileNotFoundError, match=r"folder/x\.npy'$") as caught:
        sa.save(tmp_path / "folder" / "x.npy", [1])
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "nothing of how the file is made"
    (tmp_path / "taken.npy").mkdir()
    with pytest.raises(OSError, match=r"taken\.npy"):
        sa.save(tmp_path / "taken.npy", [1])


def test_what_is_no_path_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=r"save\(file, array\) takes a path; got SharedArray: the file comes first, then"
    ):
        sa.save(sa.ones(3), tmp_path / "x.npy")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"load\(file\) takes a path; got int: the file comes first$"):
        sa.load(3)  # type: ignore[arg-type]
    with (
        open(tmp_path / "x.npy", "wb") as file,
        pytest.raises(TypeError, match="give the path that it was opened with"),
    ):
        sa.save(file, [1])  # type: ignore[arg-type]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sa.save(tmp_path / "x.npy", [1, 2, 3])

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "pwritev", full)
    with pytest.raises(OSError, match=r"No space.*x\.npy"):
        sa.save(tmp_path / "x.npy", np.zeros(1000))
    monkeypatch.undo()
    assert sa.load(tmp_path / "x.npy").tolist() == [1, 2, 3]
    assert os.listdir(tmp_path) == ["x.npy"]


def test_a_killed_save_leaves_the_old_file(tmp_path: Path) -> None:
    sa.save(tmp_path / "x.npy", [1, 2, 3])
    program = """
import os, signal, sys, numpy as np, shmarray as sa
sa.save(sys.argv[1], np.zeros(5_000_000), progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.npy")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -9
    assert sa.load(tmp_path / "x.npy").tolist() == [1, 2, 3]


def test_save_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)  # what an old kernel makes of the flag
    sa.save(tmp_path / "x.npy", [1, 2], fsync=True)
    assert np.load(tmp_path / "x.npy").tolist() == [1, 2]
    assert os.listdir(tmp_path) == ["x.npy"]


def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    sa.save(tmp_path / "x.npy", [1])
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "x.npy").stat().st_mode) == 0o666 & ~umask
    (tmp_path / "x.npy").chmod(0o640)
    (tmp_path / "link.npy").symlink_to("x.npy")
    sa.save(tmp_path / "link.npy", [2], fsync=True)
    assert (tmp_path / "link.npy").is_symlink()
    assert np.load(tmp_path / "x.npy").tolist() == [2]
    assert stat.S_IMODE((tmp_path / "x.npy").stat().st_mode) == 0o640


def test_an_error_in_progress_stops_the_transfer(tmp_path: Path) -> None:
    def stop(*_: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        sa.save(tmp_path / "x.npy", np.zeros(10), progress=stop)
    assert os.listdir(tmp_path) == []
