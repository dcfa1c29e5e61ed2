"""Fixtures of the kernels' tests: where the chunks of a call are done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import shmarray as sa


@pytest.fixture
def everywhere() -> Iterator[None]:
    """However small, a call goes to the workers."""
    before = sa.config.parallel_nbytes
    sa.config.parallel_nbytes = 0
    yield
    sa.config.parallel_nbytes = before
