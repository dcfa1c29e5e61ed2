"""Worker processes and the page of shared memory through which work reaches them.

The names are loaded when they are first asked for: a worker needs few of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmarray._lazy import lazy_names

if TYPE_CHECKING:
    from shmarray.pool.cores import available_cores
    from shmarray.pool.default import close_all, get_pool, held_descriptors, worker_pids
    from shmarray.pool.lane import Job, Lane, SegmentKey
    from shmarray.pool.outcome import COMPLETE, MOST_OWN_DEATHS, Death, Failure, Outcome, describe_death, last_words
    from shmarray.pool.page import MAX_CHUNKS
    from shmarray.pool.pool import Pool, WorkerInfo
    from shmarray.pool.solo import run_alone
    from shmarray.pool.ticket import JobTicket, new_number
    from shmarray.pool.worker import current_worker

__all__ = [
    "COMPLETE",
    "MAX_CHUNKS",
    "MOST_OWN_DEATHS",
    "Death",
    "Failure",
    "Job",
    "JobTicket",
    "Lane",
    "Outcome",
    "Pool",
    "SegmentKey",
    "WorkerInfo",
    "available_cores",
    "close_all",
    "current_worker",
    "describe_death",
    "get_pool",
    "held_descriptors",
    "last_words",
    "new_number",
    "run_alone",
    "worker_pids",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(__all__, "outcome"),
        **dict.fromkeys(["close_all", "get_pool", "held_descriptors", "worker_pids"], "default"),
        **dict.fromkeys(["Job", "Lane", "SegmentKey"], "lane"),
        **dict.fromkeys(["Pool", "WorkerInfo"], "pool"),
        **dict.fromkeys(["JobTicket", "new_number"], "ticket"),
        "MAX_CHUNKS": "page",
        "available_cores": "cores",
        "current_worker": "worker",
        "run_alone": "solo",
    },
)
