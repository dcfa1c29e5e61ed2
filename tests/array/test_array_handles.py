"""Pickling: what travels, what it becomes, what is refused."""

from __future__ import annotations

import multiprocessing
import pickle
from typing import Any

import numpy as np
import pytest

import shmarray as sa
from shmarray.array import handles, locate
from shmarray.errors import SegmentNotFoundError
from tests.second_process import Peer, run_program


def again(value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_holds_no_bytes_and_leads_to_the_same_memory(protocol: int) -> None:
    a = sa.zeros(100_000)
    payload = pickle.dumps(a, protocol)
    assert len(payload) < 1000
    b = pickle.loads(payload)
    b[5] = 1
    assert a[5] == 1
    assert type(b) is sa.SharedArray


def test_views_share_one_mapping_in_one_process() -> None:
    a = sa.zeros((10, 10))
    first, second = again((a[2:], a.T[::-1]))
    assert first.shm.address == second.shm.address == a.shm.address
    assert first.strides == a.strides
    assert second.strides == a.T[::-1].strides


def test_read_only_views_stay_read_only() -> None:
    a = sa.zeros(5, name="x")
    a.flags.writeable = False
    assert not again(a).flags.writeable
    b = again(sa.open("x", "r"))
    assert not b.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        b.flags.writeable = True


def test_names_travel() -> None:
    a = sa.zeros(5, name="named")
    assert again(a[1:]).name == "named"
    assert again(sa.zeros(3)).name is None


def test_private_and_copy_on_write_arrays_travel_by_value() -> None:
    a = sa.zeros(4, name="src")
    private = sa.open("src", "c")
    private[0] = 7
    b = again(private)
    assert (b.tolist(), b.is_shared, type(b)) == ([7, 0, 0, 0], False, sa.SharedArray)
    small = a + 1
    c = again(small)
    assert not np.shares_memory(c, small)
    assert c.tolist() == [1, 1, 1, 1]
    small.flags.writeable = False
    assert not again(small).flags.writeable
    fortran = (sa.zeros((2, 3)) + 1).T
    assert again(fortran).shape == (3, 2)


def test_a_second_process_writes_into_the_same_memory(peer: Peer) -> None:
    a = sa.zeros((4, 5))
    assert peer.evaluate("(args[0].__setitem__(slice(None), 3), args[0].sum())[1]", a[::2, ::-1]) == 30
    assert a.tolist() == [[3] * 5, [0] * 5, [3] * 5, [0] * 5]
    b = peer.evaluate("args[0][1]", a)
    assert np.shares_memory(b, a)


def test_arrays_that_others_made_outlive_them(peer: Peer) -> None:
    b = peer.evaluate("shmarray.ones(100_000)")
    assert b.sum() == 100_000
    peer.evaluate("None")
    b += 1
    assert b[-1] == 2


def test_standard_multiprocessing_carries_them() -> None:
    a = sa.zeros(3)
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe()
    with parent, child:
        child.send(a)
        parent.recv()[1] = 4
    assert a.tolist() == [0, 4, 0]


def test_a_handle_that_comes_too_late_says_why() -> None:
    with sa.config.override(handle_ttl_s=0.0):
        a = sa.zeros(100, name="short-lived")
        payload = pickle.dumps(a)
        a.unlink()
        del a
        sa.registry.gc()
        with pytest.raises(SegmentNotFoundError):
            pickle.loads(payload)


def test_damaged_handles_never_read_outside() -> None:
    a = sa.zeros(10)
    good = handles.export_view(a)
    assert good is not None
    for damage in ({2: 8}, {2: -8}, {2: 10**9}, {3: (11,)}, {4: (-8,)}, {4: (16,)}, {5: "<c16"}, {5: "|O"}):
        bad = tuple(damage.get(place, part) for place, part in enumerate(good))  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="damaged handle"):
            handles.attach_view(*bad, kind=sa.SharedArray)


def test_locate_tells_segment_and_offset() -> None:
    a = sa.zeros((4, 5), "i4")
    for view, offset in ((a, 0), (a[1:], 20), (a[:, 2], 8), (a[::-1, ::-1], 76), (np.asarray(a)[3], 60)):
        place = locate(view)
        assert place is not None
        assert place.segment is a.shm
        assert place.offset_bytes == offset
    assert locate(np.zeros(3)) is None
    assert locate(a + 1) is None


def test_object_arrays_travel_only_by_value() -> None:
    things = sa.array([1, 2]).astype(object)
    assert things.shm is None
    assert again(things).tolist() == [1, 2]


def test_unnamed_arrays_reach_an_unrelated_program(tmp_path: Any) -> None:
    a = sa.array(np.arange(1000))
    (tmp_path / "handle").write_bytes(pickle.dumps(a[::10]))
    printed = run_program(
        "import pickle, sys\na = pickle.load(open(sys.argv[1], 'rb'))\na += 1\nprint(a.sum())",
        str(tmp_path / "handle"),
    )
    assert int(printed) == np.arange(0, 1000, 10).sum() + 100
    assert a[10] == 11
