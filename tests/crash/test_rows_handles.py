"""Handles on their way, and locks over a fork: rows 47 and 49 of the fault table.

What is promised (docs/reliability.md): a segment whose handle was pickled stays until one process has attached or
`config.handle_ttl_s` have passed, whatever becomes of the sender; after that, `SegmentNotFoundError` and never a hang.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

import shmarray as sa
from shmarray import registry
from shmarray.errors import SegmentNotFoundError
from tests.conftest import segment_files
from tests.crash.prelude import PRELUDE
from tests.processes import run_python, wait_until

N = 1000


def run(code: str, *arguments: str, **environ: str) -> str:
    return run_python(PRELUDE + code, *arguments, **environ).stdout


def numbers() -> sa.SharedArray:
    return sa.array(np.arange(N))


# ---------------------------------------------------------------- the sender


@pytest.mark.parametrize("end", ["drops it", "ends", "is killed"])
@pytest.mark.parametrize("name", [None, "x"])
def test_row_47_the_handle_outlives_its_sender(namespace: str, tmp_path: Path, end: str, name: str | None) -> None:
    sender = f"""
import os, pickle, signal, sys
import numpy as np, shmarray as sa
a = sa.array(np.arange({N}), name={name!r})
with open(sys.argv[1], "wb") as file:
    pickle.dump(a[::2], file)
if sys.argv[2] == "drops it":
    del a
    sa.registry.trim(); sa.registry.gc()
if sys.argv[2] == "is killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "handle"
    if end == "is killed":
        with pytest.raises(AssertionError):
            run_python(sender, str(path), end)
    else:
        run_python(sender, str(path), end)
    registry.gc()
    assert registry.usage().in_flight > 0
    with open(path, "rb") as file:
        received = pickle.load(file)
    assert np.array_equal(received, np.arange(N)[::2])
    assert registry.usage().in_flight == 0
    del received
    registry.trim()
    assert segment_files(namespace) == []
    with open(path, "rb") as file, pytest.raises(SegmentNotFoundError, match="keep the array until every receiver"):
        pickle.load(file)  # a pickle on disk is a reference, not data


def test_row_47_too_late_is_an_error_with_the_reason_and_nothing_stays(namespace: str) -> None:
    with sa.config.override(handle_ttl_s=0.05):
        text = pickle.dumps(numbers())
        wait_until(lambda: registry.usage().in_flight == 0)
    registry.gc()
    assert segment_files(namespace) == []
    with pytest.raises(SegmentNotFoundError, match="handle_ttl_s"):
        pickle.loads(text)


# ---------------------------------------------------------------- the receiver


def test_row_47_a_receiver_killed_at_any_step_leaves_the_handle_or_nothing() -> None:
    code = """
import pickle
config.handle_ttl_s = 0.2
def send(out):
    os.write(out, pickle.dumps(made(None)))

def receive(text):
    assert set(bytes(pickle.loads(text).buf)) == {7}

read, write = os.pipe()
for n in range(1, 100):
    assert wait(fork(send, write)) == 0
    text = os.read(read, 10_000)
    status = wait(fork(receive, text, failpoint=f"attach:{n}:kill"))
    try:
        receive(text)    # not taken yet: it is for the next
    except SegmentNotFoundError:
        pass
    collect()            # when its time has passed, at the latest
    if status == 0:
        break
    assert status == -signal.SIGKILL, status
print(n - 1)
"""
    assert int(run(code)) >= 5


# ---------------------------------------------------------------- carriers


def total(array: Any) -> float:
    return float(np.asarray(array).sum())


def doubled(array: Any) -> Any:
    return array * 2 + sa.zeros(array.shape)  # a shared result, dropped by its maker once it is sent


def put_and_end(queue: Any, how: str) -> None:
    array = sa.array(np.arange(N), name=None)
    queue.put(array)
    del array
    queue.close()
    queue.join_thread()
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("how", ["ended", "killed"])
def test_row_47_queues_of_multiprocessing(namespace: str, how: str) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    sender = context.Process(target=put_and_end, args=(queue, how))
    sender.start()
    sender.join(30)
    assert sender.exitcode == (0 if how == "ended" else -signal.SIGKILL)
    received = queue.get(timeout=30)
    assert np.array_equal(received, np.arange(N))
    del received
    queue.close()
    queue.join_thread()
    sender.close()
    registry.trim()
    assert segment_files(namespace) == []


