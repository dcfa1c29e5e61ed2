"""Functions of whole chunks: returned or in place, halos, and where they run."""

from __future__ import annotations

import os
import re
import threading

import numpy as np
import pytest

import shmarray as sa
from tests.ops.chunk_kernels import (
    add_scaled,
    double,
    doubled,
    filled_with_number,
    itself,
    python_double,
    python_doubled,
    reversed_chunk,
    weighted,
)


def box_sum(width):
    """A sum over neighbours that needs a halo, and the same in NumPy with nothing beyond the edges."""

    def windowed(u):
        result = np.zeros(u.shape)
        for i in range(u.shape[0]):
            for j in range(u.shape[1]):
                for a in range(max(0, i - width), min(u.shape[0], i + width + 1)):
                    for b in range(max(0, j - width), min(u.shape[1], j + width + 1)):
                        result[i, j] += u[a, b]
        return result

    return windowed


def numpys_box_sum(x, width):
    padded = np.pad(x, width)
    views = np.lib.stride_tricks.sliding_window_view(padded, (2 * width + 1,) * 2)
    return views.sum((-2, -1))


neighbours = {width: sa.chunkwise(box_sum(width), halo=width) for width in (1, 3)}
python_neighbours = sa.chunkwise(lambda u: numpys_box_sum(u, 1), halo=1, jit=False)

GEOMETRIES = [None, 1, 4, (3, 5), (1, 1), (-1, 2), (2, -1), (50, 50), (12, 1)]


# ---------------------------------------------------------------------- in place and returned


@pytest.mark.parametrize("kernel", [double, python_double])
def test_in_place_changes_every_element_once(kernel):
    x = np.arange(12.0 * 14).reshape(12, 14)
    for chunks in GEOMETRIES:
        a = sa.array(x)
        assert kernel(a, chunks=chunks) is None
        assert np.array_equal(a, 2 * x), chunks
        a = sa.array(x, chunks=chunks)
        kernel(a)
        assert np.array_equal(a, 2 * x), chunks


@pytest.mark.parametrize("kernel", [doubled, python_doubled])
def test_returned_chunks_make_an_array(kernel):
    x = np.arange(12.0 * 14).reshape(12, 14)
    for chunks in GEOMETRIES:
        a = sa.array(x)
        result = kernel(a, chunks=chunks)
        assert type(result) is sa.SharedArray
        assert result.is_shared
        assert np.array_equal(result, 2 * x), chunks
        out = sa.empty((12, 14), np.float32)
        assert kernel(a, out=out, chunks=chunks) is out
        assert np.array_equal(out, 2 * x), chunks
        kernel(a, out=a, chunks=chunks)
        assert np.array_equal(a, 2 * x), chunks


@pytest.mark.parametrize("shape", [(5,), (4, 3, 5), (2, 3, 1, 2)])
def test_any_number_of_dimensions(shape):
    x = np.random.default_rng(1).random(shape)
    a = sa.array(x)
    assert np.array_equal(doubled(a, chunks=(2,) * len(shape)), 2 * x)
    double(a, chunks=2)
    assert np.array_equal(a, 2 * x)


