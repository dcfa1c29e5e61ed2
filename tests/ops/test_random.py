"""Random numbers: the published generator, the same whatever makes them, and of the distributions they say."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import shmarray as sa
from shmarray.kernels import random as kernels
from shmarray.ops import random

U = np.uint64


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # kat_vectors of Random123: philox4x32 10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter, key, expected) -> None:
    assert kernels.philox4x32.py_func.__name__ == "philox4x32"
    assert tuple(int(word) for word in kernels.philox4x32(*map(U, (*counter, *key)))) == expected


def philox(counter, key):
    """The generator in Python's integers, from the paper."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k0, second & 0xFFFFFFFF, (first >> 32) ^ c[3] ^ k1, first & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def words_of(generator, first, count):
    """Words of a generator's stream by the reference above."""
    key, salt = generator._key
    words = []
    for block in range(first // 2, (first + count) // 2 + 1):
        counter = (block & 0xFFFFFFFF, block >> 32, salt & 0xFFFFFFFF, salt >> 32)
        a, b, c, d = philox(counter, (key & 0xFFFFFFFF, key >> 32))
        words += [a | b << 32, c | d << 32]
    return words[first % 2 : first % 2 + count]


@pytest.mark.parametrize("position", [0, 1, (1 << 33) - 3])
def test_elements_are_the_words_that_they_should_be(position) -> None:
    generator = random.Generator([1, 2])
    generator.position = position
    words = words_of(generator, position, 3000)
    result = generator.uniform(size=3000)
    np.testing.assert_array_equal(result, [(word >> 12) * 2.0**-52 for word in words])
    assert generator.position == position + 3000
    generator.position = position
    result = generator.integers(-5, 1000, size=(30, 100), dtype=np.int16)
    assert result.dtype == np.int16
    np.testing.assert_array_equal(result.ravel(), [-5 + (word * 1005 >> 64) for word in words])
    generator.position = position
    start = position + position % 2
    words = words_of(generator, start, 3000)
    radius = np.sqrt(-2 * np.log([1 - (word >> 12) * 2.0**-52 for word in words[::2]]))
    angle = 2 * np.pi * np.array([(word >> 12) * 2.0**-52 for word in words[1::2]])
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
    np.testing.assert_allclose(generator.normal(size=2999), expected[:2999], rtol=1e-13, atol=1e-14)
    assert generator.position == start + 3000


def test_the_numbers_do_not_depend_on_chunks_or_workers(everywhere, pool) -> None:
    def draw(**more) -> bytes:
        generator = random.Generator(3)
        kinds = [generator.uniform, generator.normal, lambda **more: generator.integers(1000, **more)]
        return b"".join(draw(size=(7, 1001), **more).tobytes() for draw in kinds)

    with sa.config.override(parallel_nbytes=1 << 40):
        alone = draw()
    with sa.pool.Pool(5) as workers, sa.config.override(chunk_nbytes=9000):
        assert draw(pool=pool) == alone
        assert draw(pool=workers) == alone


def test_distributions() -> None:
    generator = random.Generator(4)
    normal = generator.normal(3, 2, size=400_000)
    z = (np.asarray(normal) - 3) / 2
    # Four standard errors of each moment.
    for moment, (expected, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], 1):
        assert abs((z**moment).mean() - expected) < 4 * np.sqrt(variance / z.size)
    assert abs(np.corrcoef(z[::2], z[1::2])[0, 1]) < 4 / np.sqrt(z.size / 2)
    u = np.asarray(generator.uniform(-1, 1, size=400_000))
    assert u.min() >= -1
    assert u.max() < 1
    counts = np.histogram(u, 100, (-1, 1))[0]
    assert ((counts - 4000) ** 2 / 4000).sum() < 99 + 4 * np.sqrt(2 * 99)


def test_float32() -> None:
    u = random.uniform(size=100_000, seed=5, dtype=np.float32)
    assert u.dtype == np.float32
    assert 0 <= u.min() < u.max() < 1
    np.testing.assert_allclose(u, random.uniform(size=100_000, seed=5), atol=2**-24)
    out = sa.empty(1000, dtype="float32")
    assert random.normal(seed=6, out=out) is out
    np.testing.assert_array_equal(out, random.normal(seed=6, size=1000).astype("float32"))


def test_integers_of_every_range() -> None:
    everything = random.integers(0, 1 << 64, size=10_000, dtype=np.uint64, seed=7)
    assert everything.dtype == np.uint64
    assert everything.max() > 1 << 63
    signed = random.integers(-(1 << 63), (1 << 63) - 1, size=10_000, endpoint=True, seed=7)
    np.testing.assert_array_equal(signed.view(np.uint64) ^ U(1 << 63), everything)
    dice = random.integers(1, 6, size=60_000, endpoint=True, dtype=np.uint16, seed=8)
    np.testing.assert_allclose(np.bincount(dice, minlength=7)[1:], 10_000, atol=4 * np.sqrt(10_000))
    assert random.integers(1, size=5, seed=9).tolist() == [0] * 5


def test_permutations() -> None:
    order = random.permutation(5000, seed=10)
    assert sorted(order.tolist()) == list(range(5000))
    assert order.tolist() != list(range(5000))
    np.testing.assert_array_equal(order, random.permutation(5000, seed=10))
    rows = np.arange(12).reshape(4, 3)
    shuffled = random.permutation(sa.array(rows), seed=11)
    np.testing.assert_array_equal(shuffled, rows[random.permutation(4, seed=11)])
    # Each of the six orders of three is as likely as the others.
    generator = random.Generator(12)
    seen = [tuple(generator.permutation(3).tolist()) for _ in range(1200)]
    assert all(abs(seen.count(each) - 200) < 5 * np.sqrt(200) for each in set(seen))
    assert len(set(seen)) == 6
    assert random.permutation(0).shape == (0,)


def test_a_generator_goes_on_and_travels() -> None:
    one = random.Generator(13)
    assert one.uniform() != one.uniform()
    other = pickle.loads(pickle.dumps(one))
    assert other.position == one.position == 2
    np.testing.assert_array_equal(one.uniform(size=9), other.uniform(size=9))
    assert random.Generator().uniform() != random.Generator().uniform()
    assert random.Generator(np.random.SeedSequence(13)).uniform() == random.Generator(13).uniform()
    assert one.uniform(size=(0, 3)).shape == (0, 3)


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match="must be float64 or float32; got int64"):
        random.uniform(size=3, dtype=np.int64)
    with pytest.raises(ValueError, match="nothing lies from 3 to 3"):
        random.integers(3, 3)
    with pytest.raises(ValueError, match="does not fit uint8"):
        random.integers(0, 300, dtype=np.uint8)
    with pytest.raises(ValueError, match="scale must not be negative"):
        random.normal(scale=-1)
    with pytest.raises(ValueError, match="low and high must be finite"):
        random.uniform(0, np.inf)
    with pytest.raises(TypeError, match="out must be a SharedArray"):
        random.uniform(out=np.zeros(3))
    with pytest.raises(ValueError, match="C-contiguous"):
        random.uniform(out=sa.zeros((4, 4))[:, 1])
    with pytest.raises(ValueError, match="a position is from 0"):
        random.Generator(1).position = -1
    with pytest.raises(ValueError, match="permutation takes"):
        random.permutation(-1)
