"""NumPy functions and methods: SharedArrays in, SharedArrays out, the same values, the table in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray.array import functions, implements

SIZES = [(4, 6), (300, 40)]  # private results; shared ones


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table, to be changed at will."""
    monkeypatch.setattr(functions, "_TABLE", dict(functions._TABLE))


def data(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).normal(size=shape)


def same(result: Any, expected: Any) -> None:
    if isinstance(expected, (list, tuple)):
        assert type(result) is type(expected)
        for part, wanted in zip(result, expected, strict=True):
            same(part, wanted)
        return
    if isinstance(expected, np.ndarray):
        assert type(result) is sa.SharedArray
        assert result.dtype == expected.dtype
    else:
        assert type(result) is type(expected)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))


CALLS: dict[str, Callable[[Any], Any]] = {
    "sort": lambda a: np.sort(a, axis=0),
    "argsort": lambda a: np.argsort(a, axis=None, kind="stable"),
    "unique": lambda a: np.unique(np.round(a), return_counts=True),
    "concatenate": lambda a: np.concatenate([a, a[::-1]], axis=1),
    "concatenate of mixed": lambda a: np.concatenate((a, np.asarray(a, "f4"), [[1] * a.shape[1]])),
    "concatenate flat": lambda a: np.concatenate([a, a], axis=None),
    "stack": lambda a: np.stack([a, a], axis=-1),
    "vstack": lambda a: np.vstack((a, a)),
    "block": lambda a: np.block([[a, a], [a, a]]),
    "where": lambda a: np.where(a > 0, a, 0),
    "clip": lambda a: np.clip(a, -0.5, 0.5),
    "cumsum": lambda a: np.cumsum(a, axis=1),
    "histogram": lambda a: np.histogram(a, bins=7),
    "median": lambda a: np.median(a, axis=0),
    "percentile": lambda a: np.percentile(a, [10, 50]),
    "nonzero": lambda a: np.nonzero(a > 0),
    "tile": lambda a: np.tile(a, (2, 1)),
    "dot": lambda a: np.dot(a, a.T),
    "einsum": lambda a: np.einsum("ij,ij->i", a, a),
    "eigh": lambda a: np.linalg.eigh(np.dot(a.T, a)),
    "svd": lambda a: np.linalg.svd(a, compute_uv=False),
    "fft": lambda a: np.fft.fft(a, axis=0),
    "pad": lambda a: np.pad(a, 1, mode="reflect"),
    "gradient": lambda a: np.gradient(a),
    "split": lambda a: np.split(a, 2),
    "meshgrid": lambda a: np.meshgrid(a[0], a[:, 0]),
    "allclose": lambda a: np.allclose(a, a + 1e-12),
    "array_equal": lambda a: np.array_equal(a, a),
    "shape": np.shape,
    "nansum": lambda a: np.nansum(a),
    "average": lambda a: np.average(a, axis=0, weights=np.arange(len(a))),
    "apply_along_axis": lambda a: np.apply_along_axis(sorted, 0, a),
    "zeros_like": np.zeros_like,
    "copy": lambda a: np.copy(a),
    "mean": lambda a: np.mean(a, axis=0, keepdims=True),
    "std": lambda a: np.std(a, ddof=1),
    "var": lambda a: np.var(a, axis=1, correction=1),
    "max": lambda a: np.max(a, axis=1, initial=0.5, where=np.asarray(a) > 0),
    "sum": lambda a: np.sum(a, axis=0, dtype="f4"),
    "any": lambda a: np.any(a > 2, axis=0),
    "amin": lambda a: np.amin(a),
    "astype": lambda a: np.astype(a, "f4"),
    "linspace like": lambda a: np.linspace(a[0], a[1], 3),
    "take": lambda a: np.take(a, [2, 0], axis=0),
    "roll": lambda a: np.roll(a, 3),
    "searchsorted": lambda a: np.searchsorted(np.sort(a.ravel()), [0.0, 0.1]),
    "i0": lambda a: np.i0(a),
    "array2string": lambda a: np.array2string(a[:2, :2]),
    "method sum": lambda a: a.sum(axis=0),
    "method mean": lambda a: a.mean(1),
    "method std": lambda a: a.std(axis=0, ddof=1),
    "method round": lambda a: a.round(1),
    "method clip": lambda a: a.clip(min=0),
    "method cumsum": lambda a: a.cumsum(),
    "method argsort": lambda a: a.argsort(axis=0),
    "method dot": lambda a: a.dot(a.T),
    "method take": lambda a: a.take([3, 1]),
    "method nonzero": lambda a: (a > 0).nonzero(),
    "method compress": lambda a: a.compress([True, False, True], axis=0),
    "method trace": lambda a: a.trace(),
    "method repeat": lambda a: a.repeat(2),
    "method max": lambda a: a.max(axis=0, initial=0),
    "method any": lambda a: (a > 1).any(),
    "method astype": lambda a: a.astype("c8"),
    "method astype int": lambda a: (a * 10).astype("i2", order="F"),
    "method flatten": lambda a: a.T.flatten(),
    "method flatten F": lambda a: a.flatten("F"),
    "method copy": lambda a: a.T.copy(),
    "method copy K": lambda a: a.T.copy("K"),
    "method copy F": lambda a: a.copy(order="F"),
    "method ravel": lambda a: a.ravel(),
    "method diagonal": lambda a: a.diagonal(),
    "fancy index": lambda a: a[[0, 2, 1]],
    "mask": lambda a: a[a > 0],
}


