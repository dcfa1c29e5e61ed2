"""Calls of a pool beyond the original's own tests: functions by value, arrays, start methods, progress, threads."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray import multiprocessing as mp
from shmarray.multiprocessing import work
from shmarray.multiprocessing.payloads import LARGE_NBYTES, dumps

ROOT = Path(__file__).resolve().parents[2]
METHODS = ["fork", "spawn", "forkserver"]

inherited = "as imported"


def look_up(_: Any) -> str:
    return inherited


def set_inherited(value: str) -> None:
    global inherited
    inherited = value


def take(lock: Any) -> None:
    global held
    held = lock


def use(_: int) -> bool:
    with held:
        return True


def test_lambdas_closures_and_local_classes_work() -> None:
    factor = 3

    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

    with mp.Pool(2) as pool:
        assert pool.map(lambda x: factor * x, range(5)) == [0, 3, 6, 9, 12]
        assert pool.apply(lambda local: local.value, (Local(7),)) == 7
        assert list(pool.imap(lambda x: -x, iter(range(3)))) == [0, -1, -2]
        assert pool.starmap(lambda x, y: x + y, [(1, 2), (3, 4)]) == [3, 7]


def test_functions_of_the_main_program_work_whenever_they_were_made() -> None:
    program = """
from shmarray import multiprocessing as mp
limit = 0
def older(x): return x > limit
def set_limit(value):
    global limit
    limit = value
class Point:
    def __init__(self, x): self.x = x
with mp.Pool(1, set_limit, (5,)) as pool:
    print(pool.map(older, [4, 6]))             # by name: it sees what the initializer has set
    def older(x): return ("newer", Newer(x).x)  # and after that by value
    class Newer(Point): pass
    print(pool.apply(older, (1,)))
    print(type(pool.apply(lambda x: Newer(x), (1,))).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == ["[False, True]", "('newer', 1)", "Newer"], done.stderr


@pytest.mark.parametrize("method", METHODS)
def test_the_start_method_is_honoured(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "inherited", "as it was")
    context = mp.get_context(method)
    a = sa.zeros(100_000)
    with context.Pool(1, initializer=take, initargs=(context.Lock(),)) as pool:
        assert pool.apply(look_up, (0,)) == ("as it was" if method == "fork" else "as imported")
        assert pool.map(use, range(4)) == [True] * 4
        result = pool.apply(add_one, (a[::2],))
        assert isinstance(result, sa.SharedArray)
    np.testing.assert_array_equal(a[::2], 1)
    np.testing.assert_array_equal(result, 2)


def add_one(view: Any) -> Any:
    view += 1
    return sa.array(view + 1)


@pytest.mark.parametrize("shape", [(3,), (300, 100), (1, 200_000)])
def test_plain_arrays_arrive_as_they_were_and_can_be_written(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=float).reshape(shape)
    array.flags.writeable = False

    def change(given: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any]]:
        given += 1
        return type(given).__name__, given

    with mp.Pool(1) as pool:
        for variant in (array, array.T, array[..., ::-2]):
            kind, result = pool.apply(change, (variant,))
            assert kind == "ndarray"
            np.testing.assert_array_equal(result, variant + 1)
            result += 1


def test_large_arrays_are_not_in_the_pickle() -> None:
    large, small = np.zeros(LARGE_NBYTES, "u1"), np.zeros(LARGE_NBYTES - 1, "u1")
    assert len(dumps([large, large]).data) < 1000
    assert dumps([large, large]).nbytes == LARGE_NBYTES
    assert dumps(small).nbytes == 0


def test_a_record_tells_of_results_of_more_than_4_gib() -> None:
    assert len(work.pack_record(0, work.Status.RETURNED, b"")) == work._RECORD.size
    assert work._RECORD.unpack(work._RECORD.pack(7, work.Status.RETURNED, 1 << 33)) == (7, 0, 1 << 33)


def test_arrays_stay_in_the_pickle_when_shared_memory_is_short() -> None:
    large = np.ones(10 * LARGE_NBYTES, "u1")
    with mp.Pool(1) as pool, sa.config.override(max_nbytes=1):
        np.testing.assert_array_equal(pool.apply(np.add, (large, 1)), large + 1)


def test_what_a_worker_keeps_is_not_written_over() -> None:
    def keep(array: np.ndarray[Any, Any]) -> None:
        sys.kept = [*getattr(sys, "kept", []), array]

    with mp.Pool(1) as pool:
        for value in range(3):
            pool.apply(keep, (np.full(100_000, value),))
        assert pool.apply(lambda: [int(array.min()) for array in sys.kept]) == [0, 1, 2]


