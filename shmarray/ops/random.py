"""Random numbers over all cores: the same for a seed, whatever the number of workers and the chunks.

The generator counts (Philox4x32-10, `shmarray.kernels.random`): element `i` of an array is a function of the seed and
of how many numbers were drawn before, so it does not matter who makes which part.

>>> import shmarray as sa
>>> generator = sa.ops.random.Generator(seed=7)
>>> generator.uniform(size=3).shape
(3,)
"""

from __future__ import annotations

import math
import operator
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shmarray.array import SharedArray
from shmarray.ops.results import new_result
from shmarray.ops.units import options_of, run_units

__all__ = ["Generator", "integers", "normal", "permutation", "uniform"]

Array = np.ndarray[Any, Any]
Size = int | Sequence[int] | None

_BLOCK = 1024  # shmarray.kernels.random.BLOCK, which would load numba
_SHUFFLED = 1 << 20  # steps of a shuffle before Ctrl-C is seen

_positions = threading.Lock()  # guards every generator's `_position`, for moments


def _after_fork_in_child() -> None:
    # Another thread of the parent's may have held it. A position is replaced in one step, so it is whole.
    global _positions
    _positions = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Generator:
    """A stream of random numbers.

    Parameters
    ----------
    seed : int, sequence of int, numpy.random.SeedSequence or None
        None takes one from the operating system.

    Examples
    --------
    >>> import shmarray as sa
    >>> one, other = sa.ops.random.Generator(7), sa.ops.random.Generator(7)
    >>> _ = one.integers(10, size=3)  # draws three numbers
    >>> other.position = 3
    >>> int(one.integers(10)) == int(other.integers(10))
    True
    """

    def __init__(self, seed: Any = None) -> None:
        sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        # 128 bits of the seed: two words, one for the key and one for half of the counter.
        self._key = tuple(int(word) for word in sequence.generate_state(2, np.uint64))
        self._position = 0

    def __repr__(self) -> str:
        return f"<Generator at word {self._position} of its stream>"

    def __getstate__(self) -> tuple[Any, int]:
        return self._key, self._position

    def __setstate__(self, state: tuple[Any, int]) -> None:
        self._key, self._position = state

    @property
    def position(self) -> int:
        """How many 64-bit words of the stream are used up; may be set, to go anywhere at once."""
        return self._position

    @position.setter
    def position(self, word: int) -> None:
        word = operator.index(word)
        if not 0 <= word < 1 << 63:
            raise ValueError(f"a position is from 0 to 2**63 - 1; got {word}")
        with _positions:
            self._position = word

    def uniform(
        self,
        low: float = 0.0,
        high: float = 1.0,
        size: Size = None,
        *,
        dtype: npt.DTypeLike = np.float64,
        out: Any = None,
        **options: Any,
    ) -> Any:
        """Numbers from `low` up to `high`, without `high` itself (but for rounding).

        Parameters
        ----------
        size : int or sequence of int, optional
            Shape of the result; None gives one number, or fills `out`.
        dtype : float64 or float32
        out : SharedArray, optional
            C-contiguous; its dtype counts.
        **options
            `pool`, `progress`, `timeout`, `retries`.

        Returns
        -------
        SharedArray
        """
        low, high = float(low), float(high)
        if not math.isfinite(high - low):
            raise ValueError(f"uniform: low and high must be finite; got {low} and {high}")
        call = _Draw("uniform", size, _floating("uniform", dtype, out), out, options)
        bits = 52 if call.dtype == np.float64 else 24
        call.fill("fill_uniform", self, [np.float64(low), np.float64(high - low), np.int64(bits)])
        return call.given()

    def normal(
        self,
        loc: float = 0.0,
        scale: float = 1.0,
        size: Size = None,
        *,
        dtype: npt.DTypeLike = np.float64,
        out: Any = None,
        **options: Any,
    ) -> Any:
        """Normal numbers of mean `loc` and standard deviation `scale`; see :meth:`uniform` for the others."""
        loc, scale = float(loc), float(scale)
        if not scale >= 0:
            raise ValueError(f"normal: scale must not be negative; got {scale}")
        call = _Draw("normal", size, _floating("normal", dtype, out), out, options)
        call.fill("fill_normal", self, [np.float64(loc), np.float64(scale)], aligned=True)
        return call.given()

    def integers(
        self,
        low: int,
        high: int | None = None,
        size: Size = None,
        *,
        dtype: npt.DTypeLike = np.int64,
        endpoint: bool = False,
        out: Any = None,
        **options: Any,
    ) -> Any:
        """Integers from `low` up to `high` without it (with it if `endpoint`); of one argument, from 0 up to that.

        They are made by one multiplication each: some numbers are likelier than others by a share below
        `(high - low) / 2**64`.
        """
        low, high = operator.index(low), None if high is None else operator.index(high)
        if high is None:
            low, high = 0, low
        kind: np.dtype[Any] = np.dtype(dtype) if out is None else np.asarray(out).dtype
        if kind.kind not in "iu" or not kind.isnative:
            raise TypeError(f"integers: dtype must be of integers in native byte order; got {kind}")
        count, limits = high - low + bool(endpoint), np.iinfo(kind.name)
        if count < 1:
            raise ValueError(f"integers: nothing lies from {low} to {high}")
        if low < limits.min or low + count - 1 > limits.max:
            raise ValueError(f"integers: {low} to {low + count - 1} does not fit {kind}")
        call = _Draw("integers", size, kind, out, options)
        values = [np.uint64(low % (1 << 64)), np.uint64(count % (1 << 64))]
        call.fill("fill_integers", self, values, view=np.dtype(f"u{kind.itemsize}"))
        return call.given()

    def permutation(self, x: Any) -> SharedArray:
        """The numbers below `x` in random order, or a copy of an array with its first axis in random order.

        One step depends on the one before it, so one core does it.
        """
        source = None if isinstance(x, int | np.integer) else np.asarray(x)
        count = operator.index(x) if source is None else (len(source) if source.ndim else 0)
        if (source is not None and not source.ndim) or count < 0:
            raise ValueError(f"permutation takes a number of elements or an array with a first axis; got {x!r}")
        order = new_result((count,), np.dtype(np.int64))
        plain = order.view(np.ndarray)
        plain[...] = np.arange(count)
        start = self._take(count, aligned=False)
        key = [np.uint64(word) for word in self._key]
        top = count
        while top > 1:
            bottom = max(1, (top - 1) // _SHUFFLED * _SHUFFLED)
            values = [*key, np.uint64(start), np.int64(top), np.int64(bottom)]
            run_units("permutation", ("random", "shuffle"), values, [plain], 1, unit_nbytes=1)
            top = bottom
        if source is None:
            return order
        result = new_result(source.shape, source.dtype)
        np.take(source, plain, axis=0, out=result.view(np.ndarray))
        return result

    def _take(self, count: int, *, aligned: bool) -> int:
        """Use up so many words; which is the first."""
        with _positions:
            start = self._position + self._position % 2 if aligned else self._position
            self._position = start + (count + count % 2 if aligned else count)
        return start


class _Draw:
    """One call: where its numbers go."""

    def __init__(self, name: str, size: Size, dtype: np.dtype[Any], out: Any, options: dict[str, Any]) -> None:
        self.name, self.dtype, self.out = name, dtype, out
        self.options = options_of(name, options)
        self.scalar = size is None and out is None
        shape: tuple[int, ...]
        if size is None:
            shape = () if out is None else np.asarray(out).shape
        else:
            shape = tuple(map(operator.index, size)) if isinstance(size, Sequence) else (operator.index(size),)
        if min(shape, default=0) < 0:
            raise ValueError(f"{name}: size must not be negative; got {size!r}")
        if out is not None:
            if not isinstance(out, SharedArray):
                raise TypeError(f"{name}: out must be a SharedArray; got {type(out).__name__}")
            if out.shape != shape:
                raise ValueError(f"{name}: out has shape {out.shape}; size is {size!r}")
            if not out.flags.writeable or not out.flags.c_contiguous:
                raise ValueError(f"{name}: out must be writeable and C-contiguous")
        self.result = new_result(shape, dtype) if out is None else out

    def fill(
        self,
        kernel: str,
        generator: Generator,
        values: list[Any],
        *,
        aligned: bool = False,
        view: np.dtype[Any] | None = None,
    ) -> None:
        target = self.result.view(np.ndarray).reshape(-1)
        start = generator._take(target.size, aligned=aligned)
        inputs = [*(np.uint64(word) for word in generator._key), np.uint64(start), *values]
        run_units(
            self.name,
            ("random", kernel),
            inputs,
            [target if view is None else target.view(view)],
            -(-target.size // _BLOCK),
            unit_nbytes=8 * _BLOCK,
            options=self.options,
        )

    def given(self) -> Any:
        return self.result[()] if self.scalar else self.result


def _floating(name: str, dtype: npt.DTypeLike, out: Any) -> np.dtype[Any]:
    kind = np.dtype(dtype) if out is None else np.asarray(out).dtype
    if kind not in (np.float64, np.float32) or not kind.isnative:
        raise TypeError(f"{name}: dtype must be float64 or float32; got {kind}")
    return kind


def uniform(low: float = 0.0, high: float = 1.0, size: Size = None, *, seed: Any = None, **more: Any) -> Any:
    """:meth:`Generator.uniform` of a new generator.

    Examples
    --------
    >>> import shmarray as sa
    >>> bool((sa.ops.random.uniform(size=9, seed=1) == sa.ops.random.uniform(size=9, seed=1)).all())
    True
    """
    return Generator(seed).uniform(low, high, size, **more)


def normal(loc: float = 0.0, scale: float = 1.0, size: Size = None, *, seed: Any = None, **more: Any) -> Any:
    """:meth:`Generator.normal` of a new generator."""
    return Generator(seed).normal(loc, scale, size, **more)


def integers(low: int, high: int | None = None, size: Size = None, *, seed: Any = None, **more: Any) -> Any:
    """:meth:`Generator.integers` of a new generator."""
    return Generator(seed).integers(low, high, size, **more)


def permutation(x: Any, *, seed: Any = None) -> SharedArray:
    """:meth:`Generator.permutation` of a new generator."""
    return Generator(seed).permutation(x)
