"""Asking a function in plain Python what it returns: in a worker, since it may do anything, end its process too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from shmarray import registry
from shmarray.engine import AskJob, Options, plan_ask, run
from shmarray.ops.arguments import by_value

__all__ = ["ask", "first_item"]


def ask(name: str, function: Callable[..., Any], question: Callable[[], Any], options: Options) -> Any:
    """The answer that `question` gives when it is called in a worker; both come and go by pickle.

    Parameters
    ----------
    name : str
        The kernel's, for messages.
    function : callable
        The user's: named where it does not pickle.
    question : callable
        Takes nothing, refers to `function`, and returns a few bytes' worth (dtypes).
    """
    scratch = np.asarray(registry.create((AskJob.scratch_nbytes,), np.dtype(np.uint8)))
    run(plan_ask(name, by_value(question, function), scratch), replace(options, progress=False))
    return AskJob.read(scratch)


def first_item(value: Any) -> Any:
    """The first item of an array as a NumPy scalar, 1 where it has none; what is no array as it is."""
    if not isinstance(value, np.ndarray):
        return value
    return value.flat[0] if value.size else value.dtype.type(1)
