"""What all kernels have in common: the function they are made of, its compiled code, and the keywords of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from shmarray import jit as compiler
from shmarray.engine import Options
from shmarray.ops.arguments import plain_function
from shmarray.pool import new_number

__all__ = ["Kernel"]


class Kernel:
    """What a decorator makes of a function: a callable that runs it over whole arrays, on all cores.

    The decorators are :func:`shmarray.elementwise`, :func:`shmarray.reduction`, :func:`shmarray.stencil` and
    :func:`shmarray.chunkwise`; :func:`shmarray.map_chunks` makes and calls one at once. The function itself is
    `kernel.__wrapped__`. Every call takes these keywords:

    Parameters
    ----------
    out : SharedArray, optional
        Takes the result, whose shape it has; its dtype must be one that the result's is cast to by same-kind casting.
        It may be an argument itself (in place), but for reductions, and must not overlap one otherwise. For a function
        that returns several values, a tuple of them. Without it the result is a new array: private memory below
        `shmarray.config.inline_nbytes`, shared memory otherwise.
    pool : Pool, optional
        Workers other than those of `shmarray.get_pool()`.
    progress : bool or callable
        True: show a bar. A function is called with (chunks done, chunks in all) now and then.
    timeout : float, optional
        Seconds. When they have passed, workers that are still at the call are killed and replaced, whatever the
        function does. The call then runs in workers alone.
    retries : int
        How often a chunk is done again when its worker died over it (2). A chunk that is changed in place is never done
        again, unless with `crash_safe`.
    crash_safe : bool
        Each chunk of `out`, or of what is changed in place, is changed once or not at all, whatever dies
        (docs/reliability_exactly_once.md). The call then runs in workers alone.
    chunks : int or tuple of int, optional
        Of `chunkwise` and `map_chunks` alone: the shape of a chunk. By default that of the first array that was made
        with `chunks=`, or about `shmarray.config.chunk_nbytes`.
    axis, keepdims
        Of `reduction` alone: as in NumPy.

    Raises
    ------
    TypeError, ValueError
        Before anything runs: arguments, keywords or what the function returns cannot be. The message says what to do.
    KernelCompileError
        Before anything runs: numba cannot compile the function; names the line. `jit=False` does without numba.
    KernelError
        The function raised; names the chunk, and has the worker's exception as its cause. It is an IndexError, too,
        where that is one. Chunks that were done stay done.
    KernelTimeoutError
        `timeout` has passed; names the chunks that are not done.
    WorkerDiedError
        A chunk ended its worker more often than `retries` allow.
    ChunksUnknownError
        Workers died while they changed chunks in place; names the chunks whose content is unknown.
    """

    _keywords: ClassVar[tuple[str, ...]] = ("out",)

    def __init__(self, function: Callable[..., Any], decorator: str, *, jit: bool, precise: bool, debug: bool) -> None:
        self.__wrapped__ = plain_function(function, decorator=decorator, jit=jit)
        self.__name__ = getattr(function, "__name__", "kernel")
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self._decorator = decorator
        self._jit, self._precise, self._debug = jit, precise, debug
        self._dispatcher: Any = None
        self._kernels: dict[Any, tuple[int, Any]] = {}

    def __repr__(self) -> str:
        return f"<{self._decorator} kernel {self.__name__}>"

    def _options(self, keywords: dict[str, Any]) -> Options:
        return Options.of(self.__name__, keywords, self._keywords)

    def _check_arity(self, given: int, taken: int) -> None:
        if given != taken:
            raise TypeError(f"{self.__name__} takes {count_arguments(taken)}; got {given}")

    def _key(self) -> Any:
        """What identifies the function's code."""
        return (compiler.fingerprint(self.__wrapped__), self._precise, self._debug)

    def _compiled(self) -> Any:
        """The numba function that stands for the user's."""
        if self._dispatcher is None:
            self._dispatcher = compiler.scalar(self.__wrapped__, precise=self._precise, debug=self._debug)
        return self._dispatcher

    def _code(self, form: str, facts: tuple[Any, ...], driver: Callable[[], Any]) -> tuple[int, Any]:
        """Number and machine code of a driver around the function; `form` and `facts` are what it depends on."""
        kernel = self._kernels.get((form, facts))
        if kernel is None:
            key = (form, self._key(), *facts)
            code = compiler.compile(driver, (int,) * 4, key=key, debug=self._debug, kernel=self.__wrapped__)
            kernel = self._kernels[form, facts] = (new_number(), code)
        return kernel


def count_arguments(count: int) -> str:
    return "1 argument" if count == 1 else f"{count} arguments"
