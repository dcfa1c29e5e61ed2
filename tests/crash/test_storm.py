"""Everything is killed all the time, and nothing leaks, and nothing alive is reclaimed: row 1 of the fault table."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import segment_files
from tests.crash.prelude import PRELUDE

STORM = """
import struct
SECONDS = float(sys.argv[1])


def storm(seed):
    os.nice(10)  # six such loops would leave little time to the pools
    choose = random.Random(seed)
    held = []
    while True:
        name = f"n{choose.randrange(6)}"
        what = choose.randrange(8)
        try:
            if what < 3:
                value, nbytes = choose.randrange(255), choose.choice([10, 5000])
                held.append(made(choose.choice([name, name, None]), value, nbytes))
            elif what < 5:
                held.append(registry.attach(name, mode=choose.choice(["r+", "r"])))
            elif what == 5 and choose.random() < 0.2:
                registry.gc()
            elif held:
                segment = held.pop(choose.randrange(len(held)))
                assert len(set(bytes(segment.buf))) <= 2
                del segment
        except (SegmentExistsError, SegmentNotFoundError):
            pass
        if len(held) > 8:
            del held[:4]


def pools(out):
    # Two programs that apply kernels, killed now and then, as are their workers. Each also has an array that outlives
    # it, which it changes in place by crash-safe calls: all of its elements have been changed equally often, always.
    import mmap
    import shmarray as sa
    from shmarray.errors import WorkerDiedError
    from shmarray.pool import Pool
    from shmarray.pool.dispatch import calls

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: workers of killed callers become our children
    # For each program: calls done, a worker's pid, crash-safe calls begun and ended.
    counters = memoryview(mmap.mmap(-1, 4096)).cast("B").cast("Q")
    calls()  # numba, and the moves of a dispatch: once, before the programs are forked

    @sa.elementwise
    def thrice(x):
        return 3 * x

    @sa.chunkwise(jit=False)
    def add_one(chunk):
        return chunk + 1

    @sa.elementwise
    def one_more(x):
        return x + 1

    def change_account(slot, pool):
        "Once or not at all, also by a program that was killed over it; the next to open it finishes what it left."
        account = sa.open(f"account-{slot}")
        before = np.asarray(account).copy()
        begun, ended = counters[4 * slot + 2], counters[4 * slot + 3]
        assert np.all(before == before[0]), before
        assert ended <= before[0] <= begun, (ended, before[0], begun)
        counters[4 * slot + 2] = counters[4 * slot + 3] = int(before[0])
        assert not account.dirty, sa.registry.info(f"account-{slot}").dirty_reason
        counters[4 * slot + 2] += 1
        one_more(account, out=account, crash_safe=True, pool=pool, retries=10)
        counters[4 * slot + 3] += 1
        counters[4 * slot] += 1

    def work(seed, slot):
        choose = random.Random(seed)
        pool = Pool(2)
        while True:
            if choose.random() < 0.5:
                try:
                    change_account(slot, pool)
                except WorkerDiedError:
                    pass
            value = choose.randrange(1000)
            name = choose.choice([None, None, f"p{choose.randrange(6)}"])
            try:
                a = sa.full(4000, value, "i8", name=name, chunks=500)
                b = thrice(a, pool=pool) if choose.random() < 0.5 else add_one(a, pool=pool)
            except SegmentExistsError:
                continue
            except WorkerDiedError:
                continue  # three kills of one chunk, or of three workers before they were up
            assert b[0] in (3 * value, value + 1) and np.all(np.asarray(b) == b[0])
            counters[4 * slot] += 1
            counters[4 * slot + 1] = choose.choice(pool.workers).pid

    def parent_of(pid):
        try:
            with open(f"/proc/{pid}/stat") as file:
                return int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            return None

    choose = random.Random(6)
    for slot in range(2):
        sa.zeros(4000, "i8", name=f"account-{slot}", keep=True, chunks=500)
    programs = [fork(work, choose.random(), slot) for slot in range(2)]
    kills = worker_kills = 0
    now = time.monotonic()
    until = now + SECONDS
    due, worker_due = [now + 4, now + 7], [now + 1, now + 1.5]
    since = [(now, 0), (now, 0)]   # when the program was started, and the calls that were done then
    while (now := time.monotonic()) < until or (not counters[0] + counters[4] and now < until + 60):
        time.sleep(0.01)
        for slot in range(2) if now < until else ():   # on a slow machine nobody has come to a call yet: let them
            if now > worker_due[slot]:
                worker_due[slot] = now + choose.uniform(0.1, 2.0)
                if parent_of(pid := counters[4 * slot + 1]) == programs[slot]:
                    os.kill(pid, signal.SIGKILL)
                    worker_kills += 1
            # Not before it has done something: killed while its workers start it would show nothing.
            at_work = counters[4 * slot] > since[slot][1] or now > since[slot][0] + 15
            if now > due[slot] and at_work:
                due[slot] = now + choose.uniform(0.2, 10.0 + 10.0 * slot)
                os.kill(programs[slot], signal.SIGKILL)
                assert wait(programs[slot]) == -signal.SIGKILL
                kills += 1
                programs[slot] = fork(work, choose.random(), slot)
                since[slot] = (now, counters[4 * slot])
    for pid in programs:   # at work, too
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == -signal.SIGKILL
        kills += 1
    until = time.monotonic() + 30
    while True:  # the workers of all killed callers have ended
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.01)
        except ChildProcessError:
            break
        assert time.monotonic() < until, "a worker outlives its caller"
    for slot in range(2):
        account = sa.open(f"account-{slot}")
        assert np.all(np.asarray(account) == account[0]) and not account.dirty
        assert counters[4 * slot + 3] <= account[0] <= counters[4 * slot + 2]
        del account
        sa.unlink(f"account-{slot}")
    os.write(out, struct.pack("4Q", kills, worker_kills, counters[0] + counters[4], counters[3] + counters[7]))


