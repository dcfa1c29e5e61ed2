"""Fixtures of the property tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from second_process import Peer


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    """One for a module: hypothesis asks it hundreds of times."""
    process = Peer()
    yield process
    process.close()
