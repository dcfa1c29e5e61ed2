"""What lies in the namespace that should not be there, or that nobody can read?"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator

from shmarray.cli.doctor.finding import Finding, good, note, wrong
from shmarray.cli.rendering import format_nbytes
from shmarray.configuration import config
from shmarray.registry.inspection import FileState, InspectedFile, inspect, lock_holders
from shmarray.registry.names import lock_name
from shmarray.segment.mapping import DIRECTORY

__all__ = ["check_segments"]

#: Whoever holds the lock so long is not at work.
_STUCK_S = 1.0


def check_segments() -> Iterator[Finding]:
    """Everything about the files of `config.namespace`."""
    if not os.path.isdir(DIRECTORY):
        return
    by_state: dict[FileState, list[InspectedFile]] = defaultdict(list)
    for one in inspect():
        by_state[one.state].append(one)
    topic = f"namespace {config.namespace}"
    yield good(topic, _held(by_state))
    if orphans := by_state[FileState.ORPHAN]:
        yield wrong(
            topic, f"{_count(orphans)} whose holders have all died: {_names(orphans)}", "shmarray gc, or make an array"
        )
    if cut_short := by_state[FileState.CUT_SHORT]:
        yield wrong(
            topic,
            f"{_count(cut_short)} of crash-safe calls whose callers were killed: what these committed may not be in "
            "its place",
            "shmarray gc finishes them; so does opening one of their arrays",
        )
    yield from _conditions(topic, by_state)
    if newer := by_state[FileState.NEWER]:
        yield wrong(
            topic,
            f"{_count(newer)} of another layout ({newer[0].detail}): {_names(newer)}; never touched",
            "update shmarray-engine, or give the versions namespaces of their own (SHMARRAY_NAMESPACE)",
        )
    if corrupt := by_state[FileState.CORRUPT]:
        yield wrong(
            topic,
            f"{_count(corrupt)} that cannot be read as segments: {_names(corrupt)}; never touched",
            f"if they are yours: shmarray rm NAME, or rm {DIRECTORY}/{config.namespace}~NAME",
        )
    for one in by_state[FileState.FOREIGN]:
        yield wrong(
            topic,
            f"{one.label!r} is not ours to use: {one.detail}",
            f"find out who made it (ls -la {DIRECTORY}), remove it, or use another namespace (SHMARRAY_NAMESPACE)",
        )
    yield from _lock(topic)
    yield from _quota(topic, by_state)


def _conditions(topic: str, by_state: dict[FileState, list[InspectedFile]]) -> Iterator[Finding]:
    """Arrays whose content is not what their users think."""
    for one in (one for files in by_state.values() for one in files):
        if one.waits:
            yield wrong(
                topic,
                f"array {one.label!r} waits for a crash-safe call to be finished whose caller was killed",
                f"open it (shmarray.open({one.label!r})), or shmarray gc",
            )
        if one.unknown:
            yield wrong(
                topic,
                f"array {one.label!r} is dirty: {one.unknown}",
                "compute anew what is unknown, or accept it as it is; then say so: array.clean()",
            )


def _held(by_state: dict[FileState, list[InspectedFile]]) -> str:
    parts = [
        f"{_count(by_state[state])} {state.value}"
        for state in (FileState.HELD, FileState.KEPT, FileState.IN_FLIGHT)
        if by_state[state]
    ]
    return ", ".join(parts) or "no segments"


def _count(files: list[InspectedFile]) -> str:
    noun = "segment" if len(files) == 1 else "segments"
    return f"{len(files)} {noun} ({format_nbytes(sum(one.nbytes for one in files))})"


def _names(files: list[InspectedFile], most: int = 5) -> str:
    shown = ", ".join(one.label for one in files[:most])
    return f"{shown} and {len(files) - most} more" if len(files) > most else shown


def _lock(topic: str) -> Iterator[Finding]:
    until_s = time.monotonic() + _STUCK_S
    stuck = set(lock_holders())
    while stuck and time.monotonic() < until_s:
        time.sleep(0.02)
        stuck &= set(lock_holders())
    if stuck:
        who = ", ".join(str(pid) for pid in sorted(stuck) if pid) or "unknown, in another container"
        yield wrong(
            topic,
            f"process {who} has held {lock_name(config.namespace)} for {_STUCK_S:g} s: dropped arrays stay meanwhile",
            "it is probably stopped: let it go on (kill -CONT PID) or end it (kill PID)",
        )


def _quota(topic: str, by_state: dict[FileState, list[InspectedFile]]) -> Iterator[Finding]:
    limit = config.max_nbytes
    if limit is not None:
        used = sum(one.nbytes for files in by_state.values() for one in files)
        text = f"{format_nbytes(used)} of its quota of {format_nbytes(limit)} used"
        yield note(topic, text, "raise SHMARRAY_MAX_NBYTES") if used > 0.9 * limit else good(topic, text)
