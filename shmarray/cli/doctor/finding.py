"""What does a check find? A topic, a verdict, what was seen, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Verdict", "good", "note", "wrong"]


class Verdict(Enum):
    """How a finding is to be taken. Only WRONG makes the exit status 1."""

    GOOD = "good"
    NOTE = "note"  #: works; could be better, or is worth knowing
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    topic : str
        What was looked at, in one or two words.
    verdict : Verdict
    text : str
        What was seen.
    remedy : str
        What to do about it; empty where nothing is to be done.
    """

    topic: str
    verdict: Verdict
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.verdict is Verdict.WRONG and not self.remedy:
            raise ValueError(f"the finding {self.text!r} names no remedy")


def good(topic: str, text: str) -> Finding:
    """All is well.

    Examples
    --------
    >>> good("python", "3.11").verdict.value
    'good'
    """
    return Finding(topic, Verdict.GOOD, text)


def note(topic: str, text: str, remedy: str = "") -> Finding:
    """It works, and could be better."""
    return Finding(topic, Verdict.NOTE, text, remedy)


def wrong(topic: str, text: str, remedy: str) -> Finding:
    """Something will not work."""
    return Finding(topic, Verdict.WRONG, text, remedy)
