"""The life of a segment under kill -9, a test for each row of the fault table, on both ways to make a file.

"fallback" is row 51: where a mount offers no O_TMPFILE, files are made under a private name and renamed.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import segment_files
from tests.crash.prelude import PRELUDE
from tests.processes import run_python


@pytest.fixture(params=[{}, {"SHMARRAY_NO_TMPFILE": "1"}], ids=["O_TMPFILE", "fallback"])
def environ(request: pytest.FixtureRequest) -> dict[str, str]:
    environ: dict[str, str] = request.param
    return environ


def run(code: str, environ: dict[str, str], *arguments: str, timeout_s: float = 60.0) -> str:
    return run_python(PRELUDE + code, *arguments, timeout_s=timeout_s, **environ).stdout


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
            if choose.random() < 0.3:
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
    while (now := time.monotonic()) < until or (not counters[0] + counters[4] and now < until + 60):
        time.sleep(0.01)
        for slot in range(2) if now < until else ():   # on a slow machine nobody has come to a call yet: let them
            if now > worker_due[slot]:
                worker_due[slot] = now + choose.uniform(0.1, 2.0)
                if parent_of(pid := counters[4 * slot + 1]) == programs[slot]:
                    os.kill(pid, signal.SIGKILL)
                    worker_kills += 1
            if now > due[slot]:
                due[slot] = now + choose.uniform(0.2, 10.0 + 10.0 * slot)
                os.kill(programs[slot], signal.SIGKILL)
                assert wait(programs[slot]) == -signal.SIGKILL
                kills += 1
                programs[slot] = fork(work, choose.random(), slot)
    for pid in programs:
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == -signal.SIGKILL
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


def test_row_02_kill_at_each_step_of_create_leaves_nothing_or_an_array(environ: dict[str, str]) -> None:
    code = """
def after():
    try:
        segment = registry.attach("x")
    except SegmentNotFoundError:
        pass
    else:
        assert segment.descriptor.shape == (5000,)
        del segment
    registry.gc()
    assert files() == [], files()

def create():
    registry.create(5000, "u1", name="x")

def create_again():
    # The second one reuses the pages of the first.
    spec, failpoints._SPEC = failpoints._SPEC, ""
    registry.create(5000, "u1", name="y")
    failpoints._SPEC = spec
    registry.create(5000, "u1", name="x")

def replace():
    registry.create(5000, "u1", name="x", if_exists="replace")

print(steps("create", create, after), steps("create", create_again, after), steps("create", replace, after))
"""
    fresh, reused, replaced = map(int, run(code, environ).split())
    assert fresh >= 6
    assert reused >= 3
    assert replaced >= 5


def test_row_03_kill_at_each_step_of_attach_detach_destroy_leaves_the_others_alone(
    environ: dict[str, str],
) -> None:
    code = """
holder = Holder(made)

def whole():
    assert set(bytes(registry.attach("x").buf)) == {7}
    registry.gc()
    assert files() == [NAMESPACE + "~x"], files()

def touch():
    registry.attach("x")

print(steps("attach", touch, whole), steps("detach", touch, whole), steps("destroy", touch, whole))
holder.drop()
assert files() == []

def gone():
    registry.gc()
    assert files() == [], files()
    made("y")
    registry.trim()

def last_holder():
    with config.override(recycle_nbytes=0):
        made("y")

def parks():
    made("y")

print(steps("detach", last_holder, gone), steps("destroy", last_holder, gone), steps("detach", parks, gone))
"""
    counts = list(map(int, run(code, environ).split()))
    assert min(counts) >= 2


def test_row_04_a_gc_killed_inside_gc_is_finished_by_the_next(environ: dict[str, str]) -> None:
    code = """
def leave_behind():
    global segment
    segment = made("dead")

def after():
    registry.gc()
    assert files() == [], files()
    wait(fork(leave_behind))
    assert files() == [NAMESPACE + "~dead"]

wait(fork(leave_behind))
print(steps("gc", registry.gc, after))
registry.gc()
"""
    assert int(run(code, environ)) >= 4


def test_row_05_gcs_at_once_beside_attachers_unlink_once(environ: dict[str, str]) -> None:
    code = """
def leave_behind():
    global segment
    segment = made("x")

def collect(gate, out):
    gate.wait()
    for name in registry.gc():
        os.write(out, b"1")

def attach(gate):
    gate.wait()
    try:
        segment = registry.attach("x")
    except SegmentNotFoundError:
        return
    assert set(bytes(segment.buf)) == {7}
    assert registry.attach("x").key == segment.key

for _ in range(8):
    wait(fork(leave_behind))
    read, write = os.pipe()
    gate = Gate()
    pids = [fork(collect, gate, write) for _ in range(8)] + [fork(attach, gate) for _ in range(4)]
    gate.open()
    os.close(write)
    assert [wait(pid) for pid in pids] == [0] * 12
    unlinked = len(os.read(read, 100))
    os.close(read)
    assert unlinked <= 1  # 0: an attacher was the last holder and took it along
    registry.gc()
    assert files() == [], files()
"""
    run(code, environ)


def test_row_06_of_fifty_creators_of_one_name_one_wins(environ: dict[str, str]) -> None:
    code = """
def create(gate, stay, out):
    gate.wait()
    try:
        segment = made("x", 3)
        os.write(out, b"w")
    except SegmentExistsError:
        os.write(out, b"l")
        return
    stay.wait()

read, write = os.pipe()
gate, stay = Gate(), Gate()
pids = [fork(create, gate, stay, write) for _ in range(50)]
gate.open()
answers = b""
while len(answers) < 50:
    answers += os.read(read, 50)
