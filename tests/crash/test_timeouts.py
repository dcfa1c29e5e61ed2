"""Kernels that never end are ended at their timeout, and everything else is done."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import shmarray as sa
from tests.crash.chunks import CHUNK, N_CHUNKS, numbered, works


def test_row_31_an_endless_kernel_is_killed_at_its_timeout_and_others_finish(pool):
    a, b = numbered(), numbered()
    b[:] = -1

    @sa.chunkwise
    def endless(chunk):
        n = 0
        while chunk[0] == 1:
            n += 1
            if n < 0:
                break
        return chunk * 2

    endless(numbered()[:CHUNK], out=numbered()[:CHUNK], pool=pool)  # compiled and told
    with pytest.raises(sa.KernelTimeoutError) as caught:
        endless(a, out=b, pool=pool, timeout=0.5, chunks=CHUNK)
    error = caught.value
    assert error.chunks == (1,)
    assert error.unknown == ()
    assert (error.kernel, error.timeout_s) == ("endless", 0.5)
    expected = np.repeat(np.arange(N_CHUNKS), CHUNK) * 2
    done = np.arange(N_CHUNKS * CHUNK) // CHUNK != 1
    np.testing.assert_array_equal(np.asarray(b)[done], expected[done])
    assert pickle.loads(pickle.dumps(error)).chunks == (1,)
    assert works(pool)


def test_a_timeout_names_every_chunk_that_is_not_done_also_beyond_the_first_dispatch(pool):
    a = sa.zeros(70_000, np.int8, chunks=1)

    @sa.chunkwise
    def endless(chunk):
        while chunk[0] == 0:
            pass
        chunk[0] = 1

    with pytest.raises(sa.KernelTimeoutError) as caught:
        endless(a, pool=pool, timeout=0.3)
    assert caught.value.chunks == tuple(range(70_000))
    assert set(caught.value.unknown) <= {0, 1}
    assert works(pool)


def test_a_timeout_that_is_not_reached_changes_nothing(pool):
    a, b = numbered(), numbered()

    @sa.elementwise
    def triple(x):
        return 3 * x

    np.testing.assert_array_equal(triple(a, pool=pool, timeout=60), np.asarray(a) * 3)
    triple(a, out=b, pool=pool, timeout=60)
    np.testing.assert_array_equal(b, np.asarray(a) * 3)
    np.testing.assert_array_equal(triple(np.arange(4), pool=pool, timeout=60), [0, 3, 6, 9])


def test_a_timeout_ends_endless_work_on_small_private_operands_too(pool):
    @sa.elementwise
    def stuck(x):
        while x == 3:
            pass
        return x

    @sa.reduction(identity=0, combine=lambda a, b: a + b)
    def stuck_sum(total, x):
        while x == 3:
            pass
        return total + x

    private = sa.array([1, 2, 3]) + 0
    assert not private.is_shared
    # Not at the first call's price: the compiler's time counts, and starts before the kernel's.
    np.testing.assert_array_equal(stuck(private[:2], timeout=60, pool=pool), [1, 2])
    assert stuck_sum([1, 2], timeout=60, pool=pool) == 3
    for call in (
        lambda: stuck(private, timeout=0.3, pool=pool),
        lambda: stuck(private, out=private, timeout=0.3, pool=pool),
        lambda: stuck_sum([1, 2, 3], timeout=0.3, pool=pool),
    ):
        with pytest.raises(sa.KernelTimeoutError):
            call()
    np.testing.assert_array_equal(private, [1, 2, 3])
    assert works(pool)


def test_a_plan_made_on_copies_of_private_operands_is_not_used_again(pool):
    @sa.elementwise
    def shifted(x):
        return x + 1

    private, b = sa.array([1, 2, 3]) + 0, sa.empty(3, np.int64)
    for start in (1, 10):
        private[:] = start
        shifted(private, out=b, timeout=60, pool=pool)
        np.testing.assert_array_equal(b, np.full(3, start + 1))
        private[:] = start + 5
        shifted(private, out=b)
        np.testing.assert_array_equal(b, np.full(3, start + 6))
