"""Each operation of a segment's life as the scripts of this folder run it, and what must hold around it.

An operation is a function of no argument; `PREPARE` says what a process does before it (its failpoint not yet set),
`LEFT` what it may leave in the directory. They are source text: they run in interpreters that hold no segment.
"""

from __future__ import annotations

OPERATIONS = '''
import pickle
from shmarray.errors import ShmArrayError
from shmarray.registry import attachment, reclaim, references
from shmarray.registry import store as store_module
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
}

#: Both ways to make a file, where that makes a difference; the second is row 51.
WAYS = ("", "1") if sys.argv[1] in ("create", "detach", "destroy") else ("",)


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
    try:
        registry.unlink("x")
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
