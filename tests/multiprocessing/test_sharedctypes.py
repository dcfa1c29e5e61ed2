"""Values and arrays of ctypes: every type, any process, by name, seen by NumPy, and locks whose holders die."""

from __future__ import annotations

import copy
import ctypes
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray import multiprocessing as mp
from shmarray.errors import SegmentExistsError
from shmarray.multiprocessing.sharedctypes import copy as copy_ctypes
from shmarray.multiprocessing.sharedctypes import synchronized, typecode_to_type

ROOT = Path(__file__).resolve().parents[2]


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]


class Number(ctypes.Union):
    _fields_ = [("whole", ctypes.c_long), ("real", ctypes.c_double)]


class Flags(ctypes.Structure):
    _fields_ = [("low", ctypes.c_int, 3), ("high", ctypes.c_int, 5)]


_EVALUATE = """
import pickle, sys
while True:
    try:
        expression, args = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    print(repr(eval(expression)), flush=True)
"""


@pytest.fixture
def elsewhere() -> Iterator[Callable[..., Any]]:
    """`eval` in a process that has inherited nothing, with what plain pickle makes of the arguments as `args`."""
    program = subprocess.Popen(
        [sys.executable, "-c", _EVALUATE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        question, answer = program.stdin, program.stdout

        def evaluate(expression: str, *arguments: Any) -> Any:
            question.write(pickle.dumps((expression, arguments)))
            question.flush()
            return eval(answer.readline())

        yield evaluate
    assert program.returncode == 0


@pytest.mark.parametrize("code", sorted(typecode_to_type))
def test_every_typecode(code: str) -> None:
    given = {"c": b"x", "u": "ä"}.get(code, 7)
    value, array = mp.Value(code, given), mp.Array(code, [given, given])
    assert value.value == pickle.loads(pickle.dumps(value)).value == given
    assert isinstance(value.get_obj(), typecode_to_type[code])
    assert list(array) == [given, given]
    assert np.asarray(value).dtype.itemsize == ctypes.sizeof(typecode_to_type[code])
    assert np.asarray(array).tolist() == [given, given]


@pytest.mark.parametrize("lock", [True, False])
def test_structures_unions_and_nested_arrays(lock: bool) -> None:
    point = mp.Value(Point, 3, 2.5, lock=lock)
    again = pickle.loads(pickle.dumps(point))
    again.x += 1
    assert (point.x, point.y) == (4, 2.5)
    number = mp.Value(Number, lock=lock)
    pickle.loads(pickle.dumps(number)).real = 1.5
    assert number.real == 1.5
    flags = mp.Value(Flags, 1, 2, lock=lock)
    assert (flags.low, flags.high) == (1, 2)
    table = mp.RawArray(ctypes.c_short * 3, 2)
    pickle.loads(pickle.dumps(table))[1][2] = 5
    assert sa.asarray(table).tolist() == [[0, 0, 0], [0, 0, 5]]
    points = mp.Array(Point, [(1, 0.5), (2, 1.5)], lock=lock)
    assert np.asarray(sa.asarray(points))["y"].tolist() == [0.5, 1.5]


def test_a_process_that_inherited_nothing_gets_the_same_memory(elsewhere: Callable[..., Any]) -> None:
    value, array = mp.Value("i", 1), mp.Array("d", 3)
    assert elsewhere("[setattr(args[0], 'value', 5), args[1].__setitem__(slice(1, 3), [2, 3])]", value, array)
    assert value.value == 5
    assert array[:] == [0, 2, 3]
    raw = mp.RawValue("i", 8)
    assert elsewhere("args[0].value", raw) == 8


@pytest.mark.parametrize("lock", [True, False])
def test_numpy_sees_them_without_a_copy(lock: bool) -> None:
    array = mp.Array("i", range(4), lock=lock)
    plain, shared = np.asarray(array), sa.asarray(array)
    assert isinstance(shared, sa.SharedArray)
    assert shared.is_shared
    shared += 1
    assert plain.tolist() == array[:] == [1, 2, 3, 4]
    assert sa.asarray(array, dtype=float).dtype == float
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(shared)), shared)
    value = mp.Value("d", 2.5, lock=lock)
    sa.asarray(value)[...] = 4
    assert value.value == 4.0


