"""From arrays and a kernel to a plan, from a plan to its result. Knows views and segments, not SharedArrays."""

from shmarray.engine.chunk_info import ChunkInfo
from shmarray.engine.commit import run_crash_safe
from shmarray.engine.execution import DEFAULT, Options, Plan, run
from shmarray.engine.operands import check_output, shared_copy
from shmarray.engine.planning import (
    ReductionShape,
    default_chunks,
    plan_chunkwise,
    plan_elementwise,
    plan_first_item,
    plan_function,
    plan_items,
    plan_probe,
    plan_reduction,
    plan_stencil,
    plan_units,
)
from shmarray.engine.probing import FirstItemJob, ProbeJob
from shmarray.engine.ufuncs import apply_ufunc, reduce_ufunc

__all__ = [
    "DEFAULT",
    "ChunkInfo",
    "FirstItemJob",
    "Options",
    "Plan",
    "ProbeJob",
    "ReductionShape",
    "apply_ufunc",
    "check_output",
    "default_chunks",
    "plan_chunkwise",
    "plan_elementwise",
    "plan_first_item",
    "plan_function",
    "plan_items",
    "plan_probe",
    "plan_reduction",
    "plan_stencil",
    "plan_units",
    "reduce_ufunc",
    "run",
    "run_crash_safe",
    "shared_copy",
]
