"""Folds over any axes, against NumPy; and the same bits whoever does the work."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest

import shmarray as sa
from shmarray.engine.job import BlockJob
from shmarray.engine.pacing import TRIAL_ITEMS
from shmarray.pool import solo


@sa.reduction(identity=0.0, combine=operator.add)
def total(acc, x):
    return acc + x


@sa.reduction(identity=0, combine=operator.add)
def count_positive(acc, x):
    return acc + (x > 0)


@sa.reduction(identity=-np.inf, combine=max)
def largest(acc, x):
    return max(acc, x)


@sa.reduction(identity=True, combine=operator.and_)
def all_positive(acc, x):
    return acc and x > 0


@sa.reduction(identity=1.0, combine=operator.mul)
def product(acc, x):
    return acc * x


@sa.reduction(identity=np.float32(0), combine=operator.add)
def total_in_float32(acc, x):
    return np.float32(acc + x)


@sa.reduction(identity=np.uint64(0), combine=np.bitwise_xor)
def parity(acc, x):
    return acc ^ np.uint64(x)


def _join_affine(one, other):
    # The map x -> scale x + shift as scale + 1j shift; `one` is applied first.
    return complex(other.real * one.real, other.real * one.imag + other.imag)


@sa.reduction(identity=1 + 0j, combine=_join_affine)
def composed(acc, x):
    return _join_affine(acc, x)


MODULUS = 10007


def _join(one, other):
    """Numbers as digits: high part the value, low part ten to the power of how many digits, both mod MODULUS."""
    value = (one // MODULUS * (other % MODULUS) + other // MODULUS) % MODULUS
    return value * MODULUS + (one % MODULUS) * (other % MODULUS) % MODULUS


@sa.reduction(identity=1, combine=_join)
def read_as_number(acc, digit):
    return _join(acc, digit * MODULUS + 10)


@sa.reduction(identity=0, combine=lambda one, other: other if other != 0 else one)
def last_nonzero(acc, x):
    return x if x != 0 else acc


def expected_number(digits):
    value = 0
    for digit in digits:
        value = (value * 10 + int(digit)) % MODULUS
    return value


def all_axes(n_dims):
    """Every way to name axes, None among them."""
    yield None
    for size in range(n_dims + 1):
        yield from itertools.combinations(range(n_dims), size)


# ---------------------------------------------------------------------- against NumPy


@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 4, 5), (2, 1, 3, 1), ()])
def test_all_axes_and_keepdims(shape):
    x = np.random.default_rng(1).integers(-50, 50, shape).astype(float)  # small whole numbers: exact in any order
    a = sa.array(x)
    for axis in all_axes(len(shape)):
        for keepdims in (False, True):
            result = total(a, axis=axis, keepdims=keepdims)
            expected = x.sum(axis=axis, keepdims=keepdims)
            assert np.shape(result) == expected.shape
            assert np.array_equal(result, expected)


def test_negative_and_single_axes():
    x = np.arange(24.0).reshape(2, 3, 4)
    a = sa.array(x)
    assert np.array_equal(total(a, -1), x.sum(-1))
    assert np.array_equal(total(a, (0, -1)), x.sum((0, -1)))
    assert np.array_equal(total(a, axis=[1]), x.sum(1))
    assert np.array_equal(total(a, axis=np.int64(1)), x.sum(1))


def test_over_all_axes_it_gives_a_scalar_otherwise_a_shared_array():
    a = sa.ones((3, 4))
    assert type(total(a)) is np.float64
    assert type(total(a, axis=0)) is sa.SharedArray
    assert total(a, keepdims=True).shape == (1, 1)


@pytest.mark.parametrize("shape", [(300_000,), (2, 150_000), (150_000, 2), (500, 600), (1, 300_000), (7, 40_000, 1)])
def test_many_chunks(shape, everywhere):
    x = np.random.default_rng(2).integers(-1000, 1000, shape).astype(float)
    a = sa.array(x)
    for axis in all_axes(len(shape)):
        assert np.array_equal(total(a, axis=axis), x.sum(axis=axis))
        assert np.array_equal(largest(a, axis=axis), x.max(axis=axis))


def test_accuracy_over_many_items():
    x = np.random.default_rng(3).random(400_000)
    assert total(sa.array(x)) == pytest.approx(float(np.sum(x.astype(np.longdouble))), rel=1e-14)


def test_plain_arrays_and_lists_are_taken(everywhere):
    x = np.arange(12.0).reshape(3, 4)
    for axis in (None, 0, 1, (0, 1), ()):
        assert np.array_equal(total(x, axis=axis), x.sum(axis=axis))
        assert np.array_equal(total(x.tolist(), axis=axis), x.sum(axis=axis))
        assert np.array_equal(total(x[::-1, ::2], axis=axis), x[::-1, ::2].sum(axis=axis))


# ---------------------------------------------------------------------- accumulators


@pytest.mark.parametrize("code", ["i1", "f4"])
def test_the_accumulator_holds_identity_and_what_the_fold_gives(code):
    x = np.arange(1, 100).astype(code)
    assert total(sa.array(x)).dtype == np.float64
    assert total(sa.array(x)) == x.sum()
    assert count_positive(sa.array(x)).dtype == np.int64
    assert count_positive(sa.array(x)) == 99


def test_float32_accumulates_in_float32_only_where_identity_and_fold_say_so():
    x = sa.ones(1000, np.float32)
    assert total(x).dtype == np.float64
    assert total_in_float32(x).dtype == np.float32
    assert total_in_float32(x) == 1000


def test_infinite_identities():
    x = np.random.default_rng(4).random((40, 50)).astype(np.float32)
    result = largest(sa.array(x), axis=0)
    assert result.dtype == np.float64
    assert np.array_equal(result, x.max(axis=0))
    assert largest(sa.array([-5, -3])) == -3.0


def test_truth_values():
    x = np.ones((20, 30))
    x[3, 4] = -1
    result = all_positive(sa.array(x), axis=1)
    assert result.dtype == np.bool_
    assert np.array_equal(result, (x > 0).all(axis=1))
    assert all_positive(sa.array(x)) is np.False_ or not all_positive(sa.array(x))
    assert all_positive(sa.ones(3))


def test_complex_and_unsigned_numbers():
    z = np.array([1 + 2j, 3 - 1j, 0.5j])
    assert total(sa.array(z)) == z.sum()
    assert total(sa.array(z)).dtype == np.complex128
    x = np.random.default_rng(5).integers(0, 2**63, 1000, dtype=np.uint64)
    assert parity(sa.array(x)) == np.bitwise_xor.reduce(x)
    assert parity(sa.array(x)).dtype == np.uint64


def test_nan_travels():
    x = np.ones(1000)
    x[500] = np.nan
    assert np.isnan(total(sa.array(x)))


# ---------------------------------------------------------------------- nothing to fold


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_nothing_folds_to_the_identity(shape):
    a = sa.empty(shape)
    for axis in all_axes(len(shape)):
        expected = np.empty(shape).prod(axis=axis)
        result = product(a, axis=axis)
        assert np.shape(result) == expected.shape
        assert np.array_equal(result, expected)
    assert largest(a) == -np.inf


# ---------------------------------------------------------------------- order


def test_a_combine_that_does_not_commute_keeps_the_order(everywhere):
    digits = np.random.default_rng(6).integers(0, 10, 300_001)
    assert read_as_number(sa.array(digits)) // MODULUS == expected_number(digits)
    assert read_as_number(sa.array(digits)[::-1]) // MODULUS == expected_number(digits[::-1])
    table = digits[:300_000].reshape(3, 100, 1000)
    for axis in (0, 1, 2, (0, 2), (1, 2)):
        result = np.asarray(read_as_number(sa.array(table), axis=axis)) // MODULUS
        axes = axis if isinstance(axis, tuple) else (axis,)
        rows = np.moveaxis(table, axes, range(-len(axes), 0)).reshape(*result.shape, -1)
        for place in [(0,) * result.ndim, tuple(n - 1 for n in result.shape), tuple(n // 2 for n in result.shape)]:
            assert result[place] == expected_number(rows[place])


def test_affine_maps_compose_in_order(everywhere):
    rng = np.random.default_rng(7)
    maps = rng.choice([1.0, -1.0], 200_000) + 1j * rng.integers(-3, 4, 200_000)  # exact: whole numbers
    value = 5.0
    for one in maps.tolist():
        value = one.real * value + one.imag
    whole = composed(sa.array(maps))
    assert whole.real * 5.0 + whole.imag == value


def test_the_last_of_many(everywhere):
    x = np.zeros(400_000, np.int64)
    x[[5, 1000, 399_000, 250_000]] = [1, 2, 3, 4]
    assert last_nonzero(sa.array(x)) == 3
    assert last_nonzero(sa.array(x)[::-1]) == 1


# ---------------------------------------------------------------------- the same bits


def _layouts(x):
    """The same values, laid out in other ways."""
    yield sa.array(x)
    yield sa.array(x, chunks=3)
    yield sa.array(np.ascontiguousarray(x.T)).T
    padded = sa.zeros(tuple(2 * n for n in x.shape))
    padded[::2, ::2] = x
    yield padded[::2, ::2]
    yield sa.array(x[::-1, ::-1].copy())[::-1, ::-1]
    yield x  # a plain array


@pytest.mark.parametrize("axis", [None, 0, 1, (1, 0)])
def test_bits_depend_on_values_shape_dtype_and_axes_alone(axis):
    x = np.random.default_rng(8).random((331, 1009)) * 10.0 ** np.random.default_rng(9).integers(-9, 9, (331, 1009))
    expected = np.asarray(total(sa.array(x), axis=axis)).tobytes()
    for settings in ({"parallel_nbytes": 0, "chunk_nbytes": 1000}, {"parallel_nbytes": 10**9}, {"inline_nbytes": 0}):
        with sa.config.override(**settings):
            for same in _layouts(x):
                assert np.asarray(total(same, axis=axis)).tobytes() == expected


@pytest.mark.parametrize("lanes", [1, 5])
def test_bits_do_not_depend_on_the_number_of_lanes(lanes, everywhere):
    x = np.random.default_rng(10).random((600, 700))
    a = sa.array(x)
    with sa.config.override(parallel_nbytes=10**9):
        alone = [np.asarray(total(a, axis=axis)).tobytes() for axis in (None, 0, 1)]
    with sa.Pool(lanes) as pool:
        for _ in range(3):
            assert [np.asarray(total(a, axis=axis, pool=pool)).tobytes() for axis in (None, 0, 1)] == alone


class _Bites:
    """Stands for the time that the caller has before it sees to signals: none. Counts how often it went back."""

    def __init__(self, monkeypatch):
        self.count = 0
        monkeypatch.setattr(solo, "_BITE_NS", 1)
        bind = BlockJob.bind

        def counting(job, binder):
            run = bind(job, binder)

            def bite(lane, budget_ns):
                self.count += 1
                return run(lane, budget_ns)

            return bite

        monkeypatch.setattr(BlockJob, "bind", counting)


@pytest.mark.parametrize("kernel", [total, composed], ids=lambda kernel: kernel.__name__)
@pytest.mark.parametrize("shape", [(3000,), (40, 60), (3, 5, 40), (1000, 2)])
def test_a_fold_left_between_any_two_items_comes_to_the_same_bits(kernel, shape, monkeypatch):
    x = np.random.default_rng(12).random(shape) - 0.5
    layouts = [x, np.asfortranarray(x), x[..., ::2]]
    axes = [None, *range(x.ndim)]
    expected = [np.asarray(kernel(y, axis)).tobytes() for y in layouts for axis in axes]
    bites = _Bites(monkeypatch)
    assert [np.asarray(kernel(y, axis)).tobytes() for y in layouts for axis in axes] == expected
    assert bites.count >= len(expected) * x.size // 2 // TRIAL_ITEMS  # it did go back, after so many items


# ---------------------------------------------------------------------- out


def test_out_takes_the_result(everywhere):
    x = np.random.default_rng(11).integers(0, 9, (30, 40)).astype(float)
    out = sa.empty(40)
    assert total(sa.array(x), axis=0, out=out) is out
    assert np.array_equal(out, x.sum(0))
    strided = sa.zeros((30, 3))
    total(sa.array(x), axis=1, keepdims=True, out=strided[:, 1:2])
    assert np.array_equal(strided[:, 1], x.sum(1))
    assert not strided[:, ::2].any()
    scalar = sa.empty(())
    assert total(sa.array(x), out=scalar) is scalar
    assert scalar == x.sum()
    narrow = sa.empty(40, np.float32)
    assert np.array_equal(total(sa.array(x), axis=0, out=narrow), x.sum(0))


def test_wrong_outputs_are_named():
    a = sa.ones((3, 4))
    with pytest.raises(ValueError, match=r"total: out has shape \(3,\); the result has shape \(4,\)"):
        total(a, axis=0, out=sa.empty(3))
    with pytest.raises(TypeError, match=r"total: out has dtype int64.*same-kind"):
        total(a, axis=0, out=sa.empty(4, np.int64))
    with pytest.raises(TypeError, match="total: out must be a SharedArray"):
        total(a, axis=0, out=np.empty(4))
    with pytest.raises(TypeError, match="total: out must be"):
        total(a, axis=0, out=[0] * 4)
    with pytest.raises(ValueError, match="out shares memory with argument 0"):
        total(a, axis=0, out=a[0])
    frozen = sa.empty(4)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="total: out is read-only"):
        total(a, axis=0, out=frozen)


# ---------------------------------------------------------------------- refused


def test_axes_that_are_not_there():
    a = sa.ones((3, 4))
    with pytest.raises(np.exceptions.AxisError):
        total(a, axis=2)
    with pytest.raises(np.exceptions.AxisError):
        total(a, axis=(-3,))
    with pytest.raises(ValueError, match="names a dimension twice"):
        total(a, axis=(0, -2))
    with pytest.raises(TypeError):
        total(a, axis=1.5)


def test_what_is_no_fold_is_refused_when_decorated():
    with pytest.raises(TypeError, match="must take two arguments"):
        sa.reduction(lambda acc: acc, identity=0, combine=operator.add)
    with pytest.raises(TypeError, match="combine must be a function"):
        sa.reduction(lambda acc, x: acc, identity=0, combine=3)
    with pytest.raises(TypeError, match="identity must be a number"):
        sa.reduction(lambda acc, x: acc, identity=None, combine=operator.add)


def test_a_fold_that_gives_no_number_is_refused():
    kernel = sa.reduction(lambda acc, x: (acc, x), identity=0.0, combine=operator.add)
    with pytest.raises(TypeError, match="must return a number"):
        kernel(sa.ones(3))


def test_one_array_is_folded():
    a = sa.ones(3)
    for others in ((a,), (a, a)):
        with pytest.raises(TypeError, match=r"total folds one array, and what comes behind it is the axis.*total\(a"):
            total(a, *others)
    with pytest.raises(TypeError, match="takes the keywords axis, keepdims, out, pool, .*; got chunks"):
        total(a, chunks=2)


def test_objects_are_refused():
    with pytest.raises(TypeError, match="total: dtype object holds Python objects"):
        total(np.array([None, 1]))
    with pytest.raises(TypeError, match=r"total: numba cannot compute with dtype float16.*float32"):
        total(sa.ones(3, np.float16))


def test_what_numba_cannot_compile_is_named():
    def hopeless(acc, x):
        return acc + x.no_such_attribute

    with pytest.raises(sa.KernelCompileError, match="hopeless") as caught:
        sa.reduction(hopeless, identity=0.0, combine=operator.add)(sa.ones(3))
    assert caught.value.lineno == hopeless.__code__.co_firstlineno + 1


@sa.reduction(identity=0.0, combine=operator.add)
def total_of_positive(acc, x):
    if x < 0:
        raise ValueError("negative")
    return acc + x


def test_exceptions_name_kernel_and_chunk(everywhere):
    x = np.ones(400_000)
    x[300_000] = -1
    with pytest.raises(sa.KernelError, match=r"total_of_positive raised in chunk 2 of 4: ValueError: negative"):
        total_of_positive(sa.array(x))


TABLE = np.ones(4)


@sa.reduction(identity=0.0, combine=operator.add, debug=True)
def total_of_looked_up(acc, i):
    return acc + TABLE[i]


def test_debug_checks_bounds(everywhere):
    assert total_of_looked_up(sa.array([0, 1, 3])) == 3.0
    with pytest.raises(IndexError, match="total_of_looked_up"):
        total_of_looked_up(sa.array([0, 1, 5]))
