"""Tables of people's own: CSV, read and written in one way."""

from __future__ import annotations

import csv
from pathlib import Path

from earface.core.errors import InputError


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
