"""What became of a dispatch, chunk by chunk."""

from __future__ import annotations

import signal
import traceback
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["COMPLETE", "Death", "Failure", "Outcome", "describe_death"]


class Death(NamedTuple):
    """How a worker ended."""

    pid: int
    signal: int | None
    exitcode: int | None


class Failure(NamedTuple):
    """What a chunk raised."""

    chunk: int
    error: BaseException | None  #: None when it did not pickle
    line: str  #: its last line, as a traceback ends with it
    traceback: str  #: in the process where it was raised

    @classmethod
    def of(cls, chunk: int, error: BaseException) -> Failure:
        line = "".join(traceback.format_exception_only(error)).strip()
        return cls(chunk, error, line, "".join(traceback.format_exception(error)))


@dataclass(slots=True)
class Outcome:
    """The chunks that were not done, and why. All is empty when everything was done."""

    untouched: list[int] = field(default_factory=list)
    interrupted: dict[int, Death] = field(default_factory=dict)  #: chunk -> who died over it; content unknown
    failures: list[Failure] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    timed_out: bool = False
    floating_flags: int = 0  #: NumPy's floating-point exception bits that chunks noted

    @property
    def complete(self) -> bool:
        return not (self.untouched or self.interrupted or self.failures or self.timed_out)


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
            return f"killed by {signal.Signals(death.signal).name}"
        except ValueError:
            return f"killed by signal {death.signal}"
    if death.exitcode is not None:
        return f"it exited with status {death.exitcode}"
    return "its exit status was taken by another wait()"
