"""From arrays and a kernel to a plan, from a plan to its result. Knows views and segments, not SharedArrays."""

from shmarray.engine.chunk_info import ChunkInfo
from shmarray.engine.commit import run_crash_safe
from shmarray.engine.execution import run, run_part
from shmarray.engine.operands import check_output, shared_copy
from shmarray.engine.options import DEFAULT, Options
from shmarray.engine.plan import Plan
from shmarray.engine.planning import (
    default_chunks,
    plan_ask,
    plan_chunkwise,
    plan_elementwise,
    plan_function,
    plan_items,
    plan_probe,
    plan_stencil,
)
from shmarray.engine.probing import AskJob, ProbeJob, item_dtypes
from shmarray.engine.python_fold import accumulator_dtype, plan_fold
from shmarray.engine.reduction_grid import ReductionShape, block_shape, plan_block_reduction, plan_reduction
from shmarray.engine.steps import Argument, kind_of, plan_step
from shmarray.engine.ufuncs import apply_ufunc, reduce_ufunc

__all__ = [
    "DEFAULT",
    "Argument",
    "AskJob",
    "ChunkInfo",
    "Options",
    "Plan",
    "ProbeJob",
    "ReductionShape",
    "accumulator_dtype",
    "apply_ufunc",
    "block_shape",
    "check_output",
    "default_chunks",
    "item_dtypes",
    "kind_of",
    "plan_ask",
    "plan_block_reduction",
    "plan_chunkwise",
    "plan_elementwise",
    "plan_fold",
    "plan_function",
    "plan_items",
    "plan_probe",
    "plan_reduction",
    "plan_stencil",
    "plan_step",
    "reduce_ufunc",
    "run",
    "run_crash_safe",
    "run_part",
    "shared_copy",
]
