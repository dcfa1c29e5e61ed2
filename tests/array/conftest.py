"""Fixtures of the array tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.second_process import Peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    process = Peer()
    yield process
    process.close()
