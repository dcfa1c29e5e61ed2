"""What goes wrong in a pool: workers that are killed, tasks that block, raise, or cannot be sent."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmarray import multiprocessing as mp
from shmarray.errors import WorkerDiedError
from shmarray.multiprocessing import member
from tests.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]


def kill_self(number: int) -> None:
    faulthandler.disable()  # it would fill the report with tracebacks that are none
    os.kill(os.getpid(), number)
    time.sleep(60)


def die_at(x: int, bad: int) -> int:
    if x == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def die_once(path: str) -> str:
    """Leave a mark and die; with the mark there, live."""
    if os.path.exists(path):
        return "alive"
    Path(path).touch()
    os._exit(3)


def wait_for(path: str) -> bool:
    while not os.path.exists(path):
        time.sleep(0.001)
    return True


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_killed_worker_fails_its_task_and_is_replaced(number: int) -> None:
    with mp.Pool(2) as pool:
        before = {worker.pid for worker in pool.workers}
        with pytest.raises(WorkerDiedError, match="kill_self") as caught:
            pool.apply(kill_self, (number,))
        error = caught.value
        assert error.signal == number
        assert error.pid in before
        assert error.task.endswith("kill_self")
        assert pickle.loads(pickle.dumps(error)).pid == error.pid
        wait_until(lambda: len(pool.workers) == 2 and error.pid not in {worker.pid for worker in pool.workers})
        assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]


def test_exits_in_a_task_are_named_with_their_status() -> None:
    with mp.Pool(1) as pool:
        for leave, status in ((sys.exit, 5), (os._exit, 7)):
            with pytest.raises(WorkerDiedError, match=f"exited with status {status}") as caught:
                pool.apply(leave, (status,))
            assert caught.value.exitcode == status
            assert caught.value.signal is None


def test_a_death_fails_its_own_task_and_no_other() -> None:
    with mp.Pool(2) as pool:
        assert pool.map(abs, range(500), chunksize=1) == list(range(500))  # known to be short: sent by the dozen
        results = [pool.apply_async(die_at, (x, 37)) for x in range(100)]
        for x, result in enumerate(results):
            if x == 37:
                with pytest.raises(WorkerDiedError):
                    result.get(60)
            else:
                assert result.get(60) == x * x
        pieces = pool.imap(lambda x: die_at(x, 5), range(10))
        found = []
        for _ in range(10):
            try:
                found.append(next(pieces))
            except WorkerDiedError as error:
                found.append(error.index)
        assert found == [5 if x == 5 else x * x for x in range(10)]


def test_a_map_over_many_short_tasks_loses_none_to_a_death() -> None:
    with mp.Pool(2) as pool:
        results = []
        for item in pool.imap_unordered(lambda x: x, range(300)):
            if item == 100:  # between two of many short tasks, or in one
                os.kill(pool.workers[0].pid, signal.SIGKILL)
            results.append(item)
            if item == 299:
                break
        assert len(set(results)) == len(results)
        assert pool.apply(abs, (-1,)) == 1


def test_retries_do_a_task_again(tmp_path: Path) -> None:
    with mp.Pool(2, retries=1) as pool:
        assert pool.apply(die_once, (str(tmp_path / "one"),)) == "alive"
    with mp.Pool(1) as pool:
        assert pool.map(die_once, [str(tmp_path / "two")], retries=1) == ["alive"]
        with pytest.raises(WorkerDiedError, match="worker number 2"):
            pool.apply(os._exit, (1,), retries=1)


def test_a_task_that_waits_for_a_later_one_does_not_keep_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with mp.Pool(2) as pool:
        # So short that they are sent many at a time, to one worker.
        pool.map(lambda path: Path(path).name, ["x"] * 500, chunksize=1)

        def step(number: int, path: str = str(mark)) -> int:
            if number == 250:
                while not os.path.exists(path):
                    time.sleep(0.001)
            if number == 251:
                Path(path).touch()
            return number

        assert pool.map(step, range(500), chunksize=1) == list(range(500))


def test_results_of_short_tasks_do_not_wait_for_a_long_one(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    with mp.Pool(1) as pool:
        pool.map(os.path.exists, [mark] * 300, chunksize=1)
        short = [pool.apply_async(os.path.exists, (mark,)) for _ in range(20)]
        long = pool.apply_async(wait_for, (mark,))
        assert not any(result.get(30) for result in short)
        assert not long.ready()
        Path(mark).touch()
        assert long.get(30)


def test_an_initializer_that_raises_fails_calls_instead_of_hanging() -> None:
    with mp.Pool(2, initializer=int, initargs=("no number",)) as pool:
        with pytest.raises(WorkerDiedError, match="initializer") as caught:
            pool.map(abs, range(10))
        assert isinstance(caught.value.__cause__, ValueError)


def test_what_cannot_be_unpickled_in_the_pool_is_an_error() -> None:
    def returns_a_trap() -> object:
        class Trap:
            def __reduce__(self) -> tuple[object, ...]:
                return int, ("no number",)

        return Trap()

    with mp.Pool(1) as pool:
        with pytest.raises(ValueError, match="no number"):
            pool.apply(returns_a_trap)
        assert pool.apply(abs, (-1,)) == 1


class ExitsWhenRead:
    def __reduce__(self) -> tuple[object, ...]:
        return sys.exit, (3,)


class InterruptsWhenWritten:
    def __reduce__(self) -> tuple[object, ...]:
        raise KeyboardInterrupt("from a pickle")


def test_whatever_a_pickle_raises_concerns_its_own_task_alone() -> None:
    with mp.Pool(1) as pool:
        read = pool.apply_async(ExitsWhenRead)
        wait_until(read.ready)  # the pool's own thread has read it, and goes on
        with pytest.raises(SystemExit):
            read.get()
        with pytest.raises(mp.pool.MaybeEncodingError, match="from a pickle"):
            pool.apply(InterruptsWhenWritten)
        written = pool.map_async(abs, [-1, InterruptsWhenWritten(), -2], chunksize=1)
        wait_until(written.ready)
        with pytest.raises(KeyboardInterrupt):
            written.get()
        following = pool.apply_async(abs, (-1,))
        wait_until(following.ready)
        assert following.get() == 1


def test_workers_that_cannot_import_the_program_are_told_of_the_guard() -> None:
    with mp.get_context("forkserver").Pool(1, initializer=os._exit, initargs=(1,)) as pool:
        with pytest.raises(WorkerDiedError, match='status 1.*`if __name__ == "__main__":`'):
            pool.apply(abs, (-1,))


def test_a_worker_that_begins_is_deaf_to_ctrl_c_and_outlives_a_forkserver_that_was_not() -> None:
    class Beginning:
        _start_method = "forkserver"
        masks: list[set[int]] = []  # noqa: RUF012

        def start(self) -> None:
            self.masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            if len(self.masks) == 1:
                raise ConnectionRefusedError

    member._start(Beginning())  # type: ignore[arg-type]
    assert [signal.SIGINT in mask for mask in Beginning.masks] == [True, True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_worker_that_was_killed_for_want_of_memory_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "why_killed", lambda pid, before: f"by the killer of {pid}, as the log says")
    with mp.Pool(1) as pool:
        with pytest.raises(WorkerDiedError, match="SIGKILL, by the killer of [0-9]+, as the log says") as caught:
            pool.apply(kill_self, (signal.SIGKILL,))
        assert caught.value.out_of_memory


def test_terminate_ends_calls_that_are_under_way() -> None:
    pool = mp.Pool(2)
    result = pool.map_async(time.sleep, [60, 60, 60])
    raised = []

    def wait() -> None:
        try:
            result.get()
        except WorkerDiedError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    pool.terminate()
    thread.join(30)
    assert len(raised) == 1
    with pytest.raises(ValueError, match="not running"):
        pool.apply(abs, (1,))
    pool.join()


@pytest.mark.filterwarnings("ignore:unclosed running multiprocessing pool:ResourceWarning")
def test_a_pool_that_nobody_has_any_more_ends_with_its_last_call() -> None:
    for close in (True, False):
        pool = mp.Pool(1)
        called_back: list[list[None]] = []
        first = pool.map_async(time.sleep, [0.05], callback=called_back.append)
        last = pool.map_async(time.sleep, [0.05] * 2)
        if close:
            pool.close()
        del pool
        assert (first.get(60), last.get(60), called_back) == ([None], [None] * 2, [[None]])
        wait_until(lambda: not multiprocessing.active_children())


def test_a_worker_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    from shmarray.multiprocessing import crew

    monkeypatch.setattr(crew, "_TERMINATION_GRACE_S", 0.2)
    pool = mp.Pool(1, initializer=signal.signal, initargs=(signal.SIGTERM, signal.SIG_IGN))
    assert pool.apply(abs, (-1,)) == 1
    pool.terminate()
    pool.join()


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_end_with_a_parent_that_is_killed(method: str) -> None:
    program = f"""