def test_row_47_pipes_both_ways_while_either_side_drops(namespace: str) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def answer() -> None:
        ours.close()
        while True:
            try:
                array = theirs.recv()
            except EOFError:
                return
            theirs.send(array[::-1])
            del array

    process = context.Process(target=answer)
    process.start()
    theirs.close()
    for turn in range(20):
        array = numbers() + turn + sa.zeros(N)
        ours.send(array)
        del array
        back = ours.recv()
        assert np.array_equal(back, np.arange(N)[::-1] + turn)
        del back
    ours.close()
    process.join(30)
    assert process.exitcode == 0
    process.close()
    registry.trim()
    registry.gc()
    assert segment_files(namespace) == []


def test_row_47_pool_tasks_of_the_standard_library_and_their_results(namespace: str) -> None:
    array = numbers()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert list(executor.map(total, [array, array[::2]])) == [np.arange(N).sum(), np.arange(0, N, 2).sum()]
        results = [executor.submit(doubled, array).result() for _ in range(3)]
        assert all(np.array_equal(result, 2 * np.arange(N)) for result in results)
        # Sent, and dropped before the worker has come to it: the task holds the only reference, as a handle.
        assert executor.submit(total, numbers()).result() == np.arange(N).sum()
    del array, results
    registry.trim()
    registry.gc()
    assert segment_files(namespace) == []


def test_row_47_arrays_that_a_kernel_carries_in_its_closure(namespace: str, pool: sa.Pool) -> None:
    table = numbers()

    def make(table: Any) -> Any:
        @sa.chunkwise(jit=False)
        def add_table(chunk):  # type: ignore[no-untyped-def]
            chunk += table[:3]

        return add_table

    add_table = make(table)
    del table
    array = sa.zeros(3)
    add_table(array, pool=pool)
    assert array.tolist() == [0, 1, 2]


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps], ids=["pickle", "cloudpickle"])
def test_row_47_what_joblib_and_dask_serialise_with(namespace: str, dumps: Any) -> None:
    """Both hand arguments to cloudpickle (loky) or pickle with protocol 5 and out-of-band buffers (distributed)."""
    array = numbers()
    with_function = dumps((array, total) if dumps is pickle.dumps else (array, lambda: total(array[1:])))
    assert len(with_function) < 4000, "the bytes of the array travel"
    same, function = pickle.loads(with_function)
    assert same.shm.key == array.shm.key
    assert (function(same) if dumps is pickle.dumps else function()) == np.arange(N).sum()
    buffers: list[pickle.PickleBuffer] = []
    text = dumps(array[::3], protocol=5, buffer_callback=buffers.append)
    assert buffers == []
    assert np.array_equal(pickle.loads(text, buffers=buffers), np.arange(0, N, 3))


CARRIERS = {
    "joblib": "joblib.Parallel(2)(joblib.delayed(total)(part) for part in parts)",
    "dask": "dask.compute(*[dask.delayed(total)(part) for part in parts], scheduler='processes', num_workers=2)",
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_row_47_other_carriers(namespace: str, carrier: str) -> None:
    pytest.importorskip(carrier)
    # A program of its own: their workers wait for more until it ends.
    code = f"""
import {carrier}
import numpy as np
import shmarray as sa
def total(part):
    part[0] += 1
    return float(part.sum())
if __name__ == "__main__":
    array = sa.array(np.arange(1000.0))
    parts = [array[i::2] for i in range(2)]
    print(*{CARRIERS[carrier]})
    print(*array[:2])
    array.unlink()  # dask pickles what it never sends, too: a handle that nobody takes
"""
    assert run_python(code).stdout == "249501.0 250001.0\n1.0 2.0\n"
    assert segment_files(namespace) == []


# ---------------------------------------------------------------- locks over a fork


def test_row_49_a_child_forked_under_a_users_lock_holds_nothing() -> None:
    code = """
import shmarray as sa
from shmarray.errors import LockTimeoutError
a = sa.zeros(3)
def child():
    try:
        with a.lock(timeout=0.05):
            raise AssertionError("the lock came with the fork")
    except LockTimeoutError:
        pass
with a.lock():
    assert wait(fork(child)) == 0
    with a.lock(timeout=5):
        pass            # still ours, and recursive
def later():
    with a.lock(timeout=20):
        a[0] = 1
assert wait(fork(later)) == 0
assert a[0] == 1
"""
    run(code)


def test_row_49_two_threads_of_one_process_exclude_each_other() -> None:
    array = sa.zeros(1, "i8")

    def count() -> None:
        for _ in range(2000):
            with array.lock():
                array[0] = array[0] + 1

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert array[0] == 4000
