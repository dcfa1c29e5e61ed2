"""Worker processes and the page of shared memory through which work reaches them."""

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
