"""One call of a chunkwise kernel: arguments checked, a grid over them, and where results go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shmarray import registry
from shmarray.array import SharedArray
from shmarray.chunks import ChunkGrid, normalize_chunks
from shmarray.configuration import config
from shmarray.engine import (
    Options,
    Plan,
    ProbeJob,
    check_output,
    default_chunks,
    plan_chunkwise,
    plan_function,
    plan_probe,
    run,
    run_crash_safe,
)
from shmarray.engine.operands import overlap, same_elements
from shmarray.errors import KernelCompileError, KernelError
from shmarray.jit.failures import READ_ONLY
from shmarray.ops.arguments import as_outputs, as_scalar_or_array, broadcast_shape, by_value, chunks_for, reachable
from shmarray.ops.borders import halo_of
from shmarray.ops.results import new_shared

if TYPE_CHECKING:
    from shmarray.ops.chunkwise import Chunkwise

__all__ = ["ChunkwiseCall"]

Array = np.ndarray[Any, Any]


class ChunkwiseCall:
    """One call of a chunkwise kernel: arguments checked, and a grid over them."""

    def __init__(self, kernel: Chunkwise, args: tuple[Any, ...], out: Any, chunks: int | Sequence[int] | None) -> None:
        self.kernel, self.name, self.out = kernel, kernel.__name__, out
        kernel._check_count(len(args))
        self.args = args
        self.regular = chunks is None
        self.inputs = as_scalar_or_array(args, name=self.name)
        self.arrays = [value for value in self.inputs if isinstance(value, np.ndarray)]
        if not self.arrays:
            raise TypeError(f"{self.name} needs at least one array with dimensions")
        shape = broadcast_shape([array.shape for array in self.arrays], name=self.name)
        self.grid = ChunkGrid(shape, self._chunk_shape(shape, chunks))
        self.halo = halo_of(kernel._halo, len(shape), name=self.name)

    def _chunk_shape(self, shape: tuple[int, ...], chunks: int | Sequence[int] | None) -> tuple[int, ...]:
        if chunks is not None:
            return normalize_chunks(chunks, shape, 1, 1)
        given = chunks_for(shape, [*self.args, self.out])
        if given is not None:
            return given
        for array in self.arrays:
            if array.shape == shape:
                return default_chunks(array)
        return normalize_chunks(None, shape, self.arrays[0].itemsize, config.chunk_nbytes)

    # ------------------------------------------------------------------ compiled

    def run_compiled(self, options: Options) -> Any:
        kernel, n_dims = self.kernel, len(self.grid.shape)
        # A function that compiles with read-only views cannot change its arguments: it may be retried.
        specs = self._specs(writable=False)
        pure = True
        try:
            result = kernel._returned(specs, n_dims)
        except (KernelCompileError, TypeError):
            pure = False
        if not pure:
            specs = self._specs(writable=True)
            result = self._returned_in_place(specs)
            if any(self.halo):
                raise TypeError(
                    f"{self.name} changes its chunk in place, which with a halo would show its neighbours new values "
                    "beside old ones; let it return the new chunk"
                )
            if result is not None:
                raise TypeError(
                    f"{self.name} changes its chunk and returns an array; do one of the two (begin with chunk.copy(), "
                    "or return nothing)"
                )
        if result is None and self.out is not None:
            raise TypeError(f"{self.name} returns nothing, so there is nothing to put into out; call it without")
        if not pure:
            self._check_changeable()
        output, returned = self._output(result)
        code = kernel._kernel(specs, None if output is None else output.dtype, n_dims)
        in_place = not pure or self._in_place(output, options)

        def make_plan(inputs: Sequence[Any], target: Array | None) -> Plan:
            return plan_chunkwise(self.name, code, inputs, target, self.grid, self.halo, in_place=in_place)

        if options.crash_safe and (in_place or self.out is not None):
            self._run_crash_safe(make_plan, options, [] if pure else self._changed_by(specs), output)
        else:
            inputs = reachable(self.inputs)
            target = None if output is None else reachable([output])[0]
            self._run(make_plan(inputs, target), options, inputs, [(output, target)])
        return returned

    def _returned_in_place(self, specs: tuple[Any, ...]) -> np.dtype[Any] | None:
        """What the function returns when it may write.

        Its error is one that has nothing to do with that, or names the arguments that it must not write to.
        """
        fixed = [k for k, spec in enumerate(specs) if isinstance(spec, tuple) and spec[2]]
        try:
            return self.kernel._returned(specs, len(self.grid.shape))
        except KernelCompileError as error:
            # A global array is read-only as well.
            if READ_ONLY not in str(error) or not self._compiles(specs, fixed):
                raise
            facts = {name: getattr(error, name) for name in ("kernel", "filename", "lineno", "numba_message")}
        if len(fixed) > 1:
            fixed = [k for k in fixed if not self._compiles(specs, [other for other in fixed if other != k])]
        raise KernelCompileError(
            f"{facts['kernel']} ({facts['filename']}:{facts['lineno']}) writes to an argument that it may only read: "
            + self._why_read_only(fixed),
            **facts,
        )

    def _compiles(self, specs: tuple[Any, ...], writable: Sequence[int]) -> bool:
        """Whether the function does when it may write to these arguments, too."""
        freed = tuple((*spec[:2], False) if k in writable else spec for k, spec in enumerate(specs))
        try:
            self.kernel._returned(freed, len(self.grid.shape))
        except (KernelCompileError, TypeError):
            return False
        return True

    def _why_read_only(self, positions: Sequence[int]) -> str:
        """What is the matter with arguments that the function must not write to, and what to do."""
        reasons: list[str] = []
        remedies: dict[str, None] = {}  # a set that keeps its order
        for k in positions:
            shape = self.inputs[k].shape
            if shape != self.grid.shape:
                reasons.append(f"argument {k} was broadcast from {shape} to {self.grid.shape}")
                remedies["give it in the full shape, as shmarray.array(np.broadcast_to(...))"] = None
            else:
                reasons.append(f"argument {k} is a read-only array")
                remedies["give one that can be written, or a copy"] = None
        return f"{' and '.join(reasons)}, and so is read-only in the function; {' or '.join(remedies)}"

    def _changed_by(self, specs: tuple[Any, ...]) -> list[int]:
        """Which arguments the function changes: it does not compile with a read-only view of one of these."""
        writable = [k for k, spec in enumerate(specs) if isinstance(spec, tuple) and not spec[2]]
        if len(writable) == 1:
            return writable
        changed = []
        for k in writable:
            frozen = (*specs[:k], (*specs[k][:2], True), *specs[k + 1 :])
            try:
                self.kernel._returned(frozen, len(self.grid.shape))
            except (KernelCompileError, TypeError):
                changed.append(k)
        return changed

    def _specs(self, *, writable: bool) -> tuple[Any, ...]:
        """Of each argument what its compiled type depends on: a dtype, or (dtype, layout, readonly)."""
        whole = all(chunk >= extent for chunk, extent in zip(self.grid.chunks[1:], self.grid.shape[1:], strict=True))
        specs: list[Any] = []
        for value in self.inputs:
            if isinstance(value, np.ndarray):
                packed = whole and value.flags.c_contiguous and value.shape == self.grid.shape
                readonly = not (writable and value.flags.writeable and value.shape == self.grid.shape)
                specs.append((value.dtype, "C" if packed else "A", readonly))
            else:
                specs.append(value.dtype)
        return tuple(specs)

    # ------------------------------------------------------------------ plain Python

    def run_python(self, options: Options) -> Any:
        try:
            return self._run_python(options)
        except KernelError as error:
            fixed = [k for k, value in enumerate(self.inputs) if isinstance(value, np.ndarray) and not self._is_open(k)]
            if fixed and "read-only" in str(error.__cause__):
                error.args = (f"{error.args[0]}; {self._why_read_only(fixed)}", *error.args[1:])
            raise

    def _is_open(self, k: int) -> bool:
        """Whether the function can write to an argument."""
        return _is_writable(self.inputs[k]) and self.inputs[k].shape == self.grid.shape

    def _run_python(self, options: Options) -> Any:
        kernel = self.kernel
        function = by_value(kernel.__wrapped__)
        inputs = reachable(self.inputs)
        facts: dict[str, Any] = {"with_info": kernel._with_info}
        if self.out is None and len(self.grid):
            return self._run_probed(function, inputs, options, facts)
        output, returned = self._output(self.arrays[0].dtype)
        in_place = self._in_place(output, options)

        def make_plan(inputs: Sequence[Any], target: Array | None) -> Plan:
            return plan_function(self.name, function, inputs, target, self.grid, self.halo, in_place=in_place, **facts)

        if options.crash_safe and (in_place or self.out is not None):
            self._run_crash_safe(make_plan, options, [], output)
        else:
            target = None if output is None else reachable([output])[0]
            self._run(make_plan(inputs, target), options, [], [(output, target)])
        return returned

    def _run_probed(self, function: bytes, inputs: list[Any], options: Options, facts: dict[str, Any]) -> Any:
        scratch = np.asarray(registry.create((ProbeJob.scratch_nbytes(self.grid, inputs),), np.dtype(np.uint8)))
        ProbeJob.clear(scratch)
        keeps = not options.crash_safe
        try:
            run(plan_probe(self.name, function, inputs, scratch, self.grid, self.halo, keeps=keeps, **facts), options)
        except BaseException:
            ProbeJob.settle(scratch, self.grid, inputs)
            raise
        first, changed = ProbeJob.read(scratch, self.grid)
        if changed and (any(self.halo) or first is not None):
            raise TypeError(
                f"{self.name} has a halo, so it must return its result: chunks that are changed in place would be "
                "read by their neighbours"
                if any(self.halo)
                else f"{self.name} changed its chunk and returned an array; do one of the two (begin with chunk.copy())"
            )
        if first is None:
            self._check_changeable()

            def make_plan(inputs: Sequence[Any], target: Array | None) -> Plan:
                return plan_function(self.name, function, inputs, None, self.grid, self.halo, in_place=True, **facts)

            if options.crash_safe:
                writable = [k for k in range(len(self.inputs)) if self._is_open(k)]
                self._run_crash_safe(make_plan, options, writable, None)
            else:
                self._run(make_plan(inputs, None), options, inputs, [], start=1)
            return None
        output, returned = self._output(first.dtype)
        assert output is not None
        output[self.grid.slices(0)] = first
        plan = plan_function(self.name, function, inputs, output, self.grid, self.halo, in_place=False, **facts)
        self._run(plan, options, [], [], start=1)
        return returned

    # ------------------------------------------------------------------ both

    def _check_changeable(self) -> None:
        """An in-place function must get something that it can change for the caller to see."""
        if not any(isinstance(arg, SharedArray) for arg in self.args):
            raise TypeError(
                f"{self.name} returns nothing, so it works in place, which needs a SharedArray; got "
                f"{', '.join(type(arg).__name__ for arg in self.args)}. Use shmarray.array(...) first"
            )

    def _output(self, dtype: np.dtype[Any] | None) -> tuple[Array | None, Any]:
        """The array that results go to as a plain view, and as what the call returns."""
        if dtype is None:
            return None, None
        if self.out is None:
            result = new_shared(self.grid.shape, dtype)
            return result.view(np.ndarray), result
        (output,) = as_outputs(
            self.out, 1, self.grid.shape, (dtype if self.kernel._jit else self.out.dtype,), name=self.name
        )
        check_output(output, self.arrays, name=self.name)
        return output, self.out

    def _in_place(self, output: Array | None, options: Options) -> bool:
        if output is None:
            return True
        in_place = check_output(output, self.arrays, name=self.name)
        if in_place and any(self.halo) and not options.crash_safe:
            raise ValueError(
                f"{self.name} has a halo, so out must not be one of its arguments: a chunk would be overwritten while "
                "its neighbours still read it; give another out, or crash_safe=True, by which all chunks are computed "
                "before any is overwritten"
            )
        return in_place

    def _run_crash_safe(
        self,
        make_plan: Callable[[Sequence[Any], Array | None], Plan],
        options: Options,
        changed: Sequence[int],
        output: Array | None,
    ) -> None:
        """Run a plan that changes some of the arguments, or an output, or both, each chunk once or not at all."""
        inputs = reachable(self.inputs)
        arrays = [inputs[k] for k in changed]
        self._check_apart(changed)
        target, same = None, []
        if output is not None and self.out is not None:
            # In place, the argument that the output is must be copied to shared memory once, if at all.
            same = [k for k, value in enumerate(self.inputs) if _is_same(value, output)]
            target = inputs[same[0]] if same else reachable([output])[0]
            arrays.append(target)
        given = output if target is None else target

        def replaced(scratch: Sequence[Array]) -> Plan:
            values = list(inputs)
            for k, array in zip(changed, scratch, strict=False):  # an output's comes behind them
                values[k] = array
            return make_plan(values, scratch[-1] if target is not None else given)

        whole = any(self.halo) and bool(same)
        run_crash_safe(self.name, self.grid, arrays, replaced, options, whole=whole, filled=bool(changed))
        originals = [*(self.inputs[k] for k in changed), *([] if target is None else [output])]
        for original, array in zip(originals, arrays, strict=True):
            if array is not original:
                assert isinstance(original, np.ndarray)
                original[...] = array

    def _check_apart(self, changed: Sequence[int]) -> None:
        arrays = [(k, value) for k, value in enumerate(self.inputs) if isinstance(value, np.ndarray)]
        for k, one in arrays:
            for position, other in arrays:
                if k in changed and position != k and overlap(one, other):
                    raise ValueError(
                        f"{self.name}: arguments {k} and {position} share memory, and a crash-safe call changes each "
                        "of its arrays by itself; give one of them, or a copy"
                    )

    def _run(
        self,
        plan: Plan,
        options: Options,
        changed: Sequence[Any],
        copied: Sequence[tuple[Any, Any]],
        *,
        start: int = 0,
    ) -> None:
        run(plan, options, start=start)
        shared = all(one is other for one, other in (*copied, *zip(self.inputs, changed, strict=False)))
        if shared and self.regular and self.kernel._jit and (self.out is not None or plan.in_place):
            self.kernel._plans.keep(self.args if self.out is None else (*self.args, self.out), plan)
        for output, target in copied:
            if target is not output:
                output[...] = target
        if plan.in_place and changed:
            for value, shared in zip(self.inputs, changed, strict=True):
                if shared is not value and isinstance(value, np.ndarray) and value.flags.writeable:
                    value[...] = shared


def _is_writable(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.flags.writeable


def _is_same(value: Any, output: Array) -> bool:
    return isinstance(value, np.ndarray) and same_elements(value, output)
