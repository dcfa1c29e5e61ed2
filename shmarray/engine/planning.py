"""From arrays to the block of words that a compiled driver reads (no numba here, only integers)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shmarray.chunks import ChunkGrid, normalize_chunks
from shmarray.configuration import config
from shmarray.engine.chunkwise_job import ChunkwiseJob
from shmarray.engine.job import BlockJob, constant_bytes
from shmarray.engine.layout import broadcast_strides, simplify
from shmarray.engine.operands import Array, Operand
from shmarray.engine.plan import Plan
from shmarray.engine.probing import AskJob, ProbeJob
from shmarray.engine.python_job import ArraySpec, FunctionJob, ItemsJob, UfuncJob, UfuncReductionJob

__all__ = [
    "default_chunks",
    "plan_ask",
    "plan_chunkwise",
    "plan_elementwise",
    "plan_function",
    "plan_items",
    "plan_probe",
    "plan_stencil",
    "plan_ufunc",
    "plan_ufunc_reduction",
]


def default_chunks(array: Array) -> tuple[int, ...]:
    """Chunks of about `config.chunk_nbytes` that follow the array's memory, whatever the order of its dimensions."""
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    along = normalize_chunks(None, tuple(array.shape[axis] for axis in order), array.itemsize, config.chunk_nbytes)
    chunks = [1] * array.ndim
    for axis, chunk in zip(order, along, strict=True):
        chunks[axis] = chunk
    return tuple(chunks)


def plan_elementwise(
    name: str,
    kernel: tuple[int, Any],
    inputs: Sequence[Array | np.generic],
    outputs: Sequence[Array],
    *,
    chunks: tuple[int, ...] | None = None,
    in_place: bool,
    caller_joins: bool = True,
) -> Plan:
    """A plan that runs an elementwise driver (`shmarray.engine.elementwise`) over all of `outputs`.

    Parameters
    ----------
    name : str
    kernel : (int, jit.Code)
        The driver's code, compiled for these inputs and outputs.
    inputs : sequence of ndarray or NumPy scalar
        Arrays are broadcast to the outputs' shape; scalars are one value for all.
    outputs : sequence of ndarray
        All of one shape.
    chunks : tuple of int, optional
        Shape of one chunk; by default from the first output's memory.
    in_place : bool
        Whether an output is an input.
    caller_joins : bool
        Whether the function can do no harm.
    """
    first = outputs[0]
    grid = ChunkGrid(first.shape, default_chunks(first) if chunks is None else chunks)
    arrays = [array for array in (*inputs, *outputs) if isinstance(array, np.ndarray)]
    operands = [Operand.of(array) for array in arrays]
    # Outputs decide the order of dimensions: they come last.
    space = simplify(grid, [broadcast_strides(array.shape, array.strides, first.shape) for array in arrays])
    constants, offsets = constant_bytes([value for value in inputs if not isinstance(value, np.ndarray)])

    words: list[int] = [len(space.grid.shape)]
    for dimension in zip(space.grid.shape, space.grid.chunks, space.grid.counts, space.weights, strict=True):
        words += dimension
    places, constant_places = [], []
    strides = iter(space.strides)
    remaining_operands, remaining_offsets = iter(operands), iter(offsets)
    for value in (*inputs, *outputs):
        if isinstance(value, np.ndarray):
            places.append((len(words), next(remaining_operands).place))
            words += [0, *next(strides)]
        else:
            constant_places.append((len(words), next(remaining_offsets)))
            words += [0] * (1 + len(space.grid.shape))
    job = BlockJob(kernel[0], np.array(words, np.int64).tobytes(), tuple(places), constants, tuple(constant_places))
    return Plan(
        name,
        len(grid),
        job,
        operands,
        in_place=in_place,
        caller_joins=caller_joins,
        kernels=[kernel],
        outputs=operands[-len(outputs) :],
    )


