"""The fault table as a whole: every row has a test that bears its number, and docs/reliability.md says where."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "reliability.md"
ROWS = range(1, 52)


def files_by_row() -> dict[int, set[str]]:
    """The files with tests that bear a row's number."""
    found: dict[int, set[str]] = {row: set() for row in ROWS}
    for path in TESTS.rglob("test_*.py"):
        for numbers in re.findall(r"^def test_rows?_((?:\d\d(?:_and_)?)+)_", path.read_text(), re.MULTILINE):
            for number in re.findall(r"\d\d", numbers):
                found[int(number)].add(path.stem)
    return found


def test_every_row_has_a_test_that_bears_its_number() -> None:
    assert [row for row, files in files_by_row().items() if not files] == []


def test_the_documented_table_has_every_row_and_names_files_that_have_a_test_of_it() -> None:
    found = files_by_row()
    documented = dict.fromkeys(ROWS, "")
    for number, rest in re.findall(r"^\| (\d+) \|(.*)\|$", TABLE.read_text(), re.MULTILINE):
        documented[int(number)] += rest
    missing = {row: files for row, files in found.items() if not any(f"{name}`" in documented[row] for name in files)}
    assert missing == {}, "row: the files with its tests, none of which the table names for it"
