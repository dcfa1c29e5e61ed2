"""The life of a segment under kill -9: rows 2 to 12 of the fault table, on both ways to make a file."""

from __future__ import annotations

import os

from tests.crash.scripts import run


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

for _ in range(4):
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

# The same in slow motion: an attacher that has opened the file, and has not locked it yet, finds it removed.
def attach_too_late():
    try:
        registry.attach("x")
    except SegmentNotFoundError:
        os._exit(42)

wait(fork(leave_behind))
pid = fork(attach_too_late, failpoint="attach.lock:1:stop")
assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
registry.gc()
assert files() == [], files()
os.kill(pid, signal.SIGCONT)
assert wait(pid) == 42
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

for _ in range(10):
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

# In slow motion: while the last holder drops the old one, the name is given to a new one that nobody holds.
def drop_slowly():
    segment = made()
    failpoints._SPEC, failpoints._passed = "detach.unmap:1:stop", 0
    registry.store.store.mark_exported(segment.mapping)   # else it is kept for reuse
    del segment

pid = fork(drop_slowly)
assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
made("x", 9, keep=True, if_exists="replace")
registry.trim()
os.kill(pid, signal.SIGCONT)
assert wait(pid) == 0
assert set(bytes(registry.attach("x").buf)) == {9}
registry.unlink("x")
assert files() == []
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
