"""What are the files of a namespace, those included that are no readable segments, and who is stuck with its lock?

For people who look for what is wrong (`shmarray doctor`). Nothing is changed or removed; a file is locked for the
microseconds of one question, as gc does.

Invariant: whatever lies in the directory gets a state; nothing there makes the inspection fail or wait.
"""

from __future__ import annotations

import os
import stat
from enum import Enum
from typing import NamedTuple

from shmarray.configuration import config
from shmarray.errors import CorruptSegmentError
from shmarray.registry.condition import CHANGING, UNKNOWN, reason_in
from shmarray.registry.names import is_private, is_public, label_of, lock_name
from shmarray.registry.reclaim import file_names
from shmarray.registry.removal import OPEN_FLAGS, read_page, try_exclusive
from shmarray.registry.replay import is_under_way, scratch_named_in
from shmarray.segment.descriptor import DESCRIPTOR_NBYTES, MAGIC, VERSION, Descriptor, Words
from shmarray.segment.libc import fcntl
from shmarray.segment.mapping import DIRECTORY

__all__ = ["FileState", "InspectedFile", "inspect", "lock_holders"]


class FileState(Enum):
    """What a file of a namespace is."""

    HELD = "held"  #: some process maps it
    KEPT = "kept"  #: nobody maps it, and it was made with keep=True
    IN_FLIGHT = "in flight"  #: nobody maps it, and a handle may still be taken
    ORPHAN = "orphan"  #: nobody maps it: the next gc removes it
    CUT_SHORT = "cut short"  #: the scratch of a crash-safe call that died; the next gc finishes that, and removes it
    NEWER = "newer"  #: of a layout that this version does not know
    CORRUPT = "corrupt"  #: no segment, or a damaged one
    FOREIGN = "foreign"  #: another user's, open to others, or no regular file


class InspectedFile(NamedTuple):
    """One file of the namespace.

    Attributes
    ----------
    label : str
        What to call it.
    state : FileState
    nbytes : int
    detail : str
        What more there is to say of the state.
    unknown : str
        Why some of its content is unknown; "" where it is as its users think.
    waits : bool
        A crash-safe call on it was cut short, and is finished by the next opener or gc.
    """

    label: str
    state: FileState
    nbytes: int
    detail: str = ""
    unknown: str = ""
    waits: bool = False


def inspect() -> list[InspectedFile]:
    """All files of `config.namespace` but its lock, by name.

    Examples
    --------
    >>> from shmarray import registry
    >>> made = registry.create(4, "f4", name="inspect-example")
    >>> [(one.label, one.state.value) for one in inspect()]
    [('inspect-example', 'held')]
    """
    found = (_inspect(name) for name in sorted(file_names(config.namespace)))
    return [one for one in found if one is not None]


def _inspect(file_name: str) -> InspectedFile | None:
    path = f"{DIRECTORY}/{file_name}"
    label = label_of(file_name) if is_public(file_name) else file_name
    try:
        fd = os.open(path, OPEN_FLAGS)
    except FileNotFoundError:
        return None
    except BlockingIOError:  # its owner asks by a lease who has it open
        return InspectedFile(label, FileState.HELD, 0)
    except OSError as error:
        return InspectedFile(label, FileState.FOREIGN, 0, error.strerror or "it cannot be opened")
    try:
        status = os.fstat(fd)
        nbytes = status.st_size
        if not stat.S_ISREG(status.st_mode):
            return InspectedFile(label, FileState.FOREIGN, 0, "it is no regular file")
        if status.st_uid != os.geteuid():
            return InspectedFile(label, FileState.FOREIGN, nbytes, f"it belongs to user {status.st_uid}")
        if status.st_mode & 0o077:
            mode = f"its mode is {stat.S_IMODE(status.st_mode):04o}, which lets others in"
            return InspectedFile(label, FileState.FOREIGN, nbytes, mode)
        page = read_page(fd, nbytes)
        private = is_private(file_name)
        held = not try_exclusive(fd)
        version = int.from_bytes(page[8:12], "little")
        if page[:8] == MAGIC and version != VERSION:
            layout = f"layout version {version}, this shmarray reads {VERSION}"
            return InspectedFile(label, FileState.NEWER, nbytes, layout)
        if private and (page[:8] == MAGIC or not any(page[:12])):
            return InspectedFile(label, FileState.HELD if held else FileState.ORPHAN, nbytes)
        try:
            descriptor = Descriptor.unpack(page, capacity=nbytes - DESCRIPTOR_NBYTES, label=label)
        except CorruptSegmentError as error:
            return InspectedFile(label, FileState.CORRUPT, nbytes, str(error))
        found = InspectedFile(label, _state(descriptor, Words.of_page(page), held=held), nbytes)
    finally:
        os.close(fd)
    if page[UNKNOWN] or (page[CHANGING] and not held):
        found = found._replace(unknown=reason_in(page) or "nobody has said why")
    if scratch := scratch_named_in(page):
        found = found._replace(waits=not is_under_way(scratch))
    return found


def _state(descriptor: Descriptor, words: Words, *, held: bool) -> FileState:
    if held:
        return FileState.HELD
    if words.journal:
        return FileState.CUT_SHORT
    if descriptor.keep:
        return FileState.KEPT
    return FileState.IN_FLIGHT if words.is_in_flight else FileState.ORPHAN


def lock_holders() -> list[int]:
    """Pids that hold the lock of `config.namespace` now, as far as visible; empty when it is free.

    A moment is normal. Whoever is still there a second later is stopped, or in trouble.
    """
    try:
        fd = os.open(f"{DIRECTORY}/{lock_name(config.namespace)}", OPEN_FLAGS & ~os.O_RDWR)
    except OSError:
        return []
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holders_of(os.fstat(fd)) or [0]
    except OSError:
        return []
    finally:
        os.close(fd)
    return []


def _holders_of(status: os.stat_result) -> list[int]:
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return []
    return [int(line[4]) for line in lines if len(line) > 5 and line[1] == "FLOCK" and line[5] == place]
