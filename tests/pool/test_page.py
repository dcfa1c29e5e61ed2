"""The dispatch page: every chunk claimed once, by lanes that know the job, whatever the number of lanes and chunks."""

from __future__ import annotations

import os
import threading
from itertools import chain

import numpy as np
import pytest

import shmarray as sa
from shmarray.pool import MAX_CHUNKS, current_worker
from shmarray.pool.dispatch import CANCELLED, calls
from shmarray.pool.page import ACTIVE, COUNT, CURRENT, EPOCH, LIMIT, NEXT, READY, ChunkState, DispatchPage


@pytest.fixture
def page():
    with_page = DispatchPage.create()
    yield with_page
    del with_page.words, with_page.states
    with_page.close()


def claim_all(page, lane):
    found = []
    while (index := calls().claim(page.address, lane)) >= 0:
        found.append(index)
        calls().finish(page.address, lane, index)
    return found


def test_threads_claim_each_chunk_once(page):
    calls().publish(page.address, 1, 1000, 31_000, 4)
    found = {}
    threads = [threading.Thread(target=lambda k=k: found.update({k: claim_all(page, k)})) for k in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(chain.from_iterable(found.values())) == list(range(1000, 31_000))
    assert calls().settle(page.address, 4, 0, 0) == 1
    assert (page.states[:30_000] == ChunkState.DONE).all()
    assert [int(page.words[page.slot(k, COUNT)]) for k in range(5)] == [len(found[k]) for k in range(5)]


def test_a_lane_that_comes_late_finds_the_epoch_closed_and_claims_nothing(page):
    epoch = calls().publish(page.address, 1, 0, 4, 1)
    assert claim_all(page, 0) == [0, 1, 2, 3]
    assert calls().settle(page.address, 1, 0, 0) == 1
    assert int(page.words[EPOCH // 8]) == epoch + 1
    # What a worker does that was stopped after it had read the epoch and before it said that it enters.
    page.words[page.slot(1, ACTIVE)] = epoch
    assert int(page.words[EPOCH // 8]) != epoch  # so it leaves again, and meanwhile the caller does not go on:
    assert calls().settle(page.address, 1, 0, 0) == 0
    page.words[page.slot(1, ACTIVE)] = 0
    assert calls().settle(page.address, 1, 0, 0) != 0
    assert int(page.words[EPOCH // 8]) == epoch + 1


def test_an_active_lane_keeps_the_caller_waiting(page):
    calls().publish(page.address, 1, 0, 2, 2)
    page.words[page.slot(2, ACTIVE)] = 1
    claim_all(page, 0)
    assert calls().settle(page.address, 2, 0, 1000) == 0
    page.words[page.slot(2, ACTIVE)] = 0
    assert calls().settle(page.address, 2, 0, 1000) == 1


def test_cancelling_by_every_lane_at_once_lets_nobody_claim_again(page):
    calls().publish(page.address, 1, 0, 100, 127)
    for _ in range(127):
        calls().cancel(page.address)
        assert calls().claim(page.address, 3) == -1
    assert int(page.words[NEXT // 8]) >= CANCELLED
    assert calls().settle(page.address, 0, 0, 0) == 2
    assert (page.states[:100] == ChunkState.FREE).all()


def test_a_new_worker_in_a_lane_has_begun_no_chunk(page):
    page.words[page.slot(3, READY)] = 77
    page.clear_lane(3)
    assert page.words[page.slot(3, READY)] == 0
    assert page.words[page.slot(3, CURRENT)] == -1


def test_a_private_page_is_not_shared_with_a_forked_child():
    page = DispatchPage.create(private=True)
    page.close_descriptor()
    calls().publish(page.address, 1, 0, 10, 0)
    pid = os.fork()
    if pid == 0:
        os._exit(len(claim_all(page, 0)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10
    assert claim_all(page, 0) == list(range(10))


@pytest.mark.parametrize("n_chunks", [1, MAX_CHUNKS, MAX_CHUNKS + 1])
def test_any_number_of_chunks_is_done_once_each(pool, n_chunks):
    counts = sa.zeros(n_chunks, np.int8, chunks=1)

    @sa.chunkwise
    def count(chunk):
        chunk[0] += 1

    count(counts, pool=pool)
    assert (np.asarray(counts) == 1).all()


def test_chunks_are_spread_over_workers_and_none_is_done_twice():
    with sa.pool.Pool(3) as many:
        counts, lanes = sa.zeros(2000, np.int64, chunks=1), sa.zeros(2000, np.int64, chunks=1)

        @sa.chunkwise(jit=False)
        def note(count, lane):
            count += 1
            lane[:] = current_worker().number

        for _ in range(3):
            note(counts, lanes, pool=many)
        # The probe that asks what the function returns works on copies, and writes them back once.
        assert (np.asarray(counts) == 3).all()
        assert set(np.asarray(lanes).tolist()) <= {1, 2, 3}
        assert len(set(np.asarray(lanes).tolist())) > 1


def test_the_caller_and_its_workers_share_a_compiled_job(pool):
    a, b = sa.array(np.arange(1 << 20, dtype=np.int64)), sa.empty(1 << 20, np.int64)

    @sa.elementwise
    def square(x):
        return x * x

    with sa.config.override(chunk_nbytes=4096):
        for _ in range(20):
            b[:] = -1
            square(a, out=b, pool=pool)
            np.testing.assert_array_equal(b, np.asarray(a) ** 2)
    assert int(pool.crew.page.words[LIMIT // 8]) == 1
