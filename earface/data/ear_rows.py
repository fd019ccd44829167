"""Which ears there are, from a folder or a CSV, and which subjects a file puts in validation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.core.files import read_json
from earface.core.notices import warn
from earface.data.annotations import checked_side
from earface.data.folders import DataRoot, list_images
from earface.data.names import person_name, warn_of_odd_names
from earface.data.tables import BOX_COLUMNS, SIDE_COLUMN, SUBJECT_COLUMN, read_csv, require_columns

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class EarRow:
    """One ear: a picture, whose it is, where in it, and which."""

    path: Path
    name: str  # the path below the images folder, or as the index writes it
    subject: str
    box: Box | None  # x y width height, pixels
    side: str = ""  # l, r, or empty for unknown
    further: Mapping[str, str] = field(default_factory=dict, hash=False)  # the other columns of the index


def rows_from_folder(images: Path, pattern: re.Pattern[str] | None) -> list[EarRow]:
    """Every photograph below `images`. Its subject is the first folder, or what `pattern` finds.

    Raises InputError where no picture lies in a folder and there is no pattern: two of one person may look alike.
    """
    rows, flat = [], 0
    for path in list_images(images):
        name = path.relative_to(images).as_posix()
        rows.append(EarRow(path, name, person_name(_subject_of(name, pattern)), None))
        flat += pattern is None and "/" not in name
    warn_of_odd_names((row.subject for row in rows), images)
    if flat == len(rows):
        raise InputError(
            f"{images}: no picture lies in a folder, so the subjects are unknown: make one folder for each, or give "
            "`index` (a CSV) or `subject_pattern` (of the file name; '.+' where each picture shows another person)"
        )
    if flat:
        warn(
            f"{images}: {flat} of {len(rows)} pictures lie in no folder, so each counts as a subject of its own: two "
            "pictures of one person may end up on both sides; name the subjects by folders, a subject pattern or an "
            "index"
        )
    return rows


def rows_from_index(
    images: Path,
    index: Path,
    file_column: str,
    subject_column: str,
    box_columns: str,
    side_column: str,
    pattern: re.Pattern[str] | None,
) -> list[EarRow]:
    """The rows of a CSV. Without a subject column the subject is read from the path, as in a folder."""
    table = read_csv(index)
    names = table[0]
    boxes = [column.strip() for column in box_columns.split(",")]
    require_columns(table, [file_column], index, "; name it by `file_column`")
    if len(boxes) != 4:
        raise InputError(f"`box_columns` {box_columns}: expected four column names, as in {BOX_COLUMNS}")
    given = (box_columns, BOX_COLUMNS, boxes), (subject_column, SUBJECT_COLUMN, [subject_column])
    for written, usual, columns in (*given, (side_column, SIDE_COLUMN, [side_column])):
        if written != usual:  # the usual ones may be absent
            require_columns(table, columns, index)
    has_boxes, has_subjects = all(column in names for column in boxes), subject_column in names
    used = {each.casefold() for each in (file_column, subject_column, side_column, *(boxes if has_boxes else ()))}
    root, rows, missing = DataRoot(images), [], []
    for record in table:
        try:
            path = root.resolve(record[file_column] or "")
            box = _box(record, boxes) if has_boxes else None
            named = record[subject_column] if has_subjects else _subject_of(_name_below(images, path), pattern)
            subject = person_name(named)
            if not subject:
                raise InputError(f"column {subject_column!r} is empty")
            side = checked_side(record.get(side_column, ""))
        except InputError as error:
            raise InputError(f"{index} line {record.line}: {error}") from None
        if not path.is_file():
            missing.append(f"line {record.line} {record[file_column]}")
        further = {name: record[name] for name in names if name and name.casefold() not in used}
        rows.append(EarRow(path, record[file_column], subject, box, side, further))
    if missing:
        raise InputError(f"{index}: {len(missing)} of its files are not in {images}: {'; '.join(missing[:3])}")
    warn_of_odd_names((row.subject for row in rows), index)
    if not has_subjects and pattern is None:
        warn(f"{index} has no column {subject_column!r}: each folder, or picture in no folder, counts as one subject")
    return rows


def fixed_split(path: Path, subjects: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) bool, True = validation, of a JSON {"val": [subjects], ...} or a CSV with columns subject and split."""
    if path.suffix.lower() == ".json":
        content = read_json(path)
        listed = content.get("val") if isinstance(content, dict) else None
        if not isinstance(listed, list):
            raise InputError(f'{path}: expected {{"val": [subjects]}}')
        validation = {person_name(str(subject)) for subject in listed}
    else:
        table = read_csv(path)
        require_columns(table, ("subject", "split"), path)
        wrong = next((record["split"] for record in table if record["split"] not in ("train", "val")), None)
        if wrong is not None:
            raise InputError(f"{path}: split {wrong!r} is neither train nor val")
        validation = {person_name(record["subject"]) for record in table if record["split"] == "val"}
    unknown = sorted(validation - set(subjects))
    if unknown:
        raise InputError(f"{path}: {len(unknown)} validation subject(s) have no picture: {', '.join(unknown[:5])}")
    is_val = np.array([subject in validation for subject in subjects])
    if is_val.all() or not is_val.any():
        raise InputError(f"{path}: puts all {len(set(subjects))} subjects on one side")
    return is_val


def _name_below(images: Path, path: Path) -> str:
    return (path.relative_to(images) if path.is_relative_to(images) else path).as_posix()


def _subject_of(name: str, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return name if name.startswith("/") else name.split("/")[0]  # a picture in no folder is its own subject
    match = pattern.search(name)
    subject = "" if match is None else match.group(1 if pattern.groups else 0)
    if not subject:
        raise InputError(f"`subject_pattern` {pattern.pattern} finds nothing in {name!r}")
    return subject


def _box(record: dict[str, str], columns: Sequence[str]) -> Box:
    try:
        x, y, width, height = (float(record[column]) for column in columns)
    except ValueError:
        raise InputError(f"box {[record[column] for column in columns]} is not four numbers") from None
    if not np.isfinite([x, y, width, height]).all():
        raise InputError(f"box {x} {y} {width} {height} is not finite")
    return x, y, width, height
