"""What became of a dispatch, chunk by chunk."""

from __future__ import annotations

import signal
import traceback
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

__all__ = ["COMPLETE", "MOST_OWN_DEATHS", "Death", "Failure", "Outcome", "describe_death", "last_words", "users_part"]


class Death(NamedTuple):
    """How a worker ended."""

    pid: int
    signal: int | None
    exitcode: int | None
    out_of_memory: bool = False  #: the kernel has ended processes for want of memory since the worker started
    reason: str = ""  #: what is known beside the signal: who sent it, or what was wrong
    traceback: str = ""  #: where it was, by its own word; "" where it could not say

    @property
    def is_own_fault(self) -> bool:
        """Whether it ended by what it did, so that the next one will by the same; not by anybody else's hand."""
        return self.exitcode is not None if self.signal is None else self.signal in _OWN_FAULTS


_OWN_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)
#: When so many workers have ended by their own fault in chunks of one dispatch, no more chunks of it are begun.
MOST_OWN_DEATHS = 3


class Failure(NamedTuple):
    """What a chunk raised."""

    chunk: int
    error: BaseException | None  #: None when it did not pickle
    line: str  #: its last line, as a traceback ends with it
    traceback: str  #: in the worker; "" when it was raised in this process and has its own

    @classmethod
    def of(cls, chunk: int, error: BaseException) -> Failure:
        """Of an exception of this process."""
        error.__traceback__ = users_part(error.__traceback__)
        return cls(chunk, error, "".join(traceback.format_exception_only(error)).strip(), "")


@dataclass(slots=True)
class Outcome:
    """The chunks that were not done, and why. All is empty when everything was done."""

    untouched: list[int] = field(default_factory=list)
    interrupted: dict[int, Death] = field(default_factory=dict)  #: chunk -> who died over it; content unknown
    failures: list[Failure] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    timed_out: bool = False
    cannot_start: Death | None = None  #: the last of several workers in a row that died before they did anything
    floating_flags: int = 0  #: NumPy's floating-point exception bits that chunks noted

    @property
    def complete(self) -> bool:
        return not (self.untouched or self.interrupted or self.failures or self.timed_out or self.cannot_start)

    def add(self, other: Outcome) -> None:
        """Take in what another dispatch of the same call left."""
        self.untouched += other.untouched
        self.interrupted |= other.interrupted
        self.failures += other.failures
        self.deaths += other.deaths
        self.timed_out |= other.timed_out
        self.cannot_start = self.cannot_start or other.cannot_start
        self.floating_flags |= other.floating_flags


def users_part(frames: TracebackType | None) -> TracebackType | None:
    """A traceback from the first line on that is not this package's; all of it where there is none."""
    inner = frames
    while inner is not None and str(inner.tb_frame.f_globals.get("__name__")).partition(".")[0] == "shmarray":
        inner = inner.tb_next
    return frames if inner is None else inner


#: Everything done, nothing noted.
COMPLETE = Outcome()


def describe_death(death: Death) -> str:
    """How a worker ended, in words.

    Examples
    --------
    >>> describe_death(Death(1, signal.SIGKILL, None))
    'killed by SIGKILL'
    """
    if death.signal is not None:
        try:
            name = signal.Signals(death.signal).name
        except ValueError:
            name = f"signal {death.signal}"
        return f"killed by {name}" + (f", {death.reason}" if death.reason else "")
    if death.exitcode is not None:
        return f"it exited with status {death.exitcode}"
    return "its exit status was taken by another wait()"


def last_words(death: Death) -> str:
    """The worker's traceback as the end of a message; "" where there is none."""
    return f"\nThe worker's last traceback:\n{death.traceback}" if death.traceback else ""
