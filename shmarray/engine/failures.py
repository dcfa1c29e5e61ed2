"""What is raised when a call cannot be done, and what it says."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence

from shmarray.engine.options import Options
from shmarray.engine.plan import Plan, in_words
from shmarray.errors import (
    ChunksUnknownError,
    KernelError,
    KernelIndexError,
    KernelTimeoutError,
    WorkerDiedError,
)
from shmarray.pool import Death, Failure, describe_death, last_words

__all__ = ["cannot_start", "chunk_kills", "chunks_unknown", "kernel_error", "timeout_error"]


def kernel_error(plan: Plan, failures: Sequence[Failure]) -> KernelError:
    """What the first of the failed chunks raised, as an error of the call."""
    failure = min(failures, key=lambda failure: failure.chunk)
    cause = failure.error if failure.error is not None else RuntimeError(failure.line)
    kind = KernelIndexError if isinstance(cause, IndexError) else KernelError
    where = f"in chunk {failure.chunk} of {plan.total}" if failure.chunk >= 0 else "before its first chunk"
    error = kind(f"{plan.name} raised {where}: {failure.line}", kernel=plan.name, chunk=failure.chunk)
    if failure.traceback:
        cause.add_note(f"In the worker:\n{failure.traceback}")
    error.__cause__ = cause
    plan.mark_unknown(
        [each.chunk for each in failures if each.chunk >= 0], "raised in the middle, so half of it may be done"
    )
    return error


def timeout_error(
    plan: Plan, options: Options, left: list[int], unknown: list[int], what_became: str = ""
) -> KernelTimeoutError:
    """The chunks `left` are not done in time; of these, `unknown` may be half changed."""
    return KernelTimeoutError(
        f"{plan.name} was not done within its timeout of {options.timeout:g} s: {in_words(left)} of {plan.total} "
        f"not done{what_became}",
        kernel=plan.name,
        timeout_s=options.timeout,
        chunks=tuple(left),
        unknown=tuple(unknown),
    )


def chunk_kills(plan: Plan, chunk: int, times: int, death: Death) -> WorkerDiedError:
    """A chunk has ended its worker more often than it is tried; `death` is the last."""
    often = "once" if times == 1 else f"{times} times"
    return WorkerDiedError(
        f"{plan.name}: chunk {chunk} ended its worker {often} (last: pid {death.pid}, {describe_death(death)})"
        + _likely_cause(plan, death)
        + last_words(death),
        task=plan.name,
        chunk=chunk,
        **death._asdict(),
    )


def cannot_start(plan: Plan, death: Death) -> WorkerDiedError:
    """Workers do not come up; `death` is the last one's."""
    return WorkerDiedError(
        f"{plan.name}: several workers in a row died before they did anything (last: pid {death.pid}, "
        f"{describe_death(death)}); what they said went to standard error" + last_words(death),
        task=plan.name,
        **death._asdict(),
    )


def chunks_unknown(plan: Plan, unknown: Mapping[int, Death], others: str) -> ChunksUnknownError:
    """Workers died while they changed these chunks in place; `others` tells what is with the rest."""
    chunks = sorted(unknown)
    deaths = {death.pid: death for death in unknown.values()}
    death = unknown[chunks[0]]
    how = f"pid {death.pid}: {describe_death(death)}"
    who = "a worker died" if len(deaths) == 1 else f"{len(deaths)} workers died"
    remedy = "next time write to a separate out=, which is retried, or pass crash_safe=True"
    return ChunksUnknownError(
        f"{plan.name}: {who} ({how}) in the middle of changing {in_words(chunks)} in place, whose content is "
        f"unknown now; {others}{_likely_cause(plan, death)}. Compute these anew, and {remedy}" + last_words(death),
        chunks=chunks,
        task=plan.name,
        **death._asdict(),
    )


def _likely_cause(plan: Plan, death: Death) -> str:
    """What compiled code did that ended so."""
    if plan.runs_compiled and death.signal in (signal.SIGSEGV, signal.SIGBUS) and not death.reason:
        return ". Most likely it used an index out of range: debug=True checks every index and names the wrong one"
    return ""