VIEWS = {
    "transposed": lambda a: a.T,
    "reversed": lambda a: a[::-1, ::-1],
    "stepped": lambda a: a[::2, 1::3],
    "middle": lambda a: a[2:-2, 3:-1],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kernels", [(double, doubled), (python_double, python_doubled)])
def test_views_are_taken_and_written_as_they_are(view, kernels):
    in_place, returned = kernels
    cut = VIEWS[view]
    x = np.random.default_rng(2).random((12, 14))
    a, expected = sa.array(x), x.copy()
    assert np.array_equal(returned(cut(a), chunks=3), 2 * cut(x))
    in_place(cut(a), chunks=3)
    cut(expected)[...] *= 2
    assert np.array_equal(a, expected)
    out, target = sa.zeros((12, 14)), np.zeros((12, 14))
    returned(cut(a), out=cut(out), chunks=(2, 3))
    cut(target)[...] = 2 * cut(expected)
    assert np.array_equal(out, target)


def test_a_returned_view_of_the_chunk_may_go_where_the_chunk_was():
    x = np.arange(30.0).reshape(10, 3)
    a = sa.array(x, chunks=4)
    reversed_chunk(a, out=a)
    assert np.array_equal(a, np.concatenate([x[0:4][::-1], x[4:8][::-1], x[8:][::-1]]))
    itself(a, out=a)
    assert np.array_equal(a, np.concatenate([x[0:4][::-1], x[4:8][::-1], x[8:][::-1]]))


@pytest.mark.parametrize("jit", [True, False])
def test_items_of_every_kind_pass_through_unchanged(jit):
    for code in ("?", "f4", "c16", "M8[s]", "S3"):
        x = np.arange(20).reshape(5, 4).astype(code)
        result = sa.map_chunks(lambda chunk: chunk.copy(), sa.array(x), chunks=2, jit=jit)
        assert result.dtype == x.dtype
        assert np.array_equal(result, x)


def test_results_may_have_another_dtype():
    x = np.random.default_rng(3).random((10, 10))
    for jit in (True, False):
        result = sa.map_chunks(lambda chunk: chunk > 0.5, sa.array(x), chunks=3, jit=jit)
        assert result.dtype == np.bool_
        assert np.array_equal(result, x > 0.5)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_nothing_has_no_chunk(shape):
    assert doubled(sa.empty(shape)).shape == shape
    double(sa.empty(shape))
    assert python_doubled(sa.empty(shape), out=sa.empty(shape)).shape == shape
    python_double(sa.empty(shape))


# ---------------------------------------------------------------------- several arguments


def test_several_arrays_and_scalars():
    x, y = np.random.default_rng(4).random((2, 10, 7))
    assert np.array_equal(weighted(sa.array(x), sa.array(y), 3.0, chunks=(3, 2)), x * 3.0 + y)
    a = sa.array(x)
    add_scaled(a, sa.array(y), 2.0, chunks=4)
    assert np.array_equal(a, x + y * 2.0)


@pytest.mark.parametrize("jit", [True, False])
def test_arguments_broadcast(jit):
    kernel = sa.chunkwise(lambda x, y: x + y, jit=jit)
    column, row = np.random.default_rng(5).random((6, 1)), np.random.default_rng(6).random(8)
    assert np.array_equal(kernel(sa.array(column), sa.array(row), chunks=(4, 3)), column + row)
    assert np.array_equal(kernel(column, sa.array(row)), column + row)


def test_plain_arrays_and_lists_are_copied_in():
    assert doubled([1.0, 2.0, 3.0], chunks=2).tolist() == [2.0, 4.0, 6.0]
    assert np.array_equal(weighted(np.ones((3, 3)), sa.ones((3, 3)), 2), np.full((3, 3), 3.0))


def test_python_functions_with_defaults_and_any_number_of_arguments():
    x = np.arange(10.0)
    assert np.array_equal(sa.map_chunks(lambda chunk, n=5: chunk + n, sa.array(x), jit=False), x + 5)
    assert np.array_equal(sa.map_chunks(lambda chunk, n=5: chunk + n, sa.array(x), 7, jit=False), x + 7)
    assert np.array_equal(sa.map_chunks(lambda *chunks: sum(chunks), sa.array(x), x, x, jit=False, chunks=3), 3 * x)


# ---------------------------------------------------------------------- halos


@pytest.mark.parametrize("width", [1, 3])  # 3 is wider than some of the chunks
def test_a_halo_shows_the_neighbours_and_ends_at_the_edges(width):
    x = np.random.default_rng(7).integers(0, 100, (9, 11)).astype(float)
    expected = numpys_box_sum(x, width)
    for chunks in (None, 1, (3, 5), (1, 1), (-1, 2), (50, 50)):
        assert np.array_equal(neighbours[width](sa.array(x), chunks=chunks), expected), chunks
        if width == 1:
            assert np.array_equal(python_neighbours(sa.array(x), chunks=chunks), expected), chunks


def test_a_halo_of_its_own_for_each_dimension():
    x = np.random.default_rng(8).random((10, 12))
    for jit in (True, False):
        out = sa.map_chunks(record_shape, sa.array(x), chunks=(4, 5), halo=(0, 2), jit=jit)
        assert out[0].tolist() == [4007] * 5 + [4009] * 5 + [4004] * 2
        assert out[9].tolist() == [2007] * 5 + [2009] * 5 + [2004] * 2


def record_shape(chunk):
    result = np.empty(chunk.shape)
    result[...] = 1000 * chunk.shape[0] + chunk.shape[1]
    return result


@pytest.mark.parametrize("jit", [True, False])
def test_a_function_with_a_halo_may_return_the_chunk_alone(jit):
    def inner(chunk, chunk_info):
        i, j = chunk_info.before
        return chunk[i : i + chunk_info.stop[0] - chunk_info.start[0], j : j + chunk_info.stop[1] - chunk_info.start[1]]

    x = np.random.default_rng(9).random((10, 12))
    result = sa.map_chunks(inner, sa.array(x), chunks=(4, 5), halo=(2, 3), jit=jit)
    assert np.array_equal(result, x)


@pytest.mark.parametrize("jit", [True, False])
def test_a_halo_and_working_in_place_are_refused_together(jit):
    a = sa.array(np.arange(10.0))

    def in_place(chunk):
        chunk += 1

    def returned(chunk):
        return chunk + 1

    with pytest.raises(TypeError, match=r"in_place|read-only|readonly"):
        sa.map_chunks(in_place, a, halo=1, chunks=4, jit=jit)
    with pytest.raises(ValueError, match="returned has a halo, so out must not be one of its arguments"):
        sa.map_chunks(returned, a, out=a, halo=1, chunks=4, jit=jit)
    assert a.tolist() == list(range(10))


@pytest.mark.parametrize(
    ("halo", "error", "message"),
    [
        (-1, ValueError, "must not be negative"),
        ((1, 1, 1), ValueError, "one integer, or one for each dimension"),
        (0.5, TypeError, "halo"),
        ("1", TypeError, "halo must be one integer, or one for each dimension; got '1'"),
    ],
)
def test_bad_halos_are_named(halo, error, message):
    with pytest.raises(error, match=message):
        sa.map_chunks(lambda chunk: chunk, sa.ones((3, 3)), halo=halo)


# ---------------------------------------------------------------------- chunk_info


@sa.chunkwise(halo=(1, 0))
def info_in_numbers(chunk, chunk_info):
    result = np.empty(chunk.shape)
    i, j = chunk_info.position
    result[...] = chunk_info.number * 100 + i * 10 + j
    return result


@pytest.mark.parametrize("jit", [True, False])
def test_chunk_info_says_where_a_chunk_is(jit):
    def noted(chunk, chunk_info):
        result = np.zeros(chunk.shape, np.int64)
        flat = result.ravel()
        flat[0] = chunk_info.number
        for d in range(2):
            flat[1 + d] = chunk_info.position[d]
            flat[3 + d] = chunk_info.start[d]
            flat[5 + d] = chunk_info.stop[d]
            flat[7 + d] = chunk_info.before[d]
            flat[9 + d] = chunk_info.after[d]
        core = np.empty((chunk_info.stop[0] - chunk_info.start[0], chunk_info.stop[1] - chunk_info.start[1]), np.int64)
        core[...] = flat[:11].sum() * 0
        core.ravel()[: min(core.size, 11)] = flat[: min(core.size, 11)]
        return core

    result = sa.map_chunks(noted, sa.zeros((10, 9)), chunks=(4, 6), halo=(2, 1), jit=jit)
    for number, (rows, columns) in enumerate(
        (slice(i, min(i + 4, 10)), slice(j, min(j + 6, 9))) for i in (0, 4, 8) for j in (0, 6)
    ):
        expected = [number, rows.start // 4, columns.start // 6, rows.start, columns.start, rows.stop, columns.stop]
        expected += [min(2, rows.start), min(1, columns.start), min(2, 10 - rows.stop), min(1, 9 - columns.stop)]
        seen = np.asarray(result[rows, columns]).ravel()[:11].tolist()
        assert seen == expected[: len(seen)]


def test_chunk_numbers_count_in_c_order():
    a = sa.zeros((5, 4))
    filled_with_number(a, chunks=(2, 3))
    expected = np.repeat(np.repeat([[0, 1], [2, 3], [4, 5]], 2, 0)[:5], 3, 1)[:, :4]
    assert np.array_equal(a, expected)


def test_chunk_info_comes_last():
    for jit in (True, False):
        with pytest.raises(TypeError, match="chunk_info must be the last parameter"):
            sa.chunkwise(lambda chunk_info, chunk: None, jit=jit)
    result = sa.map_chunks(lambda *chunks, chunk_info: chunks[0] + chunk_info.number, sa.zeros(4), chunks=2, jit=False)
    assert result.tolist() == [0, 0, 1, 1]


# ---------------------------------------------------------------------- plain Python


def _count_calls(counts, how):
    """A function that adds one to its chunk's entry of a shared array, and does what `how` says to the chunk."""

    def function(chunk, chunk_info):
        counts[chunk_info.number] += 1
        if how == "in place":
            chunk += 1
        elif how == "returns":
            return chunk + 1
        return None

    return function


@pytest.mark.parametrize("how", ["in place", "returns", "only looks"])
def test_python_functions_run_exactly_once_a_chunk(how):
    x = np.arange(20.0)
    for chunks in (100, 7, 1):
        a, counts = sa.array(x), sa.zeros(20, np.int64)
        result = sa.map_chunks(_count_calls(counts, how), a, chunks=chunks, jit=False)
        assert counts.tolist() == [1] * -(-20 // chunks) + [0] * (20 - -(-20 // chunks))
        assert np.array_equal(a, x + (how == "in place"))
        if how == "returns":
            assert np.array_equal(result, x + 1)
        else:
            assert result is None


def test_python_functions_may_do_anything():
    pids = sa.zeros(6, np.int64)

    def note(chunk):
        chunk[...] = os.getpid()

    sa.map_chunks(note, pids, chunks=1, jit=False)
    assert os.getpid() not in pids.tolist()
    assert 0 not in pids.tolist()
    words = sa.map_chunks(lambda chunk: np.char.upper(chunk), sa.array(["a", "b", "c"]), chunks=2, jit=False)
    assert words.tolist() == ["A", "B", "C"]


def test_what_python_functions_print_reaches_the_caller(capfd):
    def speak(chunk, chunk_info):
        print(f"chunk {chunk_info.number} has {chunk.size}")

    sa.map_chunks(speak, sa.zeros(5), chunks=2, jit=False)
    said = capfd.readouterr().out
    assert sorted(said.splitlines()) == ["chunk 0 has 2", "chunk 1 has 2", "chunk 2 has 1"]


def test_errors_in_the_first_chunk_count_the_whole_grid():
    with pytest.raises(sa.KernelError, match=r"raised in chunk 0 of 3: ZeroDivisionError") as caught:
        sa.map_chunks(lambda chunk: 1 // int(chunk[0]), sa.zeros(5), chunks=2, jit=False)
    assert caught.value.chunk == 0


def test_a_function_that_changes_and_returns_is_refused():
    def both(chunk):
        chunk += 1
        return chunk

    a = sa.zeros(5)
    with pytest.raises(TypeError, match="both changed its chunk and returned an array"):
        sa.map_chunks(both, a, chunks=2, jit=False)
    assert not a.any()


@sa.chunkwise
def changes_and_returns(chunk):
    chunk += 1
    return chunk


def test_a_compiled_function_that_changes_and_returns_is_refused_before_anything_runs():
    a = sa.zeros(4)
    with pytest.raises(TypeError, match=r"changes_and_returns changes its chunk and returns an array.*chunk\.copy\(\)"):
        changes_and_returns(a)
    assert not a.any()


@sa.chunkwise
def stores_far_away(chunk):
    chunk[1 << 40] = 1.0


def test_a_function_that_ends_every_worker_is_stopped_after_three(pool):
    a = sa.ones(32)
    with pytest.raises(sa.ChunksUnknownError) as caught:
        stores_far_away(a, chunks=1, pool=pool)
    chunks = caught.value.chunks
    assert 3 <= len(chunks) <= 6  # the third death, and what other workers were at by then
    message = str(caught.value)
    assert re.search(rf"stores_far_away: {len(chunks)} workers died \(pid \d+: killed by SIGSEGV\)", message)
    assert f"{len(chunks)} chunks ({', '.join(map(str, chunks))}) in place, whose content is unknown" in message
    assert f"{32 - len(chunks)} chunks (" in message
    assert re.search(r"not begun\. Most likely it used an index out of range: debug=True", message)


def test_a_function_with_a_halo_may_only_look():
    seen = sa.zeros(3)

    def look(chunk, chunk_info):
        seen[chunk_info.number] = chunk.size

    assert sa.map_chunks(look, sa.zeros(6), chunks=2, halo=1, jit=False) is None
    assert seen.tolist() == [3, 4, 3]


def test_errors_in_other_chunks_are_named():
    def picky(chunk):
        if chunk[0] == 4:
            raise IndexError("four")
        return chunk

    with pytest.raises(IndexError, match=r"picky raised in chunk 2 of 3: IndexError: four") as caught:
        sa.map_chunks(picky, sa.array(np.arange(5.0)), chunks=2, jit=False)
    assert isinstance(caught.value, sa.KernelError)
    assert caught.value.chunk == 2
    assert "In the worker" in "".join(caught.value.__cause__.__notes__)


def test_a_python_function_that_sometimes_returns_is_named():
    def fickle(chunk):
        return chunk if chunk[0] else None

    with pytest.raises(sa.KernelError, match=r"fickle returned .* for chunk 1"):
        sa.map_chunks(fickle, sa.array([0.0, 1.0, 2.0, 3.0]), chunks=2, jit=False)
    with pytest.raises(sa.KernelError, match=r"fickle returned nothing for chunk 1"):
        sa.map_chunks(fickle, sa.array([1.0, 1.0, 0.0, 3.0]), chunks=2, jit=False)


def test_functions_that_cannot_travel_are_refused_before_dispatch():
    lock = threading.Lock()

    def locked(chunk):
        with lock:
            chunk += 1

    a = sa.zeros(3)
    with pytest.raises(TypeError, match="locked cannot be sent to the workers"):
        sa.map_chunks(locked, a, jit=False)
    assert not a.any()


# ---------------------------------------------------------------------- lanes


@pytest.mark.parametrize("lanes", [1, 5])
def test_results_do_not_depend_on_the_number_of_lanes(lanes):
    x = np.random.default_rng(10).integers(0, 9, (20, 30)).astype(float)
    with sa.Pool(lanes) as pool:
        assert np.array_equal(neighbours[1](sa.array(x), chunks=(3, 4), pool=pool), numpys_box_sum(x, 1))
        a = sa.array(x)
        double(a, chunks=1, pool=pool)
        assert np.array_equal(a, 2 * x)


def test_a_remembered_call_sees_new_values():
    a = sa.array(np.ones(10), chunks=3)
    for _ in range(4):
        double(a)
    assert a.tolist() == [16.0] * 10
    out = sa.empty(10)
    for value in (1.0, 2.0):
        a[...] = value
        doubled(a, out=out)
        assert np.all(out == 2 * value)
