"""Prepared ears on disk: the pictures in their form, and the teacher files that name them."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from earface.core.errors import InputError
from earface.core.files import read_json, write_json
from earface.core.progress import tracked
from earface.data.annotations import checked_side
from earface.data.ear_contract import STRETCH, EarAligner
from earface.data.ear_inspection import InspectedEar
from earface.data.ear_rows import EarRow
from earface.data.folders import DataRoot
from earface.data.images import read_ahead, read_image, write_image
from earface.data.npy import write_teacher_npy
from earface.data.tables import read_csv, write_csv

EARS, CONTRACT, INDEX = "ears", "ear_contract.json", "index.csv"  # the folder of the pictures, and two files in it
COLUMNS = ("file", "subject", "side", "source", *"xywh", "residual", "side_confidence", "misfit")  # of INDEX, first


def write_ears(
    out: Path,
    rows: Sequence[EarRow],
    found: Sequence[InspectedEar],
    aligner: EarAligner,
    size: int,
    collection: str,
) -> list[Path]:
    """OUT/ears/SUBJECT/NAME.png of each row, in its form; with them `index.csv` and `ear_contract.json`.

    Further columns of the rows follow COLUMNS, but for those of the same names. Those of an earlier preparation go.
    Returns the paths.
    """
    folder = out / EARS
    clear_ears(out)
    paths = _paths(folder, rows)
    write_json(folder / CONTRACT, {"contract": aligner.contract.id, "size": size, "collection": collection})

    def write(index: int) -> None:
        picture = read_image(rows[index].path)
        write_image(paths[index], aligner.image(picture, found[index].located, size))

    for _ in tracked(read_ahead(write, range(len(rows))), "writing ears", len(rows)):
        pass
    further = [name for name in dict.fromkeys(name for row in rows for name in row.further) if name not in COLUMNS]
    lines = [_line(*each, folder) for each in zip(rows, found, paths, strict=True)]
    for line, row in zip(lines, rows, strict=True):
        line += [row.further.get(name, "") for name in further]
    write_csv(folder / INDEX, [*COLUMNS, *further], lines)
    return paths


def clear_ears(out: Path) -> None:
    """Remove the pictures of an earlier preparation. Raises InputError for a folder of other pictures."""
    folder = out / EARS
    if not folder.exists():
        return
    if not (folder / CONTRACT).is_file():
        raise InputError(f"{folder}: is not of an earlier preparation; move it away, or give another `out`")
    shutil.rmtree(folder)


def contract_of_folder(folder: Path) -> str | None:
    """The id of the form that the pictures below a folder have; None where nothing says that they have one."""
    found = prepared_folder(folder)
    return None if found is None else stored_contract(found)


def collection_of_folder(folder: Path) -> str:
    """TeacherData.collection of the prepared ears that a folder is in; empty where it is unknown."""
    found = prepared_folder(folder)
    if found is None:
        return ""
    content = read_json(found / CONTRACT)
    return str(content.get("collection", "")) if isinstance(content, dict) else ""


def sides_of_folder(folder: Path) -> dict[Path, str]:
    """l, r, or empty for unknown, by the resolved path of each prepared ear; empty where none were prepared there."""
    prepared = prepared_folder(folder)
    if prepared is None or not (prepared / INDEX).is_file():
        return {}
    rows = read_csv(prepared / INDEX)
    root = prepared.resolve()
    try:
        return {root / row["file"]: checked_side(row["side"]) for row in rows}
    except (KeyError, InputError):
        raise InputError(f"{prepared / INDEX}: damaged; prepare the ears again with earface ears prepare") from None


def holds_prepared_ears(folder: Path) -> bool:
    """Whether it is the folder that ears were prepared in, whose pictures are not all ears."""
    return (folder / EARS / CONTRACT).is_file()


def prepared_folder(folder: Path) -> Path | None:
    """The folder of prepared ears that this is, or is in; None where it is no such."""
    return next((each for each in (folder, *folder.absolute().parents[:3]) if (each / CONTRACT).is_file()), None)


def stored_contract(folder: Path) -> str:
    """Of `prepared_folder`. Raises InputError where the file is damaged."""
    path = folder / CONTRACT
    try:
        return str(read_json(path)["contract"])
    except (InputError, KeyError, TypeError):
        raise InputError(f"{path}: damaged; prepare the ears again with earface ears prepare") from None


def write_split(
    path: Path,
    rows: Sequence[EarRow],
    found: Sequence[InspectedEar],
    ears: Sequence[Path] | None,
    contract: str,
    collection: str,
) -> None:
    """A teacher file. ears: the pictures in their form; None: the pictures as they come, with their boxes.

    Paths are relative if they lie below the folder of `path`, so that both can be moved together; else absolute.
    """
    root = DataRoot(path.parent)
    written = [root.written(each) for each in (ears if ears is not None else [row.path for row in rows])]
    whole = ears is not None or any(row.box is None for row in rows)
    sides = [side_of(row, ear) for row, ear in zip(rows, found, strict=True)]
    write_teacher_npy(
        path,
        image_paths=written,
        bboxes=None if whole else np.array([row.box for row in rows], np.float32),
        subjects=[row.subject for row in rows],
        sides=sides if any(sides) else None,
        contract="" if contract == STRETCH else contract,
        collection=collection,
    )


def collection_of(rows: Sequence[EarRow]) -> str:
    """12 hex digits that stand for a set of pictures and their subjects, whatever form, size and split it is given."""
    names = sorted(f"{row.subject}\0{row.name}" for row in rows)
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def side_of(row: EarRow, ear: InspectedEar) -> str:
    """l, r, or empty where neither landmarks nor a column say it."""
    return row.side if ear.located.fit is None else ear.located.fit.side


def _paths(folder: Path, rows: Sequence[EarRow]) -> list[Path]:
    """SUBJECT/NAME.png, each once: a number is added to a name that is taken."""
    taken: set[str] = set()
    paths = []
    for row in rows:
        subject = _safe(row.subject)
        stem, number = _safe(Path(row.name).stem), 1
        name = f"{subject}/{stem}.png"
        while name.lower() in taken:
            number += 1
            name = f"{subject}/{stem}_{number}.png"
        taken.add(name.lower())
        paths.append(folder / name)
    return paths


def _safe(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^\w.-]", "_", name).strip(".")[:100] or "_"


def _line(row: EarRow, ear: InspectedEar, path: Path, folder: Path) -> list[object]:
    fit = ear.located.fit
    box = ("",) * 4 if row.box is None else [f"{value:.2f}" for value in row.box]
    measured = ("", "") if fit is None else (f"{fit.residual:.3f}", f"{fit.confidence:.3f}")
    name = path.relative_to(folder).as_posix()
    return [name, row.subject, side_of(row, ear), row.name, *box, *measured, ear.misfit]
