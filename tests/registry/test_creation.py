"""Making segments: what is made, what is refused, and what the refusal says."""

from __future__ import annotations

import numpy as np

from shmarray import registry


def test_a_segment_reads_as_zero_and_describes_itself() -> None:
    segment = registry.create((3, 5), "f4", chunks=(1, 5))
    assert segment.fresh
    assert not np.asarray(segment).any()
    assert segment.descriptor.shape == (3, 5)
    assert segment.descriptor.chunks == (1, 5)
    assert segment.nbytes == 60