def test_names_find_them_again(elsewhere: Callable[..., Any]) -> None:
    value = mp.Value("i", 3, name="count")
    with pytest.raises(SegmentExistsError):
        mp.Value("i", name="count")
    other = mp.Value("i", 99, name="count", if_exists="open")
    other.value += 1
    assert value.value == 4
    assert sa.open("count").tolist() == 4
    assert elsewhere("__import__('shmarray').multiprocessing.Value('i', name='count', if_exists='open').value") == 4
    with pytest.raises(ValueError, match="float64"):
        mp.Value("d", name="count", if_exists="open")
    with pytest.raises(TypeError):
        mp.Value("i", "no number", name="other")
    assert [info.name for info in sa.registry.list()] == ["count"]


def test_an_array_that_is_kept_lives_on() -> None:
    mp.Array("h", [1, 2], name="kept", keep=True)
    assert mp.Array("h", 2, name="kept", if_exists="open")[:] == [1, 2]
    sa.unlink("kept")


def test_strings_and_slices() -> None:
    text = mp.Array("c", 8)
    text.value = b"abc"
    assert (text.value, text.raw) == (b"abc", b"abc" + bytes(5))
    text.raw = b"12345678"
    assert text[2:4] == b"34"
    text[0:2] = b"xy"
    assert text.value == b"xy345678"
    empty = mp.Array("i", 0)
    assert (len(empty), empty[:]) == (0, [])


def test_the_lock_excludes_others_and_is_the_segments(elsewhere: Callable[..., Any]) -> None:
    value = mp.Value("i")
    with value, value.get_lock():  # recursive
        assert not elsewhere("args[0].acquire(block=False)", value)
        assert not elsewhere("args[0].get_lock().acquire(timeout=0.01)", value)
        value.value += 1
    assert elsewhere("(args[0].acquire(block=False), args[0].release())[0]", value)
    with sa.asarray(value).lock():
        assert not elsewhere("args[0].acquire(False)", value)
    with pytest.raises(AssertionError, match="not owned"):
        value.release()


@pytest.mark.parametrize("method", ["fork", "spawn"])  # a forkserver's children get it as spawned ones do
def test_processes_count_together(method: str) -> None:
    context = mp.get_context(method)
    value = context.Value("i")
    process = context.Process(target=add, args=(value, 500))
    process.start()
    add(value, 500)
    process.join()
    assert value.value == 1000


def add(value: Any, times: int) -> None:
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def test_a_lock_whose_holder_was_killed_is_free_and_says_so() -> None:
    value = mp.Value("i", 1)
    process = mp.Process(target=hold_and_die, args=(value,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert value.value == 2  # does not wait for the dead
    process = mp.Process(target=hold_and_die, args=(value,))
    process.start()
    process.join()
    assert value.acquire(timeout=20)
    assert value.get_lock().recovered
    value.release()


def hold_and_die(value: Any) -> None:
    value.acquire()
    value.value += 1
    os.kill(os.getpid(), signal.SIGKILL)


def test_other_locks_are_used_as_they_are() -> None:
    lock = mp.Lock()
    value = mp.Value("i", 5, lock=lock)
    assert value.get_lock() is lock
    with value:
        assert not lock.acquire(block=False)
    with pytest.raises(AttributeError, match="acquire"):
        mp.Value("i", lock="none")


def test_copies_are_new_objects() -> None:
    raw = mp.RawArray("i", [1, 2])
    for other in (copy.copy(raw), copy.deepcopy(raw), copy_ctypes(raw)):
        other[0] = 9
        assert sa.asarray(other).is_shared
    assert raw[:] == [1, 2]
    assert synchronized(raw)[0] == 1
    assert copy_ctypes(ctypes.c_int(3)).value == 3


def test_types_that_mean_nothing_elsewhere_are_refused() -> None:
    class Linked(ctypes.Structure):
        _fields_ = [("next", ctypes.POINTER(ctypes.c_int))]

    for kind in (ctypes.c_void_p, ctypes.c_char_p, ctypes.py_object, ctypes.POINTER(ctypes.c_int), Linked):
        with pytest.raises(TypeError, match="address"):
            mp.RawValue(kind)
    with pytest.raises(ValueError, match="typecode"):
        mp.Value("x")
    with pytest.raises(ValueError, match="size"):
        mp.Array("i", -1)