assert answers.count(b"w") == 1, answers
assert set(bytes(registry.attach("x").buf)) == {3}
stay.open()
assert [wait(pid) for pid in pids] == [0] * 50
registry.gc()
assert files() == []
"""
    run(code, environ)


def test_row_07_a_name_made_anew_survives_the_destruction_of_the_old(environ: dict[str, str]) -> None:
    code = """
def drop(gate):
    segment = registry.attach("x")
    os.write(ready, b"x")
    gate.wait()
    del segment

def create_anew(gate, stay, out):
    gate.wait()
    while True:
        try:
            segment = made("x", 9)
            break
        except SegmentExistsError:
            os.sched_yield()
    os.write(out, b"x")
    stay.wait()

for _ in range(25):
    holder = Holder(made)
    ready_read, ready = os.pipe()
    read, write = os.pipe()
    gate, stay = Gate(), Gate()
    droppers = [fork(drop, gate) for _ in range(3)]
    for _ in droppers:
        os.read(ready_read, 1)
    creator = fork(create_anew, gate, stay, write)
    gate.open()
    holder.drop()
    assert [wait(pid) for pid in droppers] == [0] * 3
    assert os.read(read, 1) == b"x"
    registry.gc()
    assert set(bytes(registry.attach("x").buf)) == {9}
    stay.open()
    assert wait(creator) == 0
    registry.gc()
    assert files() == []
    for fd in (ready_read, ready, read, write):
        os.close(fd)
"""
    run(code, environ)


def test_row_08_the_creator_is_killed_and_the_attacher_keeps_the_array(environ: dict[str, str]) -> None:
    code = """
creator = Holder(made)
attacher = Holder(attached)
creator.kill()
assert registry.gc() == []
assert set(bytes(registry.attach("x").buf)) == {7}
attacher.drop()
assert files() == [], files()
"""
    run(code, environ)


def test_row_09_an_attacher_ends_normally_and_the_array_survives_without_a_warning(
    environ: dict[str, str], namespace: str
) -> None:
    code = """
import subprocess
creator = Holder(made)
child = "from shmarray import registry; segment = registry.attach('x'); segment.buf[0] = 1"
done = subprocess.run([sys.executable, "-W", "error", "-c", child], capture_output=True, text=True)
assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
assert registry.gc() == []
assert registry.attach("x").buf[0] == 1
creator.drop()
assert files() == [], files()
"""
    run(code, environ)
    assert [name for name in os.listdir("/dev/shm") if name.startswith(namespace)] == []


def test_row_11_a_stopped_holder_is_not_reclaimed(environ: dict[str, str]) -> None:
    code = """
holder = Holder(made)
os.kill(holder.pid, signal.SIGSTOP)
assert registry.gc() == []
assert set(bytes(registry.attach("x").buf)) == {7}
os.kill(holder.pid, signal.SIGCONT)
holder.drop()
"""
    run(code, environ)


def test_row_12_a_zombie_does_not_hold(environ: dict[str, str]) -> None:
    code = """
holder = Holder(made)
os.kill(holder.pid, signal.SIGKILL)
os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and not buried
assert registry.gc() == ["x"]
assert files() == []
os.close(holder.go)
wait(holder.pid)
"""
    run(code, environ)


SMALL_MOUNT = """
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
    print("skip")
    sys.exit()
if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, sys.argv[1].encode()):
    print("skip")
    sys.exit()
from shmarray.errors import OutOfSharedMemoryError
"""


def run_small(code: str, environ: dict[str, str], options: str) -> None:
    if run(SMALL_MOUNT + code, environ, options) == "skip\n":
        pytest.skip("needs the right to mount a small tmpfs over /dev/shm in a mount namespace")


def test_row_18_a_full_dev_shm_is_an_error_and_never_a_signal(environ: dict[str, str]) -> None:
    code = """
held = []
try:
    while True:
        held.append(made(None, 1, 300_000))
except OutOfSharedMemoryError as error:
    assert error.nbytes >= 300_000
    assert "/dev/shm" in str(error), error
assert len(held) >= 10
for segment in held:
    segment.buf[:] = bytes(segment.nbytes)
del segment
count = len(held)
held.clear()
# What is kept for reuse makes room.
again = made("x", 1, 3_000_000)
del again
registry.trim()
assert files() == [], files()
# A large request fails before it fills the mount.
try:
    registry.create(2**33, "u1")
except OutOfSharedMemoryError as error:
    assert error.free_nbytes >= 3_000_000, error
assert registry.usage().free >= 3_000_000
"""
    run_small(code, environ, "size=4m")


def test_row_18_without_inodes_it_is_the_same(environ: dict[str, str]) -> None:
    code = """
held = []
try:
    for i in range(100):
        held.append(made(f"n{i}", 1, 10))
except OutOfSharedMemoryError as error:
    assert error.limit
else:
    raise AssertionError
assert 1 < len(held) < 60, len(held)
held.clear()
registry.trim()
assert files() == [], files()
made("x")
"""
    run_small(code, environ, "size=4m,nr_inodes=40")


def test_row_18_a_full_dev_shm_mounted_for_huge_pages_is_an_error_too(environ: dict[str, str]) -> None:
    code = """
held = made(None, 1, 4 * 2**20)
with open("/proc/self/smaps") as file:
    text = file.read()
start = text.index(f"{held.address:x}-")
assert text.index("ShmemPmdMapped:", start) > start
held = []
try:
    while True:
        held.append(made(None, 1, 6 * 2**20))
except OutOfSharedMemoryError as error:
    assert error.nbytes >= 6 * 2**20
assert len(held) >= 2
held.clear()
registry.trim()
made("x", 3, 20 * 2**20)
"""
    run_small(code, environ, "size=32m,huge=advise")
