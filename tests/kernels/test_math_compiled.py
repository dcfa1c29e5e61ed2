"""How the elementary functions behave as code: vector instructions, types, imports."""

from __future__ import annotations

import math
import platform
import re
import subprocess
import sys

import numba
import numpy as np
import pytest
from llvmlite import binding

from shmarray.kernels import math as fast
from tests.kernels.ulp import FAMILIES, FUNCTIONS, TWO_ARGUMENTS, compiled, evaluate

PACKED = re.compile(r"\bv(?:fn?m(?:add|sub)\w*|mul|add|sub|div)p[sd]\s.*%[yz]mm")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86-64 instructions")
@pytest.mark.skipif(not binding.get_host_cpu_features().get("avx2"), reason="needs AVX2")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_loop_over_the_function_is_vector_code(family):
    for name in FAMILIES[family]:
        for dtype in (np.float32, np.float64):
            arguments = [np.ones(4, dtype)] * (2 if name in TWO_ARGUMENTS else 1)
            evaluate(name, *arguments)
            loop = compiled(name)
            signature = next(s for s in loop.signatures if s[0].dtype == numba.from_dtype(np.dtype(dtype)))
            assert len(PACKED.findall(loop.inspect_asm(signature))) >= 3, f"{name} of {dtype.__name__}"


def test_every_function_of_numpy_and_of_the_standard_library_has_its_substitute():
    for name in FUNCTIONS:
        if hasattr(np, name):
            assert fast.SUBSTITUTES[getattr(np, name)] is getattr(fast, name)
    names = (
        "acos acosh asin asinh atan atan2 atanh cos cosh erf erfc exp expm1 hypot lgamma log log10 log1p log2 pow "
        "sin sinh tan tanh"
    )
    for name in names.split():
        assert getattr(math, name) in fast.SUBSTITUTES


def test_float_types_are_kept_and_integers_converted_as_numba_does_for_numpy():
    @numba.njit
    def call(x):
        return fast.exp(x)

    for kind, expected in [
        (numba.float32, numba.float32),
        (numba.float64, numba.float64),
        (numba.int64, numba.float64),
        (numba.int8, numba.float32),
        (numba.boolean, numba.float32),
        (numba.complex128, numba.complex128),
    ]:
        call.compile((kind,))
        assert call.overloads[(kind,)].signature.return_type == expected


def test_the_standard_library_s_functions_always_give_float64_for_integers():
    substitute = fast.SUBSTITUTES[math.exp]

    @numba.njit
    def call(x):
        return substitute(x)

    call.compile((numba.int8,))
    assert call.overloads[(numba.int8,)].signature.return_type == numba.float64


def test_integer_powers_stay_integers_for_numpy_and_become_floats_for_math_pow():
    power, pow_ = fast.SUBSTITUTES[np.power], fast.SUBSTITUTES[math.pow]

    @numba.njit
    def call(x, y):
        return power(x, y), pow_(x, y)

    assert call(3, 4) == (81, 81.0)
    assert [type(value) for value in call(3, 4)] == [int, float]


def test_arrays_and_outputs_are_left_to_numpy():
    @numba.njit
    def call(x, out):
        fast.arctan2(x, x, out)
        return fast.exp(x)

    x, out = np.array([0.5, 1.0]), np.empty(2)
    np.testing.assert_allclose(call(x, out), np.exp(x))
    np.testing.assert_allclose(out, np.arctan2(x, x))


def test_a_literal_integer_beside_float32_does_not_widen_it():
    @numba.njit
    def call(x):
        return fast.arctan2(x, 1)

    assert call(np.float32(1.0)) == np.float32(np.pi / 4)
    assert call.nopython_signatures[0].return_type == numba.float32


def test_called_from_python_the_functions_are_numpy_s():
    for name in sorted(set(FUNCTIONS) - TWO_ARGUMENTS):
        point = 1.5 if name == "arccosh" else 0.5
        theirs = np if hasattr(np, name) else math
        assert getattr(fast, name)(point) == getattr(theirs, name)(point)
    for name in TWO_ARGUMENTS:
        assert getattr(fast, name)(1.0, 2.0) == getattr(np, name)(1.0, 2.0)


def test_one_large_angle_does_not_disturb_its_neighbours():
    x = np.linspace(-5, 5, 64)
    plain = evaluate("sin", x)
    mixed = x.copy()
    mixed[13] = 1e300
    result = evaluate("sin", mixed)
    assert abs(result[13] - math.sin(1e300)) < 2e-16
    others = np.arange(64) != 13
    np.testing.assert_array_equal(result[others], plain[others])


def test_importing_compiles_nothing_and_the_package_alone_needs_no_numba():
    program = """
import sys
import shmarray.kernels
assert "numba" not in sys.modules
from numba.core import event
with event.install_recorder("numba:compile") as recorder:
    from shmarray.kernels import math
assert not recorder.buffer, recorder.buffer
assert len(math.source_digest()) == 64
"""
    subprocess.run([sys.executable, "-c", program], check=True)