def plan_chunkwise(
    name: str,
    kernel: tuple[int, Any],
    inputs: Sequence[Array | np.generic],
    output: Array | None,
    grid: ChunkGrid,
    halo: Sequence[int],
    *,
    in_place: bool,
) -> Plan:
    """A plan that runs a whole-chunk driver (`shmarray.engine.chunkwise`) over a grid, in the workers alone."""
    arrays = [value for value in inputs if isinstance(value, np.ndarray)] + ([] if output is None else [output])
    operands = [Operand.of(array) for array in arrays]
    constants, offsets = constant_bytes([value for value in inputs if not isinstance(value, np.ndarray)])
    words: list[int] = []
    for dimension in zip(grid.shape, grid.chunks, grid.counts, halo, strict=True):
        words += dimension
    places, constant_places = [], []
    remaining_operands, remaining_offsets = iter(operands), iter(offsets)
    for value in (*inputs, *([] if output is None else [output])):
        if isinstance(value, np.ndarray):
            places.append((len(words), next(remaining_operands).place))
            words += [0, *broadcast_strides(value.shape, value.strides, grid.shape)]
        else:
            constant_places.append((len(words), next(remaining_offsets)))
            words += [0] * (1 + len(grid.shape))
    returned = range(len(words), len(words) + len(grid.shape))
    words += [-1] * len(returned)
    block = (kernel[0], np.array(words, np.int64).tobytes(), tuple(places), constants, tuple(constant_places))
    job = ChunkwiseJob(*block, name=name, grid=grid, halo=tuple(halo), returned=returned)
    return Plan(
        name,
        len(grid),
        job,
        operands,
        in_place=in_place,
        caller_joins=False,
        kernels=[kernel],
        outputs=_changeable(operands, output),
    )


def _changeable(operands: Sequence[Operand], output: Array | None) -> Sequence[Operand]:
    """What a whole-chunk function that works in place can have changed: all that it can write, and its output."""
    if output is not None:
        return operands[-1:]
    return [operand for operand in operands if operand.array.flags.writeable]


def plan_stencil(
    name: str,
    kernel: tuple[int, Any],
    inputs: Sequence[Array | np.generic],
    output: Array,
    grid: ChunkGrid,
    halo: Sequence[int],
    modes: Sequence[int],
    cvals: Sequence[np.generic],
    *,
    caller_joins: bool,
) -> Plan:
    """A plan that runs a stencil's driver (`shmarray.engine.stencil`) over a grid.

    Parameters
    ----------
    inputs : sequence of ndarray or NumPy scalar
        Arrays broadcast to the grid's shape; none of them shares memory with the output.
    output : ndarray
        Contiguous along the last dimension.
    halo, modes : sequence of int
        By dimension.
    cvals : sequence of NumPy scalar
        Of each array, of its dtype.
    """
    arrays = [value for value in inputs if isinstance(value, np.ndarray)]
    operands = [Operand.of(array) for array in (*arrays, output)]
    values = [value for value in inputs if not isinstance(value, np.ndarray)]
    constants, offsets = constant_bytes([*cvals, *values])
    words: list[int] = []
    for dimension in zip(grid.shape, grid.chunks, grid.counts, halo, modes, strict=True):
        words += dimension
    places, constant_places = [], []
    for k, operand in enumerate(operands):
        array = operand.array
        strides = broadcast_strides(array.shape, array.strides, grid.shape)
        places.append((len(words), operand.place))
        if k < len(arrays):
            constant_places.append((len(words) + 2, offsets[k]))
        is_packed = strides[-1] == array.itemsize or grid.shape[-1] == 1
        words += [0, array.itemsize, 0, int(is_packed), *strides]
    for offset in offsets[len(arrays) :]:
        constant_places.append((len(words), offset))
        words.append(0)
    job = BlockJob(kernel[0], np.array(words, np.int64).tobytes(), tuple(places), constants, tuple(constant_places))
    return Plan(name, len(grid), job, operands, in_place=False, caller_joins=caller_joins, kernels=[kernel])


def plan_function(
    name: str,
    function: bytes,
    inputs: Sequence[Array | np.generic],
    output: Array | None,
    grid: ChunkGrid,
    halo: Sequence[int],
    *,
    with_info: bool,
    in_place: bool,
) -> Plan:
    """A plan that runs a pickled Python function on each chunk, in the workers alone."""
    # With a halo a chunk that was changed would be read by its neighbours: there functions return or look.
    operands, specs = _specs(inputs, grid.shape, writable=in_place and not any(halo))
    target = None
    if output is not None:
        operand = Operand.of(output)
        operands.append(operand)
        target = ArraySpec.of(operand, grid.shape, writable=True)
    job = FunctionJob(name, function, tuple(specs), target, grid, tuple(halo), with_info)
    changed = _changeable(operands, output)
    return Plan(name, len(grid), job, operands, in_place=in_place, caller_joins=False, outputs=changed)


