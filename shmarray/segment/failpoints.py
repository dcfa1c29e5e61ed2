"""Where can a test stop this process? At every step of a lifecycle, by name and by count.

`SHMARRAY_FAILPOINT=name:n[:kill|stop|errno=E]` acts at the n-th passing of the points called `name` or
`name.something`: SIGKILL (the default), SIGSTOP, or an `OSError` of that number. A test that loops
n = 1, 2, ... until the operation completes untouched has been at each step, however many there are.

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
    if point != name and not point.startswith(name + "."):
        return
    count, _, action = rest.partition(":")
    _passed += 1
    if _passed != int(count or 1):
        return
    if action.startswith("errno="):
        number = int(action[len("errno=") :])
        raise OSError(number, f"{os.strerror(number)} (failpoint {point})")
    import signal

    os.kill(os.getpid(), signal.SIGSTOP if action == "stop" else signal.SIGKILL)
