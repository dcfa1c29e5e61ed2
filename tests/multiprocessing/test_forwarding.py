"""The whole of `multiprocessing` is there under this package's name, and there is one state."""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from shmarray import multiprocessing as mp

OURS = {
    "Array",
    "JoinableQueue",
    "Manager",
    "Pipe",
    "Pool",
    "Queue",
    "RawArray",
    "RawValue",
    "SimpleQueue",
    "Value",
    "get_context",
}
OUR_MODULES = ("connection", "context", "managers", "pool", "queues", "sharedctypes")
SUBMODULES = [module.name for module in pkgutil.iter_modules(multiprocessing.__path__)]


def test_every_public_name_is_there_and_only_ours_differ() -> None:
    assert set(multiprocessing.__all__) == set(mp.__all__)
    differing = {name for name in mp.__all__ if getattr(mp, name) != getattr(multiprocessing, name)}
    assert differing == OURS & set(mp.__all__)
    assert mp.SUBDEBUG == multiprocessing.SUBDEBUG


def test_a_star_import_gives_ours() -> None:
    scope: dict[str, object] = {}
    exec("from shmarray.multiprocessing import *", scope)
    assert scope["Pool"] == mp.Pool
    assert scope["Process"] is multiprocessing.Process


@pytest.mark.parametrize("name", [name for name in SUBMODULES if name != "popen_spawn_win32"])
def test_every_submodule_can_be_imported(name: str) -> None:
    ours = importlib.import_module(f"shmarray.multiprocessing.{name}")
    original = importlib.import_module(f"multiprocessing.{name}")
    if name in OUR_MODULES:
        assert {name for name in vars(original) if not hasattr(ours, name)} == set()
    else:
        assert ours is original


def test_submodules_of_ours_are_found_where_the_originals_are_loaded() -> None:
    program = f"""
import importlib
for name in {OUR_MODULES}:
    importlib.import_module(f"multiprocessing.{{name}}")
import shmarray.multiprocessing.dummy.connection as ours, multiprocessing.dummy.connection as original
assert ours is original
from shmarray import multiprocessing as mp
for name in {OUR_MODULES}:
    exec(f"from shmarray.multiprocessing import {{name}} as imported")
    assert imported is getattr(mp, name)
    assert imported.__name__ == f"shmarray.multiprocessing.{{name}}", imported
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = mp.nonsense
    with pytest.raises(ImportError):
        importlib.import_module("shmarray.multiprocessing.nonsense")


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_contexts_are_the_originals_with_our_classes(method: str) -> None:
    context = mp.get_context(method)
    assert context.get_start_method() == method
    assert isinstance(context, type(multiprocessing.get_context(method)))
    assert context.Process is multiprocessing.get_context(method).Process
    assert context.get_context() is context
    assert context.get_context("spawn") is mp.get_context("spawn")


def test_an_unknown_start_method_is_refused() -> None:
    with pytest.raises(ValueError, match="thread"):
        mp.get_context("thread")


def test_the_start_method_is_one_for_both_packages() -> None:
    program = """
import multiprocessing
from shmarray import multiprocessing as mp
mp.set_start_method("spawn")
assert multiprocessing.get_start_method() == mp.get_start_method() == "spawn"
assert mp.get_context().get_start_method() == "spawn"
multiprocessing.set_start_method("forkserver", force=True)
assert mp.get_context().get_start_method() == "forkserver"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_executors_take_our_contexts() -> None:
    with ProcessPoolExecutor(1, mp_context=mp.get_context("fork")) as executor:
        assert executor.submit(abs, -2).result() == 2
