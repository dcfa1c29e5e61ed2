"""The width of vectors, seen in code compiled (not run) for a CPU with AVX-512."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numba
import numpy as np
import pytest

from shmarray.kernels.vectors import wide_vectors

PROGRAM = """
import numba
from shmarray.kernels.math import sin
from shmarray.kernels.vectors import wide_vectors

@numba.njit(error_model="numpy")
def wide(x, out):
    wide_vectors()
    for i in range(x.size):
        out[i] = sin(x[i])

signature = (numba.float64[::1], numba.float64[::1])
wide.compile(signature)
assembly = wide.inspect_asm(signature)
assert any(line.strip().startswith("vfmadd") and "%zmm" in line for line in assembly.splitlines())
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86-64 instructions")
def test_loops_use_the_whole_of_avx512_registers():
    environment = {**os.environ, "NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": ""}
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=environment)


def test_the_hint_changes_no_result():
    @numba.njit
    def doubled(x, out):
        wide_vectors()
        for i in range(x.size):
            out[i] = 2 * x[i]

    x, out = np.arange(5.0), np.empty(5)
    doubled(x, out)
    np.testing.assert_array_equal(out, 2 * x)
