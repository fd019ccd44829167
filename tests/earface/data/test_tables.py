from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earface.core.errors import InputError
from earface.core.notices import DataWarning
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


EARS = [{"file": "a.png", "Subject": "Jos\u00e9"}, {"file": "b b.png", "Subject": ""}]
DRESSES = {
    "bom": "\ufefffile,Subject\r\na.png,Jos\u00e9\r\nb b.png,\r\n".encode(),
    "excel's line": "sep=;\nfile;Subject\na.png;Jos\u00e9\nb b.png;\n".encode(),
    "semicolons": "file;Subject\na.png;Jos\u00e9\nb b.png;\n".encode(),
    "tabs and a trailing one": "file\tSubject\t\na.png\tJos\u00e9\t\nb b.png\t\n".encode(),
    "blanks": " file , Subject\n  a.png , Jos\u00e9  \n b b.png, \n".encode(),
    "empty lines": "\n\nfile,Subject\n\na.png,Jos\u00e9\n,\nb b.png,\n\n".encode(),
    "utf-16": "file\tSubject\na.png\tJos\u00e9\nb b.png\n".encode("utf-16"),
    "old macs": "file,Subject\ra.png,Jos\u00e9\rb b.png,\r".encode(),
    "a short row": "file,Subject\na.png,Jos\u00e9\nb b.png\n".encode(),
}


@pytest.mark.parametrize("dress", DRESSES)
def test_a_table_is_read_in_whatever_dress_it_comes(tmp_path: Path, dress: str) -> None:
    (tmp_path / "t.csv").write_bytes(DRESSES[dress])
    assert read_csv(tmp_path / "t.csv") == EARS


def test_windows_letters_are_read_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("file,Subject\na.png,Jos\u00e9\nb b.png,\n".encode("cp1252"))
    with pytest.warns(DataWarning, match=r"is not UTF-8 \(line 2\) and was read as Windows-1252"):
        assert read_csv(tmp_path / "t.csv") == EARS


def test_columns_are_found_in_any_case_and_rows_know_their_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('File,X\n"a\nb.png",1\n\nc.png,2\n')
    first, second = read_csv(tmp_path / "t.csv")
    assert (first["file"], first["x"], first.get("y"), "FILE" in first, "y" in first) == (
        "a\nb.png",
        "1",
        "",
        True,
        False,
    )
    assert (first.line, second.line) == (3, 5)
    with pytest.raises(KeyError):
        first["y"]


CELLS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8).map(str.strip)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=5))
def test_every_table_comes_back_as_written(rows: list[list[str]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "t.csv")
        write_csv(path, ("one", "two", "three"), rows)
        kept = [row for row in rows if any(row)]
        if kept:
            assert [list(row.values()) for row in read_csv(path)] == kept
