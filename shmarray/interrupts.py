"""Where must Ctrl-C wait?

Python raises KeyboardInterrupt between any two instructions of the main thread. Between starting a process and noting
its number, or while a page is being closed, that would leave something that nobody knows of. Inside `held_back` the
signal is only noted; the handler that the program has installed hears of it at the end.

Invariant: at the end of the outermost block the program's own handler is in place again, and has been called if the
signal came.
"""

from __future__ import annotations

import os
import threading

# The functions under those of `signal`, which look every handler up in two enumerations: 15 microseconds a block.
from _signal import NSIG, SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found,unused-ignore]
from _thread import get_ident
from types import CodeType, FrameType
from typing import Any

__all__ = ["Guards", "handlers_held_back", "held_back", "never_lost", "raised_by_handler"]


_main = threading.main_thread().ident


def _note_main_thread() -> None:
    global _main
    _main = get_ident()


if hasattr(os, "register_at_fork"):  # the thread that forks is the child's main one
    os.register_at_fork(after_in_child=_note_main_thread)


class held_back:  # used as a statement: `with held_back() as interrupt`
    """A block that Ctrl-C does not break; it costs two microseconds, and next to nothing inside another.

    Attributes
    ----------
    pressed : bool
        Whether the signal has come since the outermost block began: no more patience with whoever is waited for.
    """

    __slots__ = ("_frame", "_outer", "_pressed", "_previous")

    def __init__(self) -> None:
        self._pressed = False
        self._previous: Any = None
        self._outer: held_back | None = None
        self._frame: FrameType | None = None

    @property
    def pressed(self) -> bool:
        """See the class."""
        return self._pressed if self._outer is None else self._outer.pressed

    def __enter__(self) -> held_back:
        # Handlers run in the main thread alone, so others are never interrupted.
        if get_ident() == _main:
            previous = getsignal(SIGINT)
            if callable(previous):  # else it is ignored, ends the process, or belongs to C code
                outer = getattr(previous, "__self__", None)
                if type(outer) is held_back:
                    self._outer = outer
                    return self
                self._previous = previous
                try:
                    signal(SIGINT, self._note)
                except ValueError:  # the main thread of a subinterpreter: no signal reaches it
                    self._previous = None
        return self

    def __exit__(self, *exc_info: object) -> None:
        previous, self._previous = self._previous, None
        if previous is not None:
            signal(SIGINT, previous)
            if self._pressed:
                previous(SIGINT, self._frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        self._frame = frame


class handlers_held_back:  # used as a statement: `with handlers_held_back()`
    """A block that no signal handler of the program's interrupts: those that are wanted run at its end, in turn.

    For what must not be broken off by any exception and is done once: it costs some ten microseconds.
    """

    __slots__ = ("_noted", "_previous")

    def __init__(self) -> None:
        self._noted: dict[int, FrameType | None] = {}
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> handlers_held_back:
        if get_ident() == _main:
            try:
                for number in range(1, NSIG):
                    previous = getsignal(number)
                    if callable(previous):
                        self._previous[number] = previous
                        signal(number, self._note)
            except ValueError:  # the main thread of a subinterpreter: no signal reaches it
                self._previous.clear()
            except BaseException:  # by a handler, just before it was its turn
                self._restore()
                raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._restore()
        self._run(list(self._noted.items()))

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal(number, previous)

    def _run(self, noted: list[tuple[int, FrameType | None]]) -> None:
        if noted:
            number, frame = noted.pop(0)
            try:
                self._previous[number](number, frame)
            finally:
                self._run(noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted[number] = frame


def raised_by_handler(error: BaseException | None) -> BaseException | None:
    """Of an exception and those that it came of, the one that a signal handler of the program's raised, if one did.

    Such an exception is the program's own (an alarm, say), whatever was going on when it came; as KeyboardInterrupt is.
    """
    codes = {_code_of(getsignal(number)) for number in range(1, NSIG)} - {None}
    seen: set[int] = set()
    while codes and error is not None and id(error) not in seen:
        seen.add(id(error))
        step = error.__traceback__
        while step is not None:
            if step.tb_frame.f_code in codes:
                return error
            step = step.tb_next
        error = error.__cause__ or error.__context__
    return None


def _code_of(handler: Any) -> CodeType | None:
    """What runs when a handler does; None for what is no Python."""
    if not callable(handler):
        return None
    handler = getattr(handler, "func", handler)  # functools.partial
    function = getattr(handler, "__func__", handler)
    if not hasattr(function, "__code__"):  # an object that can be called
        function = type(handler).__call__
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


class never_lost:  # used as a statement: `with never_lost()`
    """A block in which Ctrl-C works as ever, and at whose end it is repeated if it had no effect.

    What Python raises inside a callback of C code (numba's compiler calls some) is printed and forgotten there.
    """

    __slots__ = ("_pressed", "_replaced")

    def __init__(self) -> None:
        self._pressed = False
        self._replaced = False

    def __enter__(self) -> never_lost:
        if get_ident() == _main and getsignal(SIGINT) is default_int_handler:
            try:
                signal(SIGINT, self._note)
                self._replaced = True
            except ValueError:  # the main thread of a subinterpreter: no signal reaches it
                pass
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if self._replaced:
            signal(SIGINT, default_int_handler)
            if self._pressed and kind is not KeyboardInterrupt:
                raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt


class Guards(threading.local):
    """The `held_back` blocks that a lock's sections have opened: each thread closes its own, the last first."""

    def __init__(self) -> None:
        self._open: list[held_back] = []

    def enter(self) -> None:
        """Hold Ctrl-C back from here on."""
        self._open.append(held_back().__enter__())

    def leave(self) -> None:
        """End what the last `enter` of this thread began."""
        self._open.pop().__exit__(None, None, None)
