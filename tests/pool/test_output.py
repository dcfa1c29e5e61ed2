"""What workers print and log reaches the caller's streams and loggers before the call returns, in order."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest

import shmarray as sa
from shmarray.pool import logs
from tests.processes import run_python


def arrays(n_chunks=6):
    a = sa.array(np.arange(n_chunks), chunks=1)
    return a, sa.empty(a.shape, a.dtype, chunks=1)


def test_prints_reach_standard_output_before_the_call_returns_in_order_for_each_worker(pool, capsys):
    a, b = arrays(100)

    @sa.chunkwise(jit=False)
    def talk(chunk):
        print("at", os.getpid(), int(chunk[0]))
        print("and", end=" ")
        print("done", int(chunk[0]), file=sys.stderr)
        return chunk

    for _ in range(2):
        talk(a, out=b, pool=pool)
        captured = capsys.readouterr()
        by_worker = {}
        for line in captured.out.replace("and ", "").splitlines():
            _, pid, number = line.split()
            by_worker.setdefault(pid, []).append(int(number))
        assert sorted(chain.from_iterable(by_worker.values())) == list(range(100))
        assert all(numbers == sorted(numbers) for numbers in by_worker.values())
        assert captured.out.count("and ") == 100
        assert sorted(int(line.split()[1]) for line in captured.err.splitlines()) == list(range(100))


def test_writes_below_python_reach_the_caller_too(pool, capsys):
    a, b = arrays()

    @sa.chunkwise(jit=False)
    def write(chunk):
        import ctypes

        os.write(1, b"raw %d\n" % chunk[0])
        ctypes.CDLL(None).printf(b"from C %d\n", ctypes.c_int(chunk[0]))
        subprocess.run(["echo", "child", str(chunk[0])], check=True)
        return chunk

    for _ in range(2):
        write(a, out=b, pool=pool)
        lines = capsys.readouterr().out.splitlines()
        for kind in ("raw", "from C", "child"):
            assert sorted(line for line in lines if line.startswith(kind)) == [f"{kind} {k}" for k in range(6)]


def test_compiled_kernels_print(pool, capsys):
    a = sa.array(np.arange(6), chunks=1)

    @sa.chunkwise
    def talk(chunk):
        print("compiled", chunk[0])

    for _ in range(2):
        talk(a, pool=pool)
        assert sorted(capsys.readouterr().out.splitlines()) == [f"compiled {k}" for k in range(6)]


def test_text_that_is_not_ascii_arrives_whole(pool, capsys):
    a, b = arrays(50)
    text = "dispatched \N{GREEK SMALL LETTER ALPHA}\N{SNOWMAN}\N{PILE OF POO} " * 40

    @sa.chunkwise(jit=False)
    def talk(chunk):
        print(text)
        return chunk

    talk(a, out=b, pool=pool)
    assert set(capsys.readouterr().out.splitlines()) == {text}


def test_more_output_than_pipes_hold_delays_nobody_for_ever(pool, capsys):
    a, b = arrays(4)

    @sa.chunkwise(jit=False)
    def flood(chunk):
        for _ in range(600):
            print("x" * 999)
        return chunk

    flood(a, out=b, pool=pool)
    assert len(capsys.readouterr().out) == 4 * 600 * 1000


def test_log_records_reach_the_loggers_of_the_caller_with_their_facts(pool, caplog):
    a, b = arrays()

    @sa.chunkwise(jit=False)
    def report(chunk):
        logger = logging.getLogger("project.part")
        logger.info("not of interest")
        logger.warning("chunk %d of %s", chunk[0], "six", extra={"colour": "red", "strange": object()})
        try:
            raise LookupError("inside")
        except LookupError:
            logger.exception("it failed")
        return chunk

    report(a, out=b, pool=pool)
    found = [record for record in caplog.records if record.name == "project.part"]
    assert sorted(record.getMessage() for record in found if record.levelno == logging.WARNING) == [
        f"chunk {k} of six" for k in range(6)
    ]
    errors = [record for record in found if record.levelno == logging.ERROR]
    assert len(errors) == 6
    assert all("LookupError: inside" in record.exc_text for record in errors)
    assert {record.colour for record in found if record.levelno == logging.WARNING} == {"red"}
    assert len({record.process for record in found} & {worker.pid for worker in pool.workers}) > 0
    assert "not of interest" not in caplog.text


def test_levels_set_later_reach_workers_that_are_up(pool, caplog):
    a, b = arrays()

    @sa.chunkwise(jit=False)
    def report(chunk):
        logging.getLogger("project.detail").debug("detail %d", chunk[0])
        return chunk

    report(a, out=b, pool=pool)
    assert "detail" not in caplog.text
    with caplog.at_level(logging.DEBUG, logger="project.detail"):
        report(a, out=b, pool=pool)
    assert all(f"detail {k}" in caplog.text for k in range(6))
    caplog.clear()
    report(a, out=b, pool=pool)
    assert "detail" not in caplog.text


def test_a_record_too_long_for_a_packet_loses_its_end_and_nothing_else():
    record = logging.makeLogRecord({"name": "x", "msg": "%s", "args": ("y" * 1_000_000,), "levelno": 30})
    packet = logs._packet(record)
    assert len(packet) < logs.MAX_PACKET_NBYTES
    assert pickle.loads(packet)["msg"].endswith("(cut)")
    wrong = logging.makeLogRecord({"name": "x", "msg": "%d", "args": ("no number",), "levelno": 30})
    assert "no number" in pickle.loads(logs._packet(wrong))["msg"]


def test_the_pool_tells_what_it_does(caplog):
    a, b = arrays()

    @sa.chunkwise(jit=False)
    def talkative(chunk):
        return chunk

    with caplog.at_level(logging.DEBUG, logger="shmarray"), sa.pool.Pool(2) as pool:
        talkative(a, out=b, pool=pool)
        pids = [worker.pid for worker in pool.workers]
    for lane, pid in enumerate(pids, start=1):
        assert f"started worker {lane} (pid {pid})" in caplog.text
    assert "talkative goes to 2 workers as job" in caplog.text
    assert f"ending workers {pids}" in caplog.text


def test_streams_that_do_not_take_text_do_not_break_calls():
    run_python(
        """
import sys
import numpy as np
import shmarray as sa

class Closed:
    def write(self, text):
        raise ValueError("I/O operation on closed file")
    def flush(self):
        raise ValueError("I/O operation on closed file")

a = sa.zeros(8, chunks=1)

@sa.chunkwise(jit=False)
def talk(chunk):
    print("to nobody")
    chunk += 1

kept = sys.stdout
for stream in (None, Closed()):
    sys.stdout = stream
    talk(a)
sys.stdout = kept
assert np.all(np.asarray(a) == 2)
"""
    )


def test_what_a_worker_says_while_it_dies_is_shown(pool, capsys):
    a, b = arrays()

    @sa.chunkwise(jit=False)
    def crash(chunk):
        import ctypes

        print("last words", flush=True)
        ctypes.string_at(0)

    with pytest.raises(sa.WorkerDiedError, match="SIGSEGV") as caught:
        crash(a, out=b, pool=pool, retries=0)
    assert "last words" in capsys.readouterr().out
    assert "Segmentation fault" in caught.value.traceback
    assert "in crash" in caught.value.traceback
