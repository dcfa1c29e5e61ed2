"""Kernels that several files of tests use: compiled once for all of them."""

from __future__ import annotations

import numpy as np

import shmarray as sa


@sa.elementwise
def axpy(a, x, y):
    return a * x + y


@sa.elementwise
def add(x, y):
    return x + y


@sa.elementwise
def identity(x):
    return x


@sa.elementwise
def increment(x):
    return x + 1


@sa.elementwise
def extremes(x, y):
    return min(x, y), max(x, y)


@sa.elementwise
def fancy(x, y):
    return np.sqrt(x) * np.exp(-y * y) + np.sin(x) * np.log1p(y)
