"""Wrong arguments of every kind: an error of ours that names the argument, what it must be and what came, never one
from inside (AttributeError, OverflowError, struct.error, NumPy on something that the user has never heard of)."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmarray as sa

#: One of every kind; a row of the table takes away what its argument may be.
KINDS: dict[str, Any] = {
    "None": None,
    "text": "x",
    "no text": "",
    "bytes": b"x",
    "negative": -1,
    "zero": 0,
    "fraction": 1.5,
    "nan": float("nan"),
    "bool": True,
    "numpy integer": np.int64(3),
    "numpy float": np.float64(2.5),
    "huge": 2**70,
    "complex": 1j,
    "list": [],
    "list of text": ["a"],
    "dict": {},
    "set": {1},
    "path": Path("x"),
    "object": object(),
    "array": np.zeros(3),
    "array of objects": np.array([None]),
    "function": lambda *given: None,
    "class": int,
    "zero byte": "a\0b",
}
INTEGERS = {"zero", "negative", "bool", "numpy integer", "huge"}
ROWS: list[tuple[str, Callable[[Any], Any], set[str], str]] = [
    ("empty(shape)", sa.empty, INTEGERS | {"list"}, "shape must be an int or a sequence of ints; got"),
    ("empty(shape < 0)", sa.empty, KINDS.keys() - {"negative"}, r"no negative lengths; got \(-1,\)"),
    ("empty(shape > all)", sa.empty, KINDS.keys() - {"huge"}, "more than an address can reach"),
    (
        "zeros(name)",
        lambda x: sa.zeros(3, name=x),
        {"None", "text", "no text", "zero byte"},
        "name must be a str; got",
    ),
    (
        "zeros(name, text)",
        lambda x: sa.zeros(3, name=x),
        KINDS.keys() - {"no text", "zero byte"},
        "is no name for an",
    ),
    ("zeros(keep)", lambda x: sa.zeros(3, keep=x), {"bool"}, "keep must be True or False; got"),
    (
        "zeros(chunks)",
        lambda x: sa.zeros(3, chunks=x),
        INTEGERS | {"None", "list"},
        "chunks must be an integer or a seq",
    ),
    ("zeros(chunks, 0)", lambda x: sa.zeros(3, chunks=x), KINDS.keys() - {"zero"}, "each at least 1, or -1 .*got 0"),
    (
        "zeros(if_exists)",
        lambda x: sa.zeros(3, if_exists=x),
        set(),
        "if_exists must be 'raise', 'open' or 'repl.*; got",
    ),
    (
        "zeros(dtype)",
        lambda x: sa.zeros(3, x),
        {"None", "numpy integer", "numpy float", "list", "dict", "class"},
        "(?i)data type|dtype|field elem",
    ),
    (
        "full(fill)",
        lambda x: sa.full((2, 2), x),
        KINDS.keys() - {"list", "array"},
        "fill_value of shape .* does not br",
    ),
    (
        "array(objects)",
        sa.array,
        KINDS.keys() - {"None", "dict", "set", "path", "object"},
        "dtype object cannot be shared",
    ),
    ("open(name)", sa.open, {"text", "no text", "zero byte"}, "an array's name must be a str; got"),
    ("open(mode)", lambda x: sa.open("a", x), set(), "mode must be 'r\\+', 'r' or 'c'; got"),
    (
        "open(shape)",
        lambda x: sa.open("a", shape=x),
        INTEGERS | {"None", "list"},
        "shape must be an int or a sequence",
    ),
    (
        "open(another shape)",
        lambda x: sa.open("a", shape=x),
        KINDS.keys() - {"zero", "list"},
        r"has shape \(3,\), not",
    ),
    (
        "open(another dtype)",
        lambda x: sa.open("a", dtype=x),
        KINDS.keys() - {"class", "numpy integer"},
        "dtype float64,",
    ),
    ("from_raw(name)", lambda x: sa.from_raw(x, 3), {"text", "no text", "zero byte"}, "name must be a str; got"),
    ("from_raw(nobody's)", lambda x: sa.from_raw(x, 3), KINDS.keys() - {"text"}, "no segment 'x' in /dev/shm"),
    (
        "load(progress)",
        lambda x: sa.load("a.npy", progress=x),
        {"None", "bool", "function", "class"},
        "progress must be",
    ),
    ("save(fsync)", lambda x: sa.save("b", 1, fsync=x), {"bool"}, "fsync must be True or False; got"),
    ("unlink(name)", sa.unlink, {"text", "no text", "zero byte"}, "name must be a str; got"),
    ("info(name)", sa.registry.info, {"text", "no text", "zero byte"}, "name must be a str; got"),
    (
        "config.workers",
        lambda x: sa.config.override(workers=x).__enter__(),
        {"None", "bool", "numpy integer"},
        "1 to 127",
    ),
    (
        "config.spin_us",
        lambda x: sa.config.override(spin_us=x).__enter__(),
        INTEGERS - {"huge"},
        "number of microsec",
    ),
    (
        "config.max_nbytes",
        lambda x: sa.config.override(max_nbytes=x).__enter__(),
        {"None", "bool", "numpy integer"},
        r"a number of bytes, which may be text with a unit .*; got",
    ),
    ("config.namespace", lambda x: setattr(sa.config, "namespace", x), {"text"}, "1-48 characters .*; got"),
    ("Pool(processes)", sa.Pool, INTEGERS | {"None"}, "processes must be a positive integer, or None .*; got"),
]
for _call, _function in {
    "open": lambda x: sa.open("a", timeout=x),
    "lock": lambda x: sa.open("a").lock(x),
    "private lock": lambda x: (sa.zeros(3) + 1).lock(x),
}.items():
    _numbers = {"fraction", "numpy float", "nan"} | INTEGERS
    ROWS.append((f"{_call}(timeout)", _function, _numbers | {"None"}, "timeout must be a number of seconds.*; got"))
    ROWS.append((f"{_call}(timeout < 0)", _function, KINDS.keys() - {"negative", "nan"}, "at least 0, or None; got"))


@pytest.mark.parametrize(("function", "may_be", "message"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_wrong_arguments_are_named(
    function: Callable[[Any], Any],
    may_be: set[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.arange(3))
    array = sa.zeros(3, name="a")
    for kind, value in KINDS.items():
        if kind in may_be:
            continue
        with pytest.raises((TypeError, ValueError, sa.ShmArrayError), match=message):
            pytest.fail(f"{kind} was accepted: {function(value)!r}")
    del array


def test_what_cannot_be_opened_says_what_to_do() -> None:
    array = sa.zeros((2, 3), name="a")
    for call in (
        lambda: sa.open("a", shape=(3, 2)),
        lambda: sa.open("a", dtype="i4"),
        lambda: sa.zeros((3, 2), name="a", if_exists="open"),
        lambda: sa.zeros((2, 3), "i4", name="a", if_exists="open"),
    ):
        with pytest.raises(ValueError, match=r"array 'a' has .*, not .*shmarray\.open\(name\).*if_exists='replace'"):
            call()
    with pytest.raises(sa.SegmentNotFoundError, match=r"after 0\.01 s of waiting still no array is called 'b'"):
        sa.open("b", timeout=0.01)
    with sa.config.override(handle_ttl_s=0):
        text = pickle.dumps(sa.zeros(3))
        sa.registry.gc()
        with pytest.raises(sa.SegmentNotFoundError, match=r"handle_ttl_s \(0 s\) passed.*keep the array until every"):
            pickle.loads(text)
    del array


def test_files_that_are_no_arrays_say_what_to_do(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", first=1)
    (tmp_path / "a.txt").write_text("1,2\n")
    with pytest.raises(ValueError, match=r"a\.npz: not a \.npy file .* archive of several: numpy\.load it, and give"):
        sa.load(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.txt: not a \.npy file .* read it with what wrote it"):
        sa.load(tmp_path / "a.txt")
    sa.save(bytes(tmp_path / "bytes"), sa.ones(2))
    assert sa.load(bytes(tmp_path / "bytes.npy")).sum() == 2


def test_numbers_of_bytes_have_units() -> None:
    for text, nbytes in (("2GB", 2 * 10**9), ("1.5GiB", 3 << 29), ("64 kb", 64_000), ("4096", 4096), ("8 B", 8)):
        with sa.config.override(max_nbytes=text):
            assert sa.config.max_nbytes == nbytes
    assert type(sa.config)({"SHMARRAY_CHUNK_NBYTES": "1MiB"}).chunk_nbytes == 1 << 20
    for text in ("2XB", "1.5", "GB", "-1kB", "0MB", "99999999TB"):
        with pytest.raises(ValueError, match="max_nbytes must be a number of bytes"):
            sa.config.override(max_nbytes=text).__enter__()


def test_memory_that_is_not_there_is_told_in_words_and_to_the_byte() -> None:
    from shmarray.registry.reserve import in_words

    assert [in_words(n) for n in (999, 999_949, 999_950, 10**9, 4 * 10**15)] == [
        "999 bytes",
        "999.9 kB",
        "1.0 MB",
        "1.0 GB",
        "4000.0 TB",
    ]
    with pytest.raises(
        sa.OutOfSharedMemoryError, match=r"^4\.0 TB of shared memory \(4,000,000,004,096 bytes\)"
    ) as caught:
        sa.empty((10**6, 10**6), "f4")
    assert caught.value.nbytes == 4 * 10**12 + 4096


def test_a_managers_address_and_key_are_checked_before_anything_is_started() -> None:
    for address in ("foo:bar", "nowhere:"):
        with pytest.raises(
            ValueError, match=f"'{address}' is no HOST:PORT: a port is a number; a socket's path with a"
        ):
            sa.ArrayManager(address)
    for key, kind in ((3, "int"), ("text", "str")):
        with pytest.raises(TypeError, match=f"authkey must be bytes; got {kind}"):
            sa.ArrayManager(authkey=key)  # type: ignore[arg-type]


def test_a_pool_that_is_none_of_ours_is_told_by_its_whole_name() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as foreign, pytest.raises(TypeError, match="got concurrent.futures.thread.ThreadPoolEx"):
        sa.elementwise(same)(sa.ones(3), pool=foreign)
    with pytest.raises(TypeError, match="takes a function; got an array, and arrays come behind it"):
        sa.map_chunks(sa.ones(3), same)  # type: ignore[arg-type]


def same(x):  # type: ignore[no-untyped-def]
    return x


def test_timeouts_may_be_for_ever() -> None:
    assert sa.elementwise(same, jit=False)(sa.ones(3), timeout=float("inf")).sum() == 3
    with sa.ones(3).lock(timeout=float("inf")):
        pass


def test_a_number_too_large_for_a_kernel_is_named() -> None:
    with pytest.raises(OverflowError, match=f"same: argument 0 is {2**70}, which is too large for int64; pass it as"):
        sa.elementwise(same)(2**70)
