"""CSV tables, read and written in one way."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from earface.core.errors import InputError
from earface.core.files import atomic_write

BOX_COLUMNS, SUBJECT_COLUMN, SIDE_COLUMN = "x,y,width,height", "subject", "side"  # of an index of ears


def read_csv(path: Path) -> list[dict[str, str]]:
    """Its rows by column, at least one. Raises InputError for a file that is missing, empty or not UTF-8."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = list(csv.DictReader(stream, restval=""))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error})") from None
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
