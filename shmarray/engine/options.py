"""The keywords that every call of a kernel takes, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from shmarray.engine.progress import Progress
from shmarray.pool import Pool

__all__ = ["DEFAULT", "Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """The keywords that every call takes.

    Attributes
    ----------
    workers_alone : bool
        The caller only watches; so what it has as private memory has to be copied for the workers.
    """

    pool: Pool | None = None
    progress: Progress = False
    timeout: float | None = None
    retries: int = 2
    crash_safe: bool = False
    workers_alone: bool = field(init=False, default=False)

    @classmethod
    def of(cls, name: str, keywords: dict[str, Any], own: Sequence[str] = ("out",)) -> Options:
        """What a call of the kernel `name` was given as keywords, checked; `own` are those that it takes beside."""
        unknown = keywords.keys() - _KEYWORDS
        if unknown:
            raise TypeError(
                f"{name} takes the keywords {', '.join((*own, *_KEYWORDS))}; got {', '.join(sorted(unknown))}. "
                "Arguments of the function itself are given by position"
            )
        return cls(**keywords) if keywords else DEFAULT

    def __post_init__(self) -> None:
        if self.timeout is not None:
            _check("timeout", self.timeout, Real, "a positive number of seconds, or None", lambda seconds: seconds > 0)
            object.__setattr__(self, "timeout", min(self.timeout, 1e9))  # inf, too, in what clocks and locks take
        _check("retries", self.retries, Integral, "0 or a positive integer", lambda count: count >= 0)
        pool: Any = self.pool
        if pool is not None and not isinstance(pool, Pool):
            # A pool of processes for Python calls has lanes for kernels beside them; see shmarray.multiprocessing.
            engine = getattr(pool, "engine", None)
            if not isinstance(engine, Pool):
                raise TypeError(
                    f"pool must be a shmarray.Pool, get_pool() or None; got "
                    f"{type(pool).__module__}.{type(pool).__qualname__}"
                )
            object.__setattr__(self, "pool", engine)
        if not isinstance(self.crash_safe, bool):
            raise TypeError(f"crash_safe must be True or False; got {self.crash_safe!r}")
        # Worked out here: every call of every kernel asks for it.
        object.__setattr__(self, "workers_alone", self.timeout is not None or self.crash_safe)


def _check(keyword: str, value: Any, kind: Any, expected: str, is_good: Callable[[Any], bool]) -> None:
    """`TypeError` or `ValueError` for a keyword's value that cannot be."""
    if not isinstance(value, kind):
        raise TypeError(f"{keyword} must be {expected}; got {value!r}")
    if not is_good(value):
        raise ValueError(f"{keyword} must be {expected}; got {value!r}")


_KEYWORDS = ("pool", "progress", "timeout", "retries", "crash_safe")
DEFAULT = Options()