import os, signal, time
from shmarray import multiprocessing as mp
if __name__ == "__main__":
    pool = mp.get_context({method!r}).Pool(2)
    pool.map(abs, range(4))
    pool.map_async(time.sleep, [60] * 2)
    print(*(worker.pid for worker in pool.workers), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run_program(program)
    assert done.returncode == -signal.SIGKILL, done.stderr
    for pid in map(int, done.stdout.split()):
        wait_until(lambda pid=pid: not is_running(pid))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_ctrl_c_ends_a_call_and_the_pool_goes_on() -> None:
    program = """
import os, signal, threading, time
from shmarray import multiprocessing as mp
os.setpgid(0, 0)
def interrupt(kill):
    while not any(worker.state == "busy" for worker in pool.workers):
        time.sleep(0.001)
    kill(os.getpid(), signal.SIGINT)
with mp.Pool(2) as pool:
    for kill in (os.kill, os.killpg):  # this process alone, and with its workers as in a terminal
        threading.Thread(target=interrupt, args=(kill,)).start()
        try:
            pool.map(time.sleep, [0.2] * 1000, chunksize=1)
        except KeyboardInterrupt:
            print("interrupted")
        print(pool.map(abs, [-1, -2]))
        while any(worker.state == "busy" for worker in pool.workers):
            time.sleep(0.001)
print("over")
"""
    done = run_program(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["interrupted", "[1, 2]"] * 2 + ["over"], done.stdout + done.stderr
    assert not done.stderr


def test_a_forked_child_cannot_use_the_pool_and_does_it_no_harm() -> None:
    with mp.Pool(2) as pool:
        pid = os.fork()
        if pid == 0:
            try:
                pool.apply(abs, (-1,))
            except ValueError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert pool.map(abs, [-1, -2]) == [1, 2]


def test_a_storm_of_kills_loses_no_result(storm_s: float) -> None:
    """With retries every call comes to its result, whatever workers were at when they were killed."""
    choose = random.Random(5)
    stopped = threading.Event()

    def kill() -> None:
        while not stopped.wait(choose.uniform(0.005, 0.08)):
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(choose.choice(pool.workers).pid, signal.SIGKILL)

    pool = mp.Pool(3, retries=50)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        until = time.monotonic() + storm_s / 10
        while time.monotonic() < until:
            count = choose.randrange(1, 600)
            size = choose.choice((1, 1, 3, 10))
            assert pool.map(square, range(count), chunksize=size) == [x * x for x in range(count)]
            results = [pool.apply_async(square, (x,)) for x in range(50)]
            assert [result.get(60) for result in results] == [x * x for x in range(50)]
            assert sorted(pool.imap_unordered(square, iter(range(100)))) == [x * x for x in range(100)]
    finally:
        stopped.set()
        killer.join()
        pool.close()
        pool.join()


def square(x: int) -> int:
    return x * x


def test_pools_that_ended_were_never_made_or_are_forgotten_are_nothing_to_complain_about() -> None:
    program = """
import os
from shmarray import multiprocessing as mp
ended = mp.Pool(1)
ended.terminate()
ended.join()
pid = os.fork()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
def make_one():
    mp.Pool(1)
forgotten = mp.Pool(1)
try:
    forgotten.apply(make_one)
except AssertionError as error:
    print(error)
print(forgotten.map(abs, [-1, -2]))
"""
    done = run_program(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert "daemonic" in done.stdout
    assert done.stdout.endswith("[1, 2]\n")


def test_a_callback_can_do_all_but_wait_for_its_own_pool(capfd: pytest.CaptureFixture[str]) -> None:
    for step in ("close", "terminate"):
        pool = mp.Pool(1)
        result = pool.apply_async(abs, (-1,), callback=lambda _, pool=pool, step=step: getattr(pool, step)())
        result.wait(60)
        pool.join()
    pool = mp.Pool(1)
    result = pool.apply_async(abs, (-1,), callback=lambda _: (pool.close(), pool.join()))
    assert result.get(60) == 1
    pool.join()
    assert "a callback cannot join its own pool" in capfd.readouterr().err


def test_all_that_comes_while_ctrl_c_is_pressed_all_the_time() -> None:
    program = """
import os, random, signal, threading, time
from shmarray import multiprocessing as mp
choose = random.Random(3)
stopped = threading.Event()
def press():
    while not stopped.wait(choose.uniform(0.001, 0.03)):
        os.kill(os.getpid(), signal.SIGINT)
def some():
    assert pool.map(abs, range(200), chunksize=1) == list(range(200))
    assert list(pool.imap(abs, range(200))) == list(range(200))
    assert sorted(pool.imap_unordered(abs, iter(range(50)))) == list(range(50))
    assert [result.get() for result in [pool.apply_async(abs, (i,)) for i in range(50)]] == list(range(50))
pool = mp.Pool(2)
some()
pressed = 0
thread = threading.Thread(target=press)
thread.start()
while pressed < 60:
    try:
        while True:
            some()
    except KeyboardInterrupt:
        pressed += 1
while True:
    try:
        stopped.set()
        thread.join()
        break
    except KeyboardInterrupt:
        pass
some()
pool.close()
pool.join()
print("over")
"""
    done = run_program(program)
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr
    assert not done.stderr


def test_whatever_an_iterable_raises_is_raised_in_its_place() -> None:
    class Unusual(BaseException):
        pass

    def slowly(error: BaseException) -> Iterator[int]:
        yield 1
        raise error

    with mp.Pool(1) as pool:
        for error in (KeyError("here"), Unusual(), SystemExit(3)):
            results = pool.imap(abs, slowly(error))
            assert next(results) == 1
            with pytest.raises(type(error)):
                results.next(60)
            with pytest.raises(StopIteration):
                next(results)
            with pytest.raises(type(error)):
                pool.map(abs, slowly(error))