keepers = [Holder(made, f"keeper-{i}", i) for i in range(3)]
result, out = os.pipe()
pool_storm = fork(pools, out)
choose = random.Random(5)
seeds = iter(range(10**9))
children = [fork(storm, next(seeds)) for _ in range(6)]
kills = 0
dying = []  # a death needs a turn on a core: not waited for, so that the others go on meanwhile
until = time.monotonic() + SECONDS
while time.monotonic() < until:
    time.sleep(choose.expovariate(400))  # the tempo of the storm
    victim = choose.randrange(6)
    os.kill(children[victim], signal.SIGKILL)
    dying.append(children[victim])
    kills += 1
    if len(dying) > 12:
        assert wait(dying.pop(0)) == -signal.SIGKILL
    children[victim] = fork(storm, next(seeds))
for pid in children:
    os.kill(pid, signal.SIGKILL)
for pid in children + dying:
    assert wait(pid) == -signal.SIGKILL
assert wait(pool_storm) == 0
collect(*(f"keeper-{i}" for i in range(3)))
assert [one.name for one in registry.list()] == [f"keeper-{i}" for i in range(3)], files()
for i, keeper in enumerate(keepers):
    assert set(bytes(registry.attach(f"keeper-{i}").buf)) == {i}
    keeper.drop()
collect()
print(kills, *struct.unpack("4Q", os.read(result, 32)))
"""


def test_row_01_kill_storm_leaks_nothing_and_reclaims_nothing_alive(
    environ: dict[str, str], namespace: str, storm_s: float
) -> None:
    printed = run_storm(environ, storm_s / 2)
    kills, pool_kills, worker_kills, calls, changes = map(int, printed.split())
    print(
        f"kills: {kills}, of programs with pools {pool_kills}, of workers {worker_kills}; calls: {calls}, of which "
        f"{changes} changed an array in place, each once"
    )
    assert kills > 0
    assert pool_kills > 0
    assert calls > 0
    assert segment_files(namespace) == []


def run_storm(environ: dict[str, str], seconds: float) -> str:
    """Its standard error is what the pools say of the workers they lose, unless it fails."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + STORM, str(seconds)],
        capture_output=True,
        text=True,
        timeout=120 + seconds,
        env={**os.environ, **environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert "Error" not in done.stderr.replace("WorkerDiedError", ""), done.stderr[-5000:]
    return done.stdout
