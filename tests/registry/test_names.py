"""Names: any text is a name or an error, and no two names lead to one file."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shmarray as sa
from shmarray import registry
from shmarray.registry import names
from shmarray.segment.mapping import DIRECTORY

#: Whatever a file system, a shell or a parser of ours might take for something else.
LETTERS = [*"/\\~.:-_ aZ0\0\n\t", "é", "\udcff", "\U0001d7d8", "\ufb01", "\u202e"]
AWKWARD = st.text(st.sampled_from(LETTERS), max_size=12)


def is_name(text: str) -> bool:
    try:
        names.check_name(text)
    except ValueError:
        return False
    return True


@given(st.one_of(st.text(max_size=220), AWKWARD, st.from_regex(r"[A-Za-z0-9_.-]{1,210}", fullmatch=True)))
def test_any_text_is_a_name_or_an_error(text: str) -> None:
    if not is_name(text):
        for refuse in (registry.info, registry.unlink, registry.attach, lambda name: registry.create(1, name=name)):
            with pytest.raises(ValueError, match=r"is no name for an array"):
                refuse(text)
        return
    file_name = names.public_name("n" * 48, text)
    assert os.path.dirname(os.path.normpath(f"{DIRECTORY}/{file_name}")) == DIRECTORY
    assert len(os.fsencode(file_name)) <= 255
    assert names.is_public(file_name)
    assert not names.is_private(file_name)
    assert names.label_of(file_name) == text
    assert file_name != names.lock_name("n" * 48)


@given(st.sampled_from(["a", "a.b", "a-", "_", "a.t", "a.lock"]), AWKWARD, st.sampled_from(["a", "a.b"]), AWKWARD)
def test_no_two_pairs_of_namespace_and_name_lead_to_one_file(first: str, name: str, second: str, other: str) -> None:
    if is_name(name) and is_name(other) and (first, name) != (second, other):
        assert names.public_name(first, name) != names.public_name(second, other)


@given(AWKWARD)
def test_a_namespace_is_one_or_an_error(text: str) -> None:
    try:
        with sa.config.override(namespace=text):
            assert "/" not in text
            assert "~" not in text
            assert not text.startswith(".")
            assert registry.list() == []
    except ValueError as error:
        assert "namespace must be" in str(error)


@pytest.mark.parametrize("thing", [None, 3, b"x", ["x"], ("x",), object()])
def test_what_is_no_text_is_a_type_error(thing: object) -> None:
    with pytest.raises(TypeError, match="must be a str"):
        names.check_name(thing)
