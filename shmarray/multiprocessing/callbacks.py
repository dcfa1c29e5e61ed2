"""Where do the user's callbacks run? In a thread of their own: neither deaths nor results ever wait for them."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any

__all__ = ["Callbacks"]


class Callbacks:
    """A pool's thread for callbacks, started with the first of them.

    Parameters
    ----------
    lock : context manager
        Held while `finish` is called.
    """

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock
        self._waiting: SimpleQueue[tuple[Callable[[Any], object], Any, Callable[[], None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[Any], object], value: Any, finish: Callable[[], None]) -> None:
        """Call `function(value)` after those before it, whatever it raises, and then `finish`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shmarray-pool-callbacks", daemon=True)
            self._thread.start()
        self._waiting.put((function, value, finish))

    def end(self) -> None:
        """There will be no more."""
        self._waiting.put(None)

    def is_current(self) -> bool:
        """Whether a callback is what asks."""
        return self._thread is threading.current_thread()

    def join(self) -> None:
        """Wait for the last one."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (callback := self._waiting.get()) is not None:
            function, value, finish = callback
            try:
                function(value)
            except BaseException:  # the original's thread would be dead, and all calls with it
                traceback.print_exc()
            with self._lock:
                finish()
            del callback, function, value, finish
