"""CSV tables, read and written in one way."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from earface.core.errors import InputError
from earface.core.files import atomic_write
from earface.core.limits import MAX_CSV_BYTES
from earface.core.text import decoded

BOX_COLUMNS, SUBJECT_COLUMN, SIDE_COLUMN = "x,y,width,height", "subject", "side"  # of an index of ears
DELIMITERS = ",;\t|"


class Row(dict[str, str]):
    """The cells of a row by column; a column is found whatever the case of its letters."""

    line: int = 0  # of the file, from 1 on

    def __missing__(self, column: str) -> str:
        folded = column.casefold()
        for name, value in self.items():
            if name.casefold() == folded:
                return value
        raise KeyError(column)

    def __contains__(self, column: object) -> bool:
        return any(name.casefold() == str(column).casefold() for name in self)

    def get(self, column: str, default: str = "") -> str:  # type: ignore[override]
        with suppress(KeyError):
            return self[column]
        return default


def read_csv(path: Path) -> list[Row]:
    """Its rows by column, at least one; blanks around names and cells do not count, nor do empty lines.

    Read are UTF-8 and UTF-16 with or without a byte order mark (UTF-16: with), cells between commas, semicolons, tabs
    or bars, and, with a warning, what is no UTF-8 as Windows-1252. Of a row that is shorter than the header the other
    cells are empty.
    Raises InputError for a file that is missing, empty or no text, a column that is there twice, and a row of more
    cells than the header.
    """
    try:
        if path.stat().st_size > MAX_CSV_BYTES:
            raise InputError(f"{path}: more than the limit of {MAX_CSV_BYTES:,} bytes")
        text = decoded(path.read_bytes(), path)
        return _rows(text, path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error})") from None


def require_columns(table: Sequence[Row], columns: Iterable[str], path: Path, advice: str = "") -> None:
    """Raise InputError for the first column that a table lacks. advice: the end of the error's line."""
    lacking = next((column for column in columns if column not in table[0]), None)
    if lacking is not None:
        raise InputError(f"{path}: no column {lacking!r} (it has {', '.join(table[0])}){advice}")


def _rows(text: str, path: Path) -> list[Row]:
    lines = io.StringIO(text, newline="")
    first = next((line for line in text.splitlines() if line.strip()), "")
    named = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)  # Excel's own line before the header
    reader = csv.reader(lines, delimiter=named[1] if named else max(DELIMITERS, key=first.count))
    cells_of = ([cell.strip() for cell in cells] for cells in reader)
    header = next((cells for cells in islice(cells_of, 1 if named else 0, None) if any(cells)), [])
    while header and not header[-1]:
        header.pop()  # a delimiter at the end of the line
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: has two columns {twice!r}: rename one")
    table = []
    for cells in cells_of:
        if not any(cells):
            continue
        if any(cells[len(header) :]):
            raise InputError(
                f"{path} line {reader.line_num}: has {len(cells)} cells, but the header {len(header)}: put a cell that "
                "holds the delimiter in quotes, or name the further columns"
            )
        row = Row(zip(header, [*cells, *[""] * len(header)], strict=False))
        row.line = reader.line_num
        table.append(row)
    if not table:
        raise InputError(f"{path}: has no rows")
    return table


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """UTF-8 with a header, whole or not at all. Bytes of a file name that are no UTF-8 are escaped."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
