"""Each operation of a segment's life as the scripts of this folder run it, and what must hold around it.

An operation is a function of no argument; `PREPARE` says what a process does before it (its failpoint not yet set),
`LEFT` what it may leave in the directory. They are source text: they run in interpreters that hold no segment.
"""

from __future__ import annotations

OPERATIONS = '''
import pickle
from shmarray.errors import ShmArrayError
from shmarray.registry import attachment, condition, reclaim, references
from shmarray.registry import store as store_module
from shmarray.chunks import ChunkGrid
from shmarray.registry.journal import Changed, Journal
from shmarray.registry.scratch import bytes_at
from shmarray.registry.store import store

held = []          # what an operation holds; dropped by drop_all


def drop_all():
    held.clear()
    registry.trim()


def create():
    held.append(registry.create(5000, "u1", name="x"))

def create_large():
    held.append(registry.create(5_000_000, "u1", name="x"))

def create_replacing():
    held.append(registry.create(5000, "u1", name="x", if_exists="replace"))

def create_nameless():
    held.append(registry.create(5000, "u1"))

def publish():
    held.append(pickle.dumps(held[0]))

def attach():
    held.append(registry.attach("kept"))

def attach_read_only():
    held.append(registry.attach("kept", mode="r"))

def attach_handle():
    held.append(pickle.loads(handle))

def drop():
    held.clear()

def trim():
    registry.trim()

def collect():
    registry.gc()

def unlink():
    registry.unlink("x")

def leave():
    store.close()


def nothing():
    pass

def one_to_reuse():
    made("y")

def one_of_mine():
    held.append(made("x"))

def one_nameless():
    held.append(made(None))

def one_nameless_to_reuse():
    made(None)

def one_exported():
    held.append(made("x"))
    store.mark_exported(held[0].mapping)

def one_attached():
    held.append(registry.attach("kept"))

def one_orphan():
    child = fork(lambda: held.append(made("dead")))
    assert wait(child) == 0

def one_unheld():
    held.append(made("x", keep=True))
    held.clear()

def a_handle():
    """Pickled by a process that has ended."""
    global handle
    read, write = os.pipe()
    def send():
        segment = made(None)
        os.write(write, pickle.dumps(segment))
    assert wait(fork(send)) == 0
    os.close(write)
    handle = os.read(read, 10_000)
    os.close(read)


# A crash-safe call on two arrays, as the engine makes it, but that this process does everything.

BEFORE, AFTER = {"u": 3, "v": 5}, {"u": 13, "v": 15}

def two_to_change():
    drop_all()
    for name, value in BEFORE.items():
        made(name, value, 40, keep=True, if_exists="replace")
    drop_all()

def call():
    segments = [registry.attach(name) for name in BEFORE]
    grid = ChunkGrid((40,), (10,))
    with Journal("task", grid, 0, 20, [Changed(segment, 0, (1,), 1) for segment in segments]) as journal:
        for first in (0, 2):   # two windows, of two chunks each
            journal.open_window(first, first + 2)
            for block, value in zip(journal.layout.blocks, AFTER.values()):
                at = journal.segment.address + block.scratch_offset
                bytes_at(at, 20)[:] = value
                failpoints.reach("commit.computed")
            journal.commit()
            journal.put_rest_in_place()

def one_cut_short():
    two_to_change()
    if sys.argv[1] == "replay":
        assert wait(fork(call, failpoint="commit.copied:1:kill")) == -signal.SIGKILL

def open_one():
    held.append(registry.attach("u"))

def how_far(by_whom="nobody"):
    """How many chunks are done: the first ones, the same ones in both arrays, windows whole, and the arrays know it.

    (Of a call whose caller lives the engine tells the arrays; see test_exactly_once.py.)
    """
    done = set()
    for name in BEFORE:
        segment = registry.attach(name)
        values, dirty, reason = bytes(segment.buf), condition.is_dirty(segment), condition.reason_of(segment)
        count = values.count(AFTER[name])
        assert values == bytes([AFTER[name]] * count + [BEFORE[name]] * (40 - count)), (name, values)
        assert by_whom == "me" or dirty == (0 < count < 40), (count, reason)
        assert not dirty or "chunks 0 to 1 of 4 are done" in reason, reason
        done.add(count)
    (count,) = done
    assert count in (0, 20, 40), count
    return count


#: operation -> its variants: (what is done before, the operation)
VARIANTS = {
    "create": [
        (nothing, create), (one_to_reuse, create), (nothing, create_large), (nothing, create_nameless),
        (nothing, create_replacing), (one_orphan, create),
    ],
    "attach": [(nothing, attach), (nothing, attach_read_only), (a_handle, attach_handle)],
    "detach": [(one_of_mine, drop), (one_attached, drop), (one_nameless_to_reuse, trim)],
    "destroy": [(one_exported, drop), (one_of_mine, leave), (one_to_reuse, trim)],
    "gc": [(one_orphan, collect)],
    "unlink": [(one_unheld, unlink)],
    "publish": [(one_nameless, publish)],
    "commit": [(two_to_change, call)],
    "replay": [(one_cut_short, open_one), (one_cut_short, collect)],
}

#: Where an operation is killed, stopped, refused: at all steps, or at its own, where others' are tried apart.
POINTS = {"commit": "commit", "replay": "replay"}.get(sys.argv[1], "any")

def check(*by_whom):
    "What must hold for others, wherever the operation was killed: the name is free or leads to a whole array."
    assert set(bytes(registry.attach("kept").buf)) == {7}
    if sys.argv[1] in ("commit", "replay"):
        return how_far(*by_whom)
    try:
        segment = registry.attach("x")
        assert segment.nbytes in (5000, 5_000_000), segment.nbytes
        del segment
    except SegmentNotFoundError:
        held.append(registry.create(5000, "u1", name="x"))

#: Both ways to make a file, where that makes a difference; the second is row 51.
WAYS = ("", "1") if sys.argv[1] in ("create", "detach", "destroy") else ("",)


def variants(way):
    "Those of this script's operation; of creation, for files with a private name, those whose steps are others then."
    alike = (create_large, create_replacing) if way else ()
    chosen = [case for case in VARIANTS[sys.argv[1]] if case[1] not in alike]
    return chosen if not way else [case for case in chosen if case[0] is not one_orphan]


def settle():
    """Nothing of this script's is in the way any more: drop, collect, and let handles' time pass."""
    drop_all()
    for name in files():
        try:
            fd = os.open("/dev/shm/" + name, os.O_RDWR)
        except FileNotFoundError:
            continue
        size = os.fstat(fd).st_size
        if name != NAMESPACE + "~kept" and size >= 4096:
            os.pwrite(fd, bytes(8), size - 4096 + 3152)   # the deadline of a handle
        os.close(fd)
    for name in ("x", "u", "v"):
        try:
            registry.unlink(name)
        except SegmentNotFoundError:
            pass
    registry.gc()
    assert files() == [NAMESPACE + "~kept"], files()
    assert set(bytes(registry.attach("kept").buf)) == {7}


def counts():
    with open("/proc/self/maps") as lines:
        maps = sum("/dev/shm/" in line or NAMESPACE in line for line in lines)
    return len([fd for fd in os.listdir("/proc/self/fd") if not is_lock(fd)]), maps

def is_lock(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)").endswith("~.lock")
    except OSError:
        return False


def armed(prepare, operation, spec):
    prepare()
    failpoints._SPEC, failpoints._passed = spec, 0
    try:
        operation()
    finally:
        passed = failpoints._passed
        failpoints._SPEC = ""
    return passed
'''