def test_shared_arrays_of_results_are_kept_by_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(sa.config), "handle_ttl_s", 0.0)  # a handle that is kept by time is lost at once
    with mp.Pool(2) as pool:
        results = pool.map(lambda x: (sa.full(10, x), sa.full(10, -x)), range(40), chunksize=1)
        assert [int(up[0] + down[0]) for up, down in results] == [0] * 40
        with pytest.raises(ValueError, match="in an error") as caught:
            pool.apply(raise_with, (3,))
        assert caught.value.args[1].sum() == 30


def raise_with(x: int) -> None:
    raise ValueError("in an error", sa.full(10, x))


def test_many_shared_arrays_of_one_result_arrive() -> None:
    with mp.Pool(1) as pool:
        assert [int(array[0]) for array in pool.apply(lambda: [sa.full(10, x) for x in range(9)])] == list(range(9))


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    with mp.Pool(2) as pool:
        pool.map(abs, range(40), chunksize=4, progress=lambda done, total: told.append((done, total)))
        assert told[-1] == (40, 40)
        assert told == sorted(told)
        told.clear()
        assert list(pool.imap(abs, range(3), progress=lambda *now: told.append(now))) == [0, 1, 2]
        assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_bar_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with mp.Pool(1) as pool:
        pool.map(abs, range(4), progress=True)
    assert "4/4" in capsys.readouterr().out


def test_callbacks_run_before_the_result_is_ready_and_their_errors_harm_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[Any] = []
    with mp.Pool(1) as pool:
        result = pool.apply_async(abs, (-3,), callback=seen.append)
        assert result.get() == 3
        assert seen == [3]
        pool.apply_async(abs, (-3,), callback=lambda value: 1 / 0).get()
        assert pool.apply_async(abs, (-4,), callback=lambda value: seen.append(pool.apply(abs, (-9,)))).get() == 4
        assert seen == [3, 9]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_many_threads_use_one_pool() -> None:
    failures: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for number in range(start, start + 20):
                assert pool.apply(abs, (-number,)) == number
                assert pool.map(abs, range(-3, number % 7)) == [abs(x) for x in range(-3, number % 7)]
        except BaseException as error:
            failures.append(error)

    with mp.Pool(2) as pool:
        threads = [threading.Thread(target=work, args=(100 * number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failures


def test_an_endless_iterable_is_taken_no_further_than_needed() -> None:
    taken = 0

    def numbers() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with mp.Pool(2) as pool:
        results = pool.imap(abs, numbers())
        assert [next(results) for _ in range(10)] == list(range(1, 11))
        assert pool.apply(abs, (-1,)) == 1


def test_close_and_join_wait_for_what_there_is() -> None:
    pool = mp.Pool(2, maxtasksperchild=2)
    results = [pool.apply_async(abs, (-x,)) for x in range(20)]
    fed = pool.imap(abs, (x for x in range(20)), chunksize=3)
    pool.close()
    pool.join()
    assert [result.get() for result in results] == list(range(20))
    assert list(fed) == list(range(20))
    assert not multiprocessing.active_children()


def test_maxtasksperchild_is_kept_to_the_number() -> None:
    with mp.Pool(1, maxtasksperchild=3) as pool:
        pids = pool.map(lambda _: os.getpid(), range(9), chunksize=1)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        mp.Pool(0)
    with pytest.raises(TypeError, match="callable"):
        mp.Pool(1, initializer=1)
    with pytest.raises(ValueError, match="retries"):
        mp.Pool(1, retries=-1)
    with mp.Pool(1) as pool:
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(abs, [1], chunksize=0)
        with pytest.raises(ValueError, match="Chunksize"):
            pool.imap(abs, [1], chunksize=0)
        with pytest.raises(NotImplementedError):
            pool.apply(id, (pool,))


def test_it_is_a_pool_of_the_standard_library_too() -> None:
    with sa.Pool(1) as pool:
        assert isinstance(pool, multiprocessing.pool.Pool)
        assert [worker.state in ("starting", "idle") for worker in pool.workers] == [True]


def test_kernels_take_it_for_its_lanes() -> None:
    a = sa.array(np.arange(32), chunks=4)
    with sa.Pool(1) as pool:
        sa.map_chunks(increment, a, out=a, jit=False, pool=pool)
        assert pool.engine.lanes == 1
        pids = [worker.pid for worker in pool.engine.workers]
    np.testing.assert_array_equal(a, np.arange(32) + 1)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    with pytest.raises(ValueError, match="not running"):
        sa.map_chunks(increment, a, out=a, jit=False, pool=pool)


def increment(chunk: Any) -> Any:
    return chunk + 1