@pytest.mark.parametrize("shape", SIZES, ids=["small", "large"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_functions_and_methods_are_numpys(call: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    x = data(shape)
    a = sa.array(x)
    same(call(a), call(x))
    assert np.array_equal(a, x), "the argument is as it was"


def test_large_results_of_functions_are_shared() -> None:
    a = sa.array(data((300, 40)))
    for result in (
        np.sort(a),
        np.concatenate([a, a]),
        np.where(a > 0, a, 0),
        np.vstack([a, a]),
        a.astype("f4"),
        a.copy(),
    ):
        assert result.is_shared
    assert all(part.is_shared for part in np.gradient(a))


def test_views_stay_views_of_the_segment() -> None:
    a = sa.zeros((4, 6))
    for view in (np.transpose(a), np.reshape(a, -1), np.ravel(a), np.squeeze(a[:1]), np.split(a, 2)[0], np.flip(a), a.T,
                 np.expand_dims(a, 0), np.moveaxis(a, 0, 1), np.broadcast_to(a, (2, 4, 6)), np.diagonal(a),
                 np.lib.stride_tricks.sliding_window_view(a, (2, 2)), np.real(a)):  # fmt: skip
        assert isinstance(view, sa.SharedArray)
        assert view.shm is a.shm
        assert np.shares_memory(view, a)


def test_functions_that_change_their_argument_change_the_memory() -> None:
    a = sa.zeros(5)
    np.copyto(a, [5, 3, 1, 4, 2])
    np.put(a, [0], 9)
    np.place(a, a == 3, 7)
    np.putmask(a, a == 1, 8)
    assert a.tolist() == [9, 7, 8, 4, 2]
    a.sort()
    assert a.tolist() == [2, 4, 7, 8, 9]
    a[:] = a[::-1]
    a.partition(2)
    assert a[2] == 7
    square = sa.zeros((2, 2))
    np.fill_diagonal(square, 1)
    assert square.tolist() == [[1, 0], [0, 1]]


def test_identity_is_kept() -> None:
    a, out = sa.array([3.0, 1.0]), sa.zeros(2)
    assert np.cumsum(a, out=out) is out
    assert np.clip(a, 0, 2, out=out) is out
    assert a.cumsum(out=out) is out
    assert np.mean(sa.ones((2, 2)), axis=0, out=out) is out
    assert np.concatenate([a[:1], a[1:]], out=out) is out
    assert np.atleast_1d(a) is a
    plain = np.zeros(2)
    assert np.cumsum(a, out=plain) is plain
    assert np.cumsum(plain, out=a) is a
    assert a.astype(float, copy=False) is a


def test_views_of_plain_arguments_are_not_cut_off() -> None:
    plain = np.zeros((1, 100_000))
    _, spread = np.broadcast_arrays(sa.zeros((2, 1)), plain)
    assert np.shares_memory(spread, plain)


def test_implements_registers_functions_and_methods(table: None) -> None:
    seen = []

    @implements(np.ptp, np.median)
    def version(a: Any, axis: Any = None) -> Any:
        seen.append(type(a))
        return NotImplemented if axis is not None else 42

    a = sa.ones((2, 2))
    assert np.ptp(a) == np.median(a) == 42
    assert np.ptp(np.ones(2)) == 0
    assert np.median(a, axis=0).tolist() == [1, 1]
    assert seen == [sa.SharedArray] * 3

    implements(np.std)(lambda a, *args, **kwargs: "own")
    assert a.std() == np.std(a) == "own"

    implements(np.ndarray.sort)(lambda a, *args, **kwargs: seen.append("sorted"))
    a.sort()
    assert seen[-1] == "sorted"


def test_copies_are_copies() -> None:
    import copy

    for dtype in ("f8", "M8[s]", [("x", "i4"), ("y", "S3")]):
        a = sa.zeros((3, 2), dtype)
        for made in (
            copy.copy(a),
            copy.deepcopy(a),
            copy.deepcopy([a])[0],
            a.copy(),
            np.array(a),
            np.copy(a),
        ):
            assert made.dtype == a.dtype
            assert made.shape == a.shape
            assert not np.shares_memory(made, a)
    things = sa.zeros(2).astype(object)
    things[0] = [1]
    assert copy.deepcopy(things)[0] is not things[0]


def test_repr_and_str_are_numpys() -> None:
    a = sa.array([[1, 2], [3, 4]])
    assert repr(a) == "SharedArray([[1, 2],\n             [3, 4]])"
    assert str(a) == str(np.asarray(a))
    assert np.array_repr(a) == repr(a)
    assert repr(sa.zeros(5000)).startswith("SharedArray([0., 0., 0., ..., 0., 0., 0.]")
    assert repr(sa.zeros(1, "f4")) == "SharedArray([0.], dtype=float32)"


def test_other_protocols_share_memory() -> None:
    a = sa.zeros(4)
    np.from_dlpack(a)[0] = 1
    memoryview(a)[1] = 2
    np.asarray(a)[2] = 3
    np.frombuffer(a)[3] = 4
    assert a.tolist() == [1, 2, 3, 4]
    assert type(np.asarray(a)) is np.ndarray
    assert isinstance(np.asanyarray(a), sa.SharedArray)


def test_structured_fields_are_views() -> None:
    a = sa.zeros(3, [("x", "f4"), ("y", "i8")])
    a["y"] += 2
    assert a["y"].is_shared
    assert a[1].item() == (0.0, 2)
    assert type(a["x"]) is sa.SharedArray


def test_calling_the_class_says_what_to_use() -> None:
    with pytest.raises(TypeError, match=r"use shmarray\.empty"):
        sa.SharedArray((3,))


def test_names_that_are_not_here_say_what_to_use() -> None:
    array = sa.ones(3)
    for name, instead in {"close": "`del` the last view", "destroy": r"array\.unlink\(\)"}.items():
        assert not hasattr(array, name)
        with pytest.raises(AttributeError, match=f"no attribute '{name}': .*{instead}"):
            getattr(array, name)
    for name, instead in {
        "arange": r"numpy\.arange takes SharedArrays",
        "shared_array": r"shmarray\.array\(x\)",
        "Lock": r"shmarray\.multiprocessing",
        "rolling_mean": r"shmarray\.ops\.rolling_mean",
        "usage": r"shmarray\.registry\.usage",
    }.items():
        with pytest.raises(AttributeError, match=f"module 'shmarray' has no attribute '{name}': .*{instead}"):
            getattr(sa, name)
    with pytest.raises(AttributeError, match="^module 'shmarray' has no attribute 'no_such_thing'$"):
        sa.no_such_thing  # noqa: B018
    with pytest.raises(AttributeError, match="no setting 'worker'; there are namespace, max_nbytes, workers"):
        sa.config.worker  # noqa: B018


def test_hints_lead_to_what_is_there() -> None:
    import multiprocessing

    from shmarray._absent import _NAMES

    for text, names in _NAMES.items():
        assert not set(names) & set(dir(sa)), "a name that is here needs no hint"
        home = {"it is in": multiprocessing, "it is shmarray.registry": sa.registry, "it is shmarray.ops": sa.ops}
        for module in (module for start, module in home.items() if text.startswith(start)):
            assert all(hasattr(module, name) for name in names)


def test_private_arrays_say_what_they_are() -> None:
    a = sa.ones(3) + 1
    assert (a.shm, a.name, a.is_shared, a.keep, a.chunks) == (None, None, False, False, (3,))
    with pytest.raises(ValueError, match="private"):
        a.unlink()


def test_compiled_code_takes_it_as_a_plain_array() -> None:
    numba = pytest.importorskip("numba")
    assert numba.typeof(sa.zeros(3)) == numba.typeof(np.zeros(3))
    assert sa.SharedArray.__numba_array_subtype_dispatch__
