from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from earface.core.errors import InputError
from earface.data.tables import read_csv, write_csv

AWKWARD = ["plain", "with, comma", 'with "quotes"', "two\nlines", "Bjørn Ångström 山", " blanks ", ""]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = [(text, number) for number, text in enumerate(AWKWARD)]
    write_csv(tmp_path / "table.csv", ("name", "number"), rows)
    written = [{"name": name.strip(), "number": str(number)} for name, number in rows]
    assert read_csv(tmp_path / "table.csv") == written


def test_a_file_name_that_is_no_utf_8_is_escaped(tmp_path: Path) -> None:
    write_csv(tmp_path / "table.csv", ("file",), [(os.fsdecode(b"caf\xe9.png"),)])
    assert read_csv(tmp_path / "table.csv") == [{"file": r"caf\udce9.png"}]


def test_rows_that_fail_leave_the_file_that_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[int]]:
        yield (1,)
        raise RuntimeError("no more")

    path = tmp_path / "table.csv"
    write_csv(path, ("number",), [(0,)])
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="no more"):
        write_csv(path, ("number",), failing())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n", "has no rows"),
        (b"", "has no rows"),
        (b"a\n\xff\x81\n", "not a text file in UTF-8"),
        (b"a\n\0\n", "not a text file"),
        (b"a,b,a\n1,2,3\n", "two columns 'a'"),
        (b"a,b\n1,2\n\n3,4,5\n", "line 4: has 3 cells, but the header 2"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_csv(path)
    with pytest.raises(InputError, match="no_such"):
        read_csv(tmp_path / "no_such.csv")
