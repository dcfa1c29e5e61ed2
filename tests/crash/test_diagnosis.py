"""What errors and logs say of a death: the signal, the chunk, the kernel, who did it, and where the worker was."""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import signal

import numpy as np
import pytest

import shmarray as sa


def pair():
    return sa.array(np.repeat(np.arange(8), 4), chunks=4), sa.empty(32, np.int64)


def test_a_crash_in_python_ends_with_the_workers_last_traceback(pool):
    a, b = pair()

    def strike_the_page():
        faulthandler._sigsegv()

    @sa.chunkwise(jit=False)
    def wild(chunk):
        if chunk[0] == 5:
            strike_the_page()
        return chunk

    with pytest.raises(sa.WorkerDiedError) as caught:
        wild(a, out=b, pool=pool, retries=0)
    error = caught.value
    message, _, last = str(error).partition("\nThe worker's last traceback:\n")
    assert "wild: chunk 5 ended its worker once" in message
    assert f"pid {error.pid}, killed by SIGSEGV" in message
    assert last == error.traceback
    assert last.startswith("Fatal Python error: Segmentation fault\n")
    assert last.index("in strike_the_page") < last.index("in wild")
    again = pickle.loads(pickle.dumps(error))
    assert (again.traceback, again.signal, again.chunk) == (last, signal.SIGSEGV, 5)


def test_row_33_a_sigbus_says_that_shared_memory_ran_out(pool):
    a, _ = pair()

    @sa.chunkwise(jit=False)
    def short(chunk):
        if chunk[0] == 2:
            os.kill(os.getpid(), signal.SIGBUS)
        chunk += 1

    with pytest.raises(sa.ChunksUnknownError, match=r"SIGBUS, .*has run out \(/dev/shm has [0-9,]+ bytes"):
        short(a, pool=pool)


def test_a_worker_that_the_pool_itself_ends_is_not_said_to_have_died(pool, caplog):
    a, b = pair()

    @sa.chunkwise(jit=False)
    def endless(chunk):
        while chunk[0] == 1:
            pass
        return chunk

    endless(a[-4:], out=b[-4:], pool=pool)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "shmarray.pool"), pytest.raises(sa.KernelTimeoutError):
        endless(a, out=b, pool=pool, timeout=0.5)
    (record,) = caplog.records
    assert "was ended: killed by SIGKILL, by this pool, because its call had passed its timeout; it is replaced" in (
        record.getMessage()
    )


def test_row_38_an_index_out_of_bounds_is_named_with_its_chunk_under_debug(pool, capsys):
    table = np.arange(4.0)

    @sa.elementwise(debug=True)
    def look_up(i):
        return table[i]

    a = sa.array(np.array([0, 1, 2, 3, 3, 2, 7, 0]), chunks=2)
    with pytest.raises(IndexError, match="look_up raised in chunk 3 of 4") as caught:
        look_up(a, out=sa.empty(8, float), pool=pool)
    assert caught.value.chunk == 3
    assert "IndexError: index 7 is out of bounds for axis 0 with size 4" in capsys.readouterr().out
