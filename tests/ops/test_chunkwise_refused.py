"""Functions of whole chunks: what is refused, and what the errors say."""

from __future__ import annotations

import numpy as np
import pytest

import shmarray as sa
from tests.ops.chunk_kernels import (
    double,
    doubled,
    out_of_bounds,
    python_double,
    python_doubled,
    refuses_negative,
    shortened,
    weighted,
)


def test_returned_chunks_of_another_shape_are_named():
    a = sa.ones((6, 4))
    message = r"shortened raised in chunk 0 of 2: ValueError: shortened returned shape \({}, 4\) for chunk 0; expected "
    for jit in (True, False):
        with pytest.raises(sa.KernelError, match=message.format(2) + r"\(3, 4\)$"):
            sa.map_chunks(shortened.__wrapped__, a, chunks=3, jit=jit)
        with pytest.raises(sa.KernelError, match=message.format(5) + r"\(3, 4\) or, with its halo, \(6, 4\)$"):
            sa.map_chunks(shortened.__wrapped__, a, chunks=3, halo=(3, 0), jit=jit)


def test_an_error_of_the_function_itself_is_no_matter_of_shapes():
    @sa.chunkwise
    def particular(chunk):
        if chunk[0] > 0:
            raise ValueError("no ones")
        return chunk + 1

    with pytest.raises(sa.KernelError, match=r"particular raised in chunk 0 of 1: ValueError: no ones$"):
        particular(sa.ones(3))


@pytest.mark.parametrize("returned", ["a number", "fewer dimensions", "text"])
def test_what_is_no_array_of_the_chunks_rank_is_refused_before_anything_runs(returned):
    functions = {"a number": lambda chunk: 1.0, "fewer dimensions": lambda chunk: chunk[0], "text": lambda chunk: "x"}
    with pytest.raises(TypeError, match="must return an array of 2 dimensions for each chunk, or nothing"):
        sa.map_chunks(functions[returned], sa.ones((3, 3)))


def test_in_place_needs_something_to_change():
    for kernel in (double, python_double):
        x = np.ones(3)
        with pytest.raises(TypeError, match=r"double returns nothing.*needs a SharedArray; got ndarray"):
            kernel(x)
        assert x.tolist() == [1.0] * 3
    with pytest.raises(TypeError, match="returns nothing"):
        double([1.0, 2.0])


def test_in_place_functions_take_no_output():
    with pytest.raises(TypeError, match="double returns nothing, so there is nothing to put into out"):
        double(sa.ones(3), out=sa.ones(3))


def test_read_only_arrays_are_not_changed(namespace):
    sa.array(np.arange(4.0), name="fixed", keep=True)
    fixed = sa.open("fixed", "r")
    with pytest.raises(sa.KernelCompileError, match="double"):
        double(fixed)
    with pytest.raises(sa.KernelError, match=r"python_double raised in chunk 0 of 1: ValueError: .*read-only"):
        python_double(fixed)
    assert fixed.tolist() == [0, 1, 2, 3]
    assert doubled(fixed).tolist() == [0, 2, 4, 6]
    sa.unlink("fixed")


@pytest.mark.parametrize("jit", [True, False])
def test_an_argument_that_is_read_only_for_being_broadcast_is_named(jit):
    def set_column(x, y, z):
        y[0, 0] = x[0, 0] + z[0, 0]

    wide, column = sa.ones((4, 3)), sa.ones((4, 1))
    kernel = sa.chunkwise(set_column, jit=jit)
    message = r"argument 1 was broadcast from \(4, 1\) to \(4, 3\), and so is read-only in the function; give it in"
    with pytest.raises((sa.KernelCompileError, sa.KernelError), match=message) as caught:
        kernel(wide, column, wide)
    assert caught.value.__context__ is None or not jit
    if jit:
        kernel(sa.ones((4, 3)), sa.ones((4, 3)), column)  # what is broadcast and only read is no matter
        with pytest.raises(sa.KernelCompileError, match="argument 1") as caught:
            kernel(wide, column, column)
        assert "argument 2" not in str(caught.value)
        assert caught.value.filename == __file__


def test_writing_to_a_global_array_is_told_from_writing_to_an_argument():
    table = np.ones(3)

    @sa.chunkwise
    def note(x, y):
        table[0] = x[0, 0] + y[0, 0]

    with pytest.raises(sa.KernelCompileError, match="writes to an array that it may only read: .*a global one"):
        note(sa.ones((4, 3)), sa.ones((4, 1)))


def test_wrong_outputs_are_named():
    a = sa.ones((2, 3))
    with pytest.raises(TypeError, match="doubled: out must be a SharedArray"):
        doubled(a, out=np.empty((2, 3)))
    with pytest.raises(ValueError, match="doubled: out has shape"):
        doubled(a, out=sa.empty((3, 2)))
    with pytest.raises(TypeError, match="doubled: out has dtype int64"):
        doubled(a, out=sa.empty((2, 3), np.int64))
    b = sa.ones(10)
    for kernel in (doubled, python_doubled):
        with pytest.raises(ValueError, match="out shares memory with argument 0"):
            kernel(b[1:], out=b[:-1])


def test_wrong_arguments_are_named():
    a = sa.ones((2, 3))
    with pytest.raises(TypeError, match="weighted takes 3 arguments; got 1"):
        weighted(a)
    with pytest.raises(TypeError, match="doubled takes 1 argument; got 2"):
        doubled(a, a)
    with pytest.raises(TypeError, match="needs at least one array with dimensions"):
        doubled(1.0)
    with pytest.raises(TypeError, match="holds Python objects"):
        python_doubled(np.array([None]))
    with pytest.raises(ValueError, match="weighted: arguments of shapes"):
        weighted(sa.ones(3), sa.ones(4), 1.0)
    with pytest.raises(ValueError, match="chunk"):
        doubled(a, chunks=(1, 2, 3))
    with pytest.raises(ValueError, match="chunk"):
        doubled(a, chunks=0)
    with pytest.raises(TypeError, match="takes a function"):
        sa.chunkwise(5)


def test_what_numba_cannot_compile_is_named_with_its_line():
    def hopeless(chunk):
        chunk += 1
        chunk.no_such_method()

    a = sa.zeros(3)
    with pytest.raises(sa.KernelCompileError, match="hopeless") as caught:
        sa.map_chunks(hopeless, a)
    assert caught.value.lineno == hopeless.__code__.co_firstlineno + 2
    assert not a.any()


def test_exceptions_of_compiled_functions_name_the_chunk():
    x = np.ones(10)
    x[5] = -1
    with pytest.raises(sa.KernelError, match=r"refuses_negative raised in chunk 2 of 5: ValueError: negative"):
        refuses_negative(sa.array(x), chunks=2)


def test_debug_checks_bounds():
    assert out_of_bounds(sa.zeros(4), 3, chunks=2).tolist() == [3.0] * 4
    with pytest.raises(IndexError, match=r"out_of_bounds raised in chunk \d of 2"):
        out_of_bounds(sa.zeros(4), 7, chunks=2)
