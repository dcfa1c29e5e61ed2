"""Where does machine code stay between two runs of a program?

One file a code, named by its key, in `$SHMARRAY_CACHE_DIR`, or `shmarray` under `$XDG_CACHE_HOME`
(`~/.cache`), or a directory of our own in the temporary directory::

    0        8                  40                  72
    | magic  | key (32 bytes)   | blake2b-256       | the code ...
                                  of key and code

Files appear whole, by rename, so that any number of processes may write the same one. What is read is
checked: numba's own cache raises on a file cut short and loads one with a flipped bit.

Invariant: nothing here raises. A disk that is full, read-only, or somebody else's means compiling, not
failing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time

__all__ = ["LIMIT_NBYTES", "directory", "read", "write"]

#: The least recently used files go when all of them together are larger.
LIMIT_NBYTES = 512 * 1024 * 1024

_MAGIC = b"shmjit\x00\x01"
_HEADER_NBYTES = len(_MAGIC) + 64
_SUFFIX = ".code"
_PARTIAL = ".partial-"
_TOUCH_AFTER_S = 3600.0


def directory() -> str | None:
    """Return the cache's directory, made if need be; None where there is no safe one.

    Safe means ours and writable by us alone: what lies there is run.
    """
    for candidate in _candidates():
        try:
            os.makedirs(candidate, mode=0o700, exist_ok=True)
            found = os.lstat(candidate)
        except OSError:
            continue
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
        if ours and os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    return None


def _candidates() -> list[str]:
    named = os.environ.get("SHMARRAY_CACHE_DIR")
    candidates = [named] if named else []
    if not named:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(_home(), ".cache")
        if os.path.isabs(home):
            candidates.append(os.path.join(home, "shmarray"))
    candidates.append(os.path.join(os.environ.get("TMPDIR") or "/tmp", f"shmarray-cache-{os.geteuid()}"))
    return candidates


def _home() -> str:
    """The user's home; an empty HOME, which `expanduser` would take for the root directory, says nothing."""
    named = os.environ.get("HOME")
    if named:
        return named
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_dir
    except (ImportError, KeyError):  # a user without an entry, as in containers
        return ""


def read(key: bytes) -> bytes | None:
    """Return what was written under the key, or None; a damaged file is removed."""
    folder = directory()
    if folder is None:
        return None
    path = os.path.join(folder, key.hex() + _SUFFIX)
    try:
        # NONBLOCK: a FIFO planted under the name must not make us wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
                return None
            data = file.read()
            if abs(time.time() - found.st_mtime) > _TOUCH_AFTER_S:
                with contextlib.suppress(OSError):
                    os.utime(descriptor)  # its place among the recently used
    except OSError:
        return None
    body = data[_HEADER_NBYTES:]
    if data[:_HEADER_NBYTES] == _header(key, body):
        return body
    with contextlib.suppress(OSError):
        os.unlink(path)
    return None


def write(key: bytes, body: bytes) -> bool:
    """Keep `body` under the key; whether that worked."""
    folder = directory()
    if folder is None:
        return False
    partial = os.path.join(folder, f"{_PARTIAL}{os.getpid()}-{os.urandom(8).hex()}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        with open(descriptor, "wb") as file:
            file.write(_header(key, body) + body)
        # No fsync: after a power failure the checksum tells, and the code is compiled again.
        os.replace(partial, os.path.join(folder, key.hex() + _SUFFIX))
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        return False
    _evict(folder)
    return True


def _header(key: bytes, body: bytes) -> bytes:
    return _MAGIC + key + hashlib.blake2b(key + body, digest_size=32).digest()


def _age_s(entry: os.DirEntry[str], now: float) -> float:
    return now - entry.stat(follow_symlinks=False).st_mtime


def _evict(folder: str) -> None:
    """Remove the least recently used files above the limit, and what writers that died left behind."""
    kept: list[tuple[float, int, str]] = []
    now = time.time()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.name.endswith(_SUFFIX):
                        found = entry.stat(follow_symlinks=False)
                        kept.append((found.st_mtime, found.st_size, entry.path))
                    elif entry.name.startswith(_PARTIAL) and _age_s(entry, now) > _TOUCH_AFTER_S:
                        os.unlink(entry.path)
    except OSError:
        return
    total = sum(nbytes for _, nbytes, _ in kept)
    if total <= LIMIT_NBYTES:
        return
    for _, nbytes, path in sorted(kept):
        # A little below the limit, so that the next write does not come here again.
        if total <= LIMIT_NBYTES * 9 // 10:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= nbytes
