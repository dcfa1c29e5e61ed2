"""Stencils: equal to scipy.ndimage at every edge, whatever the chunks; and what is refused."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import ndimage

import shmarray as sa
from shmarray.kernels import boundaries
from shmarray.ops.borders import MODES
from tests.processes import wait_until

FIVE = ["reflect", "constant", "nearest", "mirror", "wrap"]


def weights_2d():
    return np.arange(1.0, 36.0).reshape(7, 5)


def dense_2d(mode, **more):
    @sa.stencil(halo=(3, 2), mode=mode, cval=2.5, **more)
    def dense(u):
        total = 0.0
        for i in range(-3, 4):
            for j in range(-2, 3):
                total += u[i, j] * (5 * (i + 3) + (j + 2) + 1)
        return total

    return dense


@pytest.fixture(scope="module")
def dense():
    """One stencil by mode; modes are data, so they share their code."""
    return {mode: dense_2d(mode) for mode in FIVE}


@sa.stencil
def laplacian(u):
    return u[-1, 0] + u[1, 0] + u[0, -1] + u[0, 1] - 4 * u[0, 0]


@numba.njit
def jitted_difference(u, step):
    return u[step] - u[-step]


@sa.stencil(halo=2, mode="nearest")
def by_callee(u):
    return jitted_difference(u, 2)


@sa.stencil(debug=True)
def reads_at(u, step):
    return u[int(step)]


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 4), (40, 51)])
def test_two_dimensions_equal_scipy_in_every_mode(dense, shape, everywhere, pool) -> None:
    x = np.random.default_rng(1).random(shape)
    reversed_view = sa.array(np.flip(x).copy())[::-1, ::-1]
    arrays = sa.array(x, chunks=(7, 9)), sa.array(x), sa.array(x.T.copy()).T, reversed_view
    for mode in FIVE:
        expected = ndimage.correlate(x, weights_2d(), mode=mode, cval=2.5)
        for array in arrays:
            np.testing.assert_allclose(dense[mode](array), expected, rtol=1e-12)


def test_one_and_three_dimensions_equal_scipy() -> None:
    for mode in FIVE:
        one_and_three_dimensions_equal_scipy(mode)


def one_and_three_dimensions_equal_scipy(mode) -> None:
    @sa.stencil(halo=(3,), mode=mode, cval=-1.0)
    def line(u):
        return u[-3] + 2 * u[-1] + 3 * u[0] - u[2]

    weights = np.array([1.0, 0, 2, 3, 0, -1, 0])
    for n in (1, 2, 5, 300):
        x = np.random.default_rng(n).random(n)
        expected = ndimage.correlate(x, weights, mode=mode, cval=-1.0)
        np.testing.assert_allclose(line(sa.array(x, chunks=4)), expected, rtol=1e-12, atol=1e-15)

    @sa.stencil(halo=(1, 0, 2), mode=mode, cval=-1.0)
    def solid(u):
        return u[-1, 0, 0] - 2 * u[1, 0, 1] + u[0, 0, -2]

    cube = np.zeros((3, 1, 5))
    cube[0, 0, 2], cube[2, 0, 3], cube[1, 0, 0] = 1, -2, 1
    for shape in ((1, 3, 1), (4, 5, 6), (2, 1, 3)):
        x = np.random.default_rng(2).random(shape)
        expected = ndimage.correlate(x, cube, mode=mode, cval=-1.0)
        np.testing.assert_allclose(solid(sa.array(x, chunks=(2, 2, 2))), expected, rtol=1e-12, atol=1e-15)


def test_a_mode_for_each_dimension() -> None:
    @sa.stencil(halo=2, mode=["wrap", "constant"], cval=7)
    def corner(u):
        return u[-2, -2] + 10 * u[0, 1]

    x = np.arange(12).reshape(3, 4)
    padded = np.pad(np.pad(x, ((2, 2), (0, 0)), mode="wrap"), ((0, 0), (2, 2)), constant_values=7)
    result = corner(sa.array(x))
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, padded[:3, :4] + 10 * padded[2:5, 3:7])


def test_the_bits_do_not_depend_on_chunks_or_workers(everywhere, pool, dense) -> None:
    x = np.random.default_rng(3).random((64, 65))
    alone = dense["mirror"](sa.array(x))
    assert dense["mirror"](sa.array(x, chunks=(64, 3)), pool=pool).tobytes() == alone.tobytes()
    with sa.pool.Pool(5) as workers:
        assert dense["mirror"](sa.array(x, chunks=(5, 11)), pool=workers).tobytes() == alone.tobytes()


def test_in_place_reads_the_old_values(dense) -> None:
    x = np.random.default_rng(4).random((30, 20))
    a = sa.array(x, chunks=(4, 20))
    assert dense["reflect"](a, out=a) is a
    np.testing.assert_allclose(a, ndimage.correlate(x, weights_2d()), rtol=1e-12)
    b = sa.array(x)
    with pytest.raises(ValueError, match="shares memory"):
        dense["reflect"](b[:-1], out=b[1:])


def test_an_output_of_any_layout_takes_the_result(dense) -> None:
    x = np.random.default_rng(5).random((12, 9))
    expected = dense["wrap"](sa.array(x))
    for out in (sa.zeros((9, 12)).T, sa.zeros((12, 18))[:, ::2], sa.zeros((12, 9), dtype="float32")):
        assert dense["wrap"](sa.array(x), out=out) is out
        np.testing.assert_array_equal(out, expected.astype(out.dtype))


def test_the_same_arrays_again_find_their_plan_and_new_values(dense) -> None:
    a, out = sa.array(np.eye(9)), sa.zeros((9, 9))
    laplacian(a, out=out)
    a[...] = 1
    laplacian(a, out=out)
    np.testing.assert_array_equal(out, np.zeros((9, 9)))


def test_several_arrays_scalars_and_broadcasting() -> None:
    @sa.stencil(mode="wrap")
    def advect(u, speed, dt):
        return u[0, 0] - dt * speed[0, 0] * (u[0, 1] - u[0, -1])

    x, speed = np.random.default_rng(6).random((2, 6, 7))
    expected = x - 0.5 * speed * (np.roll(x, -1, 1) - np.roll(x, 1, 1))
    np.testing.assert_allclose(advect(sa.array(x), sa.array(speed), 0.5), expected, rtol=1e-13)
    np.testing.assert_allclose(
        advect(sa.array(x), sa.array(speed[0]), 0.5),
        x - 0.5 * speed[0] * (np.roll(x, -1, 1) - np.roll(x, 1, 1)),
        rtol=1e-13,
    )
    np.testing.assert_allclose(advect(x, speed, 0.5), expected, rtol=1e-13)  # plain arrays are copied in


def test_callees_closures_and_complex_numbers() -> None:
    x = np.random.default_rng(7).random(20) + 1j
    padded = np.pad(x, 2, mode="edge")
    np.testing.assert_array_equal(by_callee(sa.array(x)), padded[4:] - padded[:-4])


def test_plain_python(everywhere, pool, dense) -> None:
    x = np.random.default_rng(8).random((4, 5))
    for mode in ("constant", "mirror"):
        slow = dense_2d(mode, jit=False)(sa.array(x, chunks=(2, 5)))
        np.testing.assert_allclose(slow, dense[mode](sa.array(x)), rtol=1e-12)
    with pytest.raises(sa.KernelIndexError, match=r"index \(2,\) reaches beyond"):
        sa.stencil(lambda u: u[0] if u[0] == 0 else u[2], jit=False)(sa.array([0.0, 1.0, 2.0]))


def test_an_index_beyond_the_halo_is_an_error() -> None:
    a = sa.array(np.arange(9.0))
    with pytest.raises(sa.KernelCompileError, match=r"index \[2\] reaches beyond the halo of 1"):
        sa.stencil(lambda u: u[2])(a)
    with pytest.raises(sa.KernelCompileError, match="indexed by as many integers"):
        sa.stencil(lambda u: u[0, 1])(a)
    assert reads_at(a, 1)[0] == 1
    with pytest.raises(sa.KernelIndexError, match=r"beyond the halo of 1:', -2"):
        reads_at(a, -2)


def test_what_is_refused() -> None:
    a = sa.array(np.arange(9))
    with pytest.raises(ValueError, match="mode must be one of 'reflect'"):
        sa.stencil(lambda u: u[0], mode="symmetric")
    with pytest.raises(ValueError, match="must not be negative"):
        sa.stencil(lambda u: u[0], halo=-1)
    with pytest.raises(TypeError, match="halo must be one integer"):
        sa.stencil(lambda u: u[0], halo=1.5)
    with pytest.raises(ValueError, match="2 modes for an array of 1"):
        sa.stencil(lambda u: u[0], mode=("wrap", "wrap"))(a)
    with pytest.raises(ValueError, match=r"cval 0\.5 is no value of dtype int64"):
        sa.stencil(lambda u: u[0], cval=0.5)(a)
    with pytest.raises(TypeError, match="takes 1 argument; got 2"):
        laplacian(a, a)
    with pytest.raises(TypeError, match="one number for each element"):
        sa.stencil(lambda u: (u[0], u[0]))(a)
    with pytest.raises(TypeError, match="at least one array"):
        laplacian(1.0)
    with pytest.raises(TypeError, match="unknown"):
        laplacian(sa.zeros((3, 3)), unknown=1)


def test_nothing_to_do() -> None:
    assert laplacian(sa.zeros((0, 3))).shape == (0, 3)
    out = sa.zeros((3, 0))
    assert laplacian(sa.zeros((3, 0)), out=out) is out


def test_mode_numbers_are_those_of_the_kernels() -> None:
    for name in FIVE:
        assert MODES[name] == getattr(boundaries, name.upper())


def test_crash_safe_in_place_has_the_same_result(dense) -> None:
    x = np.random.default_rng(9).random((30, 20))
    a = sa.array(x, chunks=(4, 20))
    assert dense["reflect"](a, out=a, crash_safe=True) is a
    np.testing.assert_allclose(a, ndimage.correlate(x, weights_2d()), rtol=1e-12)
    with pytest.raises(ValueError, match="contiguous along its last dimension"):
        dense["reflect"](a, out=sa.zeros((30, 40))[:, ::2], crash_safe=True)
    with pytest.raises(ValueError, match="does not take crash_safe"):
        sa.ops.gaussian_filter(a, 1, crash_safe=True)


@sa.stencil(halo=1)
def dies_at_the_mark(u, marker):
    """What a worker dies of that finds the mark: an address that is none of its own, far beyond the halo."""
    if u[0] == marker:
        return u[int(marker) * 1_000_000_000_000]
    return u[0]


def test_a_worker_that_a_wrong_index_ends_is_named_and_the_caller_lives(everywhere, pool) -> None:
    a = sa.array(np.arange(40.0), chunks=10)
    with pytest.raises(sa.WorkerDiedError, match="chunk 2 ended its worker"):
        dies_at_the_mark(a, 23.0, retries=0)
    # What later tests tell the one that comes in its place waits here, descriptors too, until it is up.
    wait_until(lambda: all(worker.state == "idle" for worker in pool.workers), timeout_s=60)
    np.testing.assert_array_equal(dies_at_the_mark(a, -1.0), np.arange(40.0))
