"""Where can a test stop this process? At every step of a lifecycle, by name and by count.

`SHMARRAY_FAILPOINT=name:n[:kill|stop|errno=E]` acts at the n-th passing of the points called `name` or
`name.something` (of all points, if `name` is ``any``): SIGKILL (the default), SIGSTOP, or an `OSError` of
that number. A test that loops n = 1, 2, ... until the operation completes untouched has been at each step,
however many there are. There is a point before every system call of the operations; the names are

=========  ==========================================================================================
create     making a segment: file, lock, pages, descriptor, link
attach     opening one
detach     unmapping, and taking a file out of sight to keep its pages for reuse
destroy    the last holder removes the file
gc         looking at a file that may be nobody's, and removing it
unlink     removing a name because the user says so
publish    giving a nameless segment a name, for a handle
commit     a crash-safe call: scratch named, window by window committed and copied, scratch removed
replay     finishing such a call whose caller has died
copy       in a worker: a committed chunk is copied to its place
names      the namespace's lock: opened, taken, given back
dispatch   the caller's side of a call: page, workers, messages, the opening, the wait
worker     a worker's side: waiting, messages, mapping segments, chunks done
=========  ==========================================================================================

An errno passes over the points whose step is called ``close``, ``unmap``, ``unlock`` or ``advise``: those calls do
their work whatever they return (Linux closes a descriptor even when `close` reports an error), or are advice.

Invariant: without the variable nothing happens; callers test :data:`ARMED`, one global name, first.
"""

from __future__ import annotations

import os

__all__ = ["ARMED", "reach"]

_SPEC = os.environ.get("SHMARRAY_FAILPOINT", "")

#: True when a failpoint was asked for at import.
ARMED = bool(_SPEC)

_passed = 0


def reach(point: str) -> None:
    """Say that `point` (`operation.step`) has been reached, the step itself not yet taken."""
    global _passed
    name, _, rest = _SPEC.partition(":")
    if name != "any" and point != name and not point.startswith(name + "."):
        return
    count, _, action = rest.partition(":")
    if action.startswith("errno=") and point.endswith((".close", ".unmap", ".unlock", ".advise")):
        return
    _passed += 1
    if _passed != int(count or 1):
        return
    if action.startswith("errno="):
        number = int(action[len("errno=") :])
        raise OSError(number, f"{os.strerror(number)} (failpoint {point})")
    import signal

    os.kill(os.getpid(), signal.SIGSTOP if action == "stop" else signal.SIGKILL)
