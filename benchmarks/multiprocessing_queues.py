"""What does a small message through a pipe or a queue cost beside the standard library's?

One process sends and receives, so nobody is woken but a `Queue`'s own thread.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

from harness import Contestant, Suite, arguments

from shmarray import multiprocessing as ours

MESSAGES: dict[str, Any] = {"a tuple": (1, "two"), "a dictionary": {"a": [1, 2], "b": "three"}}


def there_and_back(put: Any, get: Any, message: Any) -> None:
    """Four messages, so that a queue's thread has something to do meanwhile."""
    for _ in range(4):
        put(message)
    for _ in range(4):
        get()


def main() -> None:
    suite = Suite("four small messages", arguments(__doc__))
    for kind in ("Pipe", "SimpleQueue", "Queue"):
        carriers = []
        for name, module in (("shmarray.multiprocessing", ours), ("multiprocessing", multiprocessing)):
            if kind == "Pipe":
                taker, giver = module.Pipe(duplex=False)
                carriers.append((name, giver.send, taker.recv))
            else:
                queue = getattr(module, kind)()
                carriers.append((name, queue.put, queue.get))
        for label, message in MESSAGES.items():
            contestants = [
                Contestant(name, lambda put=put, get=get, message=message: there_and_back(put, get, message), calls=300)  # type: ignore[misc]
                for name, put, get in carriers
            ]
            suite.run(f"{kind}, {label}", contestants, rounds=25)
    suite.report()


if __name__ == "__main__":
    main()
