"""Results lie in memory as NumPy's do: the same strides, whatever the operands' order, broadcast or reversed, and with
dimensions of length 1, where NumPy's rules differ from function to function."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from tests.processes import run_python

Array = np.ndarray[Any, Any]

SHAPES = [(2, 3, 4), (2, 1, 4), (1, 3, 1), (3, 3), (1, 5), (2, 1, 3, 1)]
OPERATIONS: dict[str, Callable[[Array, Array], Any]] = {
    "ufunc of one": lambda x, y: np.sqrt(x),
    "ufunc of two": np.add,
    "ufunc with a number": lambda x, y: x * 2,
    "ufunc that converts": lambda x, y: x + y.astype("f4"),
    "ufunc of two results": np.divmod,
    "comparison": np.less,
    "broadcast from the right": lambda x, y: x + y[..., 0:1],
    "broadcast from the left": lambda x, y: x[0] + y,
    "accumulate": lambda x, y: np.add.accumulate(x, axis=-1),
    "cumsum": lambda x, y: np.cumsum(x, axis=0),
    "outer": np.add.outer,
    "concatenate": lambda x, y: np.concatenate([x, y], axis=-1),
    "concatenate with itself": lambda x, y: np.concatenate([x, x, x], axis=0),
    "stack": lambda x, y: np.stack([x, y], axis=1),
    "sum": lambda x, y: np.sum(x, axis=0, keepdims=True),
    "copy as it is": lambda x, y: np.copy(x, order="K"),
    "copy in any order": lambda x, y: x.copy("A"),
    "astype": lambda x, y: x.astype("f4"),
    "astype in Fortran order": lambda x, y: x.astype("i4", order="F"),
    "ones_like": lambda x, y: np.ones_like(x),
    "imag": lambda x, y: np.imag(x),
}


def _layouts(shape: tuple[int, ...]) -> Iterator[tuple[Array, Callable[[Array], Array]]]:
    """A base, and how to see an array of that shape in it."""
    plain = np.arange(1.0, 1.0 + np.prod(shape)).reshape(shape)
    for order in itertools.permutations(range(len(shape))):
        back = np.argsort(order)
        yield np.ascontiguousarray(plain.transpose(order)), lambda base, back=back: base.transpose(back)
    yield np.repeat(plain, 2, axis=-1), lambda base: base[..., ::2]
    yield plain[::-1].copy(), lambda base: base[::-1]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_results_have_the_strides_of_numpys(operation: Callable[[Array, Array], Any]) -> None:
    with sa.config.override(inline_nbytes=1, parallel_nbytes=1 << 40):  # all shared, all by this process
        for shape in SHAPES:
            layouts = [(see(base), see(sa.array(base))) for base, see in _layouts(shape)]
            for (x, shared_x), (y, shared_y) in itertools.product(layouts, layouts[:3] + layouts[-1:]):
                expected, found = operation(x, y), operation(shared_x, shared_y)
                if not isinstance(expected, tuple):
                    expected, found = (expected,), (found,)
                for one, other in zip(expected, found, strict=True):
                    where = f"{x.shape}: {x.strides} and {y.strides}"
                    assert isinstance(other, sa.SharedArray)
                    assert (other.strides, other.dtype) == (one.strides, one.dtype), where
                    assert other.flags.writeable == one.flags.writeable, where
                    np.testing.assert_array_equal(np.asarray(other), one, err_msg=where)


#: In a process of its own: NumPy never lets go of the operand of an overridden `ufunc.reduce` that raises.
ERRORS = """
import numpy as np
import shmarray as sa

CALLS = [
    lambda x: np.divide.accumulate(x, axis=(0, 1), dtype="i4"),
    lambda x: np.subtract.accumulate(x, axis=5, dtype="M8[s]"),
    lambda x: np.add.accumulate(x, axis="x"),
    lambda x: np.add.accumulate(x, dtype="x"),
    lambda x: np.add.accumulate(x, out=np.empty(1)),
    lambda x: np.add.reduce(x, axis=2),
    lambda x: np.add.reduce(x, axis=(0, 0)),
    lambda x: np.add.reduce(x, dtype="x"),
    lambda x: np.add.reduce(x, out=np.empty(5)),
    lambda x: np.subtract.reduce(x, axis=None),
    lambda x: np.sqrt.reduce(x),
    lambda x: np.maximum.reduce(x[:0]),
    lambda x: np.add(x, x, dtype="i4"),
    lambda x: np.add(x, x, casting="bogus"),
    lambda x: np.add(x, x[:1, :2]),
    lambda x: np.concatenate([x, x[0]]),
    lambda x: np.concatenate([x, x], axis=2),
    lambda x: x.astype("i4", casting="safe"),
    lambda x: x.sum(axis=2),
    lambda x: np.sort(x, axis=2),
    lambda x: x[5000],
    lambda x: x.reshape(7),
    lambda x: x.copy("bogus"),
    lambda x: x.copy(3),
    lambda x: x.flatten("bogus"),
]

def outcome(call, array):
    try:
        return call(array)
    except Exception as error:
        return type(error), str(error)

for rows in (2, 4000):
    plain = np.ones((rows, 3))
    for index, call in enumerate(CALLS):
        theirs, ours = outcome(call, plain), outcome(call, sa.array(plain))
        assert isinstance(theirs, tuple), (index, "NumPy takes it")
        assert ours == theirs, (index, rows, theirs, ours)
print("the same")
"""


def test_errors_are_numpys_in_type_and_text() -> None:
    assert run_python(ERRORS).stdout == "the same\n"
