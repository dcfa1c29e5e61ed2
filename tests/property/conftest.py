"""Fixtures of the property tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.second_process import Peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    """One for a test: hypothesis asks it once an example."""
    process = Peer()
    yield process
    process.close()
