"""The cache on disk: whole files, checked, bounded, and never an error."""

from __future__ import annotations

import os
import threading

import pytest

from shmarray.jit import store

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))


def only_file(folder):
    (path,) = folder.glob("*.code")
    return path


def test_what_was_written_is_read(cache_directory):
    assert store.read(KEY) is None
    assert store.write(KEY, b"machine code")
    assert store.read(KEY) == b"machine code"
    assert store.read(OTHER) is None
    assert cache_directory.stat().st_mode & 0o777 == 0o700
    assert only_file(cache_directory).stat().st_mode & 0o777 == 0o600


def test_a_file_cut_short_anywhere_is_not_read(cache_directory):
    store.write(KEY, b"machine code")
    path = only_file(cache_directory)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert store.read(KEY) is None
        assert not path.exists()  # so that it is written anew


def test_a_flipped_bit_anywhere_is_noticed(cache_directory):
    store.write(KEY, b"machine code")
    path = only_file(cache_directory)
    whole = path.read_bytes()
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        assert store.read(KEY) is None


def test_a_file_under_another_name_is_not_read(cache_directory):
    store.write(KEY, b"machine code")
    path = only_file(cache_directory)
    path.rename(path.with_name(OTHER.hex() + ".code"))
    assert store.read(OTHER) is None


def test_files_that_others_may_write_are_not_read(cache_directory):
    store.write(KEY, b"machine code")
    only_file(cache_directory).chmod(0o666)
    assert store.read(KEY) is None


def test_planted_links_and_fifos_are_not_read(cache_directory, tmp_path):
    store.write(KEY, b"machine code")
    path = only_file(cache_directory)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert store.read(KEY) is None
    path.unlink()
    os.mkfifo(path, 0o600)
    assert store.read(KEY) is None


def test_a_directory_that_others_may_write_is_not_used(cache_directory, monkeypatch, tmp_path):
    cache_directory.mkdir(mode=0o700)
    cache_directory.chmod(0o777)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert store.directory() == str(tmp_path / f"shmarray-cache-{os.geteuid()}")


def test_without_any_directory_nothing_is_kept_and_nothing_fails(monkeypatch, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("SHMARRAY_CACHE_DIR", str(blocked / "below"))
    monkeypatch.setenv("TMPDIR", str(blocked))
    assert store.directory() is None
    assert not store.write(KEY, b"machine code")
    assert store.read(KEY) is None


def test_the_cache_follows_the_xdg_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("SHMARRAY_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.directory() == str(tmp_path / "shmarray")


def test_the_least_recently_used_go_first(cache_directory, monkeypatch):
    monkeypatch.setattr(store, "LIMIT_NBYTES", 4000)
    keys = [bytes([number]) * 32 for number in range(6)]
    for age, key in enumerate(keys[:5]):
        store.write(key, bytes(700))
        os.utime(cache_directory / (key.hex() + ".code"), (1000 + age, 1000 + age))
    assert store.read(keys[0]) is not None  # used: no longer the oldest
    store.write(keys[5], bytes(700))
    kept = [store.read(key) is not None for key in keys]
    assert kept == [True, False, False, True, True, True]


def test_what_dead_writers_left_goes(cache_directory):
    store.write(KEY, b"machine code")
    left = cache_directory / ".partial-1-aa"
    left.write_bytes(b"half")
    os.utime(left, (1000, 1000))
    fresh = cache_directory / ".partial-2-bb"
    fresh.write_bytes(b"being written")
    store.write(OTHER, b"machine code")
    assert not left.exists()
    assert fresh.exists()


def test_a_full_disk_is_no_error(monkeypatch, cache_directory):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert not store.write(KEY, b"machine code")
    assert list(cache_directory.iterdir()) == []


@pytest.mark.parametrize("threads", [8])
def test_readers_beside_writers_see_all_or_nothing(threads):
    bodies = {bytes([number]) * 50_000 for number in range(threads)}
    wrong = []

    def work(body):
        for _ in range(20):
            store.write(KEY, body)
            if store.read(KEY) not in bodies:
                wrong.append(body)

    running = [threading.Thread(target=work, args=(body,)) for body in bodies]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not wrong


def test_an_empty_home_is_no_home(monkeypatch):
    import pwd

    for name in ("SHMARRAY_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "")
    home = pwd.getpwuid(os.geteuid()).pw_dir
    assert store._candidates()[0] == os.path.join(home, ".cache", "shmarray")