def plan_probe(
    name: str,
    function: bytes,
    inputs: Sequence[Array | np.generic],
    scratch: Array,
    grid: ChunkGrid,
    halo: Sequence[int],
    *,
    with_info: bool,
    keeps: bool = True,
) -> Plan:
    """A plan that does chunk 0 of a Python function to see what it returns; see `ProbeJob`."""
    operands, specs = _specs(inputs, grid.shape, writable=True)
    operand = Operand.of(scratch)
    job = ProbeJob(
        FunctionJob(name, function, tuple(specs), None, grid, tuple(halo), with_info),
        ArraySpec.of(operand, scratch.shape, writable=True),
        keeps,
    )
    operands.append(operand)
    return Plan(name, 1, job, operands, in_place=False, caller_joins=False, total=len(grid))


def plan_ask(name: str, question: bytes, scratch: Array) -> Plan:
    """A plan that asks a pickled function a question; see `AskJob`."""
    operand = Operand.of(scratch)
    job = AskJob(name, question, ArraySpec.of(operand, scratch.shape, writable=True))
    return Plan(name, 1, job, [operand], in_place=False, caller_joins=False)


def plan_items(
    name: str,
    function: bytes,
    inputs: Sequence[Array | np.generic],
    outputs: Sequence[Array],
    *,
    chunks: tuple[int, ...] | None,
    in_place: bool,
) -> Plan:
    """A plan that runs a pickled scalar function on each item, in the workers alone."""
    grid = ChunkGrid(outputs[0].shape, default_chunks(outputs[0]) if chunks is None else chunks)
    operands, specs = _specs(inputs, grid.shape, writable=False)
    targets, places = _written(outputs, grid.shape)
    job = ItemsJob(function, tuple(specs), places, grid)
    every = [*operands, *targets]
    return Plan(name, len(grid), job, every, in_place=in_place, caller_joins=False, outputs=targets)


def plan_ufunc(
    ufunc: np.ufunc,
    inputs: Sequence[Any],
    outputs: Sequence[Array],
    *,
    where: Any = True,
    in_place: bool,
) -> Plan:
    """A plan that calls a ufunc chunk by chunk."""
    grid = ChunkGrid(outputs[0].shape, default_chunks(outputs[0]))
    operands, specs = _specs(inputs, grid.shape, writable=False)
    mask: Any = where
    if isinstance(where, np.ndarray):
        mask_operand = Operand.of(where)
        operands.append(mask_operand)
        mask = ArraySpec.of(mask_operand, grid.shape, writable=False)
    targets, places = _written(outputs, grid.shape)
    job = UfuncJob(ufunc, tuple(specs), places, mask, grid)
    every = [*operands, *targets]
    return Plan(ufunc.__name__, len(grid), job, every, in_place=in_place, caller_joins=True, outputs=targets)


def plan_ufunc_reduction(
    ufunc: np.ufunc, array: Array, partials: Array, grid: ChunkGrid, axes: tuple[int, ...]
) -> Plan:
    """A plan that reduces each chunk of a grid into its place among `partials`."""
    source, target = Operand.of(array), Operand.of(partials)
    job = UfuncReductionJob(
        ufunc,
        ArraySpec.of(source, array.shape, writable=False),
        ArraySpec.of(target, partials.shape, writable=True),
        grid,
        axes,
    )
    name = f"{ufunc.__name__}.reduce"
    return Plan(name, len(grid), job, [source, target], in_place=False, caller_joins=True)


def _specs(
    inputs: Sequence[Any], shape: tuple[int, ...], *, writable: bool
) -> tuple[list[Operand], list[ArraySpec | Any]]:
    """Arrays among the inputs as operands, and all inputs as a Python job carries them."""
    operands: list[Operand] = []
    specs: list[ArraySpec | Any] = []
    for value in inputs:
        if isinstance(value, np.ndarray):
            operand = Operand.of(value)
            operands.append(operand)
            specs.append(ArraySpec.of(operand, shape, writable=writable and value.flags.writeable))
        else:
            specs.append(value)
    return operands, specs


def _written(outputs: Sequence[Array], shape: tuple[int, ...]) -> tuple[list[Operand], tuple[ArraySpec, ...]]:
    """Outputs as operands, and as a Python job carries them."""
    operands = [Operand.of(output) for output in outputs]
    return operands, tuple(ArraySpec.of(operand, shape, writable=True) for operand in operands)
