"""What lies beyond the edges, as NumPy's `pad` has it, from a user's own numba code."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from shmarray.kernels import boundaries

#: Our names, and those of np.pad.
PAD = {"REFLECT": "symmetric", "NEAREST": "edge", "MIRROR": "reflect", "WRAP": "wrap"}


@numba.njit
def indices(before, n, mode):
    found = np.empty(n + 2 * before, np.int64)
    for i in range(found.size):
        found[i] = boundaries.source_index(i - before, n, mode)
    return found


@pytest.mark.parametrize("mode", PAD)
@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_indices_are_those_that_numpy_pads_by(mode, n) -> None:
    expected = np.pad(np.arange(n), 25, mode=PAD[mode])
    np.testing.assert_array_equal(indices(25, n, getattr(boundaries, mode)), expected)


def test_the_constant_has_no_index() -> None:
    assert indices(2, 3, boundaries.CONSTANT).tolist() == [-1, -1, 0, 1, 2, -1, -1]
