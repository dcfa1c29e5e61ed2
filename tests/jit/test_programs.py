"""Whole programs: the second run compiles nothing, and neither races nor a damaged cache change a result."""

from __future__ import annotations

from tests.jit.jit_programs import start

_PROGRAM = """
import os
import numpy as np
from shmarray import jit
import numba
from tests.jit.loops import apply, compiled
CONSTANT = float(os.environ.get("CONSTANT", 2))
TABLE = np.arange(200_000.0)
@numba.njit
def fibonacci(n):
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)
def recursive(x, y):
    if x < 1.0:
        return y + fibonacci(7)
    return recursive(x - 1.0, y) + 1.0
def make(power):
    def kernel(x, y):
        return x**power * CONSTANT + y
    return kernel
def fails(x, y):
    if x > 1e6:
        raise ValueError("too large")
    return x
kernels = [fails, make(2), recursive, lambda x, y: TABLE[int(x) + 1000] - y]
kernels = kernels[:int(os.environ.get("KERNELS", 4))]
X, Y = np.arange(5.0), np.ones(5)
total = 0.0
for kernel in kernels:
    jit.return_type(jit.scalar(kernel), (numba.float64, numba.float64))
    code = compiled(kernel)
    total += apply(code.entry, X, Y).sum()
    total += apply(jit.load(code.payload), X, Y).sum()
try:
    apply(compiled(fails).entry, [1e7], [1.0])
except ValueError as error:
    total += len(str(error))
found = jit.statistics()
print(total, found.compiled, found.loaded_from_disk, found.loaded_from_memory)
"""


def run(run_program, **environ):
    total, *counts = run_program(_PROGRAM, **environ).split()
    return float(total), *(int(count) for count in counts)


def test_runs_compile_what_is_new_to_them_and_nothing_else(run_program):
    first = run(run_program, CONSTANT="2")
    assert first[1:] == (4, 0, 1)
    changed = run(run_program, CONSTANT="3")
    assert changed[0] != first[0]
    assert changed[1:] == (1, 3, 1)
    # And where nothing is new, numba's compiler is not even started.
    check = "\nfrom numba.core.registry import cpu_target\nprint(len(cpu_target.target_context._registries))"
    total, *counts = run_program(_PROGRAM + check, CONSTANT="2").split()
    assert (float(total), counts) == (first[0], ["0", "4", "1", "0"])


def test_other_codegen_settings_have_other_codes(run_program):
    first = run(run_program, KERNELS="1")
    for settings in ({"NUMBA_LOOP_VECTORIZE": "0"}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}):
        assert run(run_program, KERNELS="1", **settings) == first


def test_damaged_files_are_compiled_anew(run_program, cache_directory):
    first = run(run_program, KERNELS="2")
    sizes = {path: path.stat().st_size for path in cache_directory.glob("*.code")}
    truncated, flipped, *others = sizes
    data = truncated.read_bytes()
    truncated.write_bytes(data[: len(data) // 2])
    for path in (flipped, *others):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    assert run(run_program, KERNELS="2") == first
    assert {path: path.stat().st_size for path in cache_directory.glob("*.code")} == sizes


def test_programs_at_once_agree_and_leave_a_whole_cache(run_program, cache_directory):
    programs = [start(_PROGRAM, environ={"KERNELS": "2"}) for _ in range(3)]
    outputs = []
    for program in programs:
        output, errors = program.communicate(timeout=110)
        assert program.returncode == 0, errors
        outputs.append(float(output.split()[0]))
    assert len(set(outputs)) == 1
    assert not list(cache_directory.glob(".partial-*"))
    assert run(run_program, KERNELS="2")[:3] == (outputs[0], 0, 2)


def test_a_cache_that_cannot_be_written_changes_nothing_but_time(run_program, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_bytes(b"")
    environ = {"SHMARRAY_CACHE_DIR": str(blocked / "below"), "TMPDIR": str(blocked)}
    assert run(run_program, KERNELS="1", **environ)[1:3] == (1, 0)


def test_importing_the_package_takes_no_numba(run_program):
    script = (
        "import sys; from shmarray import jit; jit.options(); jit.statistics(); "
        "print([name for name in ('numba', 'llvmlite', 'cloudpickle', 'logging') if name in sys.modules])"
    )
    assert run_program(script).strip() == "[]"
