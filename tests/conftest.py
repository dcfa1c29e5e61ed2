"""Fixtures for every test: a namespace of its own, and nothing left behind."""

from __future__ import annotations
