"""Which faces there are and whose, from any of the layouts that face sets come in, or from a prepared set.

A prepared set (`earface faces prepare`) is ROOT/{train,val,test}_processed/{hr_images,vlr_images}/NAME.png with
ROOT/splits.json beside them. NAME names the identity: IDENTITY__PICTURE, or a CMU Multi-PIE name.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.face_folders import HR_FOLDER, SPLITS, SPLITS_FILE, VLR_FOLDER, split_folder
from earface.data.folders import DataRoot, list_images, scan_images
from earface.data.identity_split import SPLIT_OF_ROLE, read_splits
from earface.data.multipie import MultiPieName, decide_by_names
from earface.data.names import file_name_part, percent_encoded, person_name, warn_of_odd_names
from earface.data.picture_rows import PictureRow
from earface.data.tables import read_csv, require_columns

SEPARATOR = "__"
LIKE_SEPARATOR = re.compile(r"^_|_$|(?<=_)_")
MAX_NAME_BYTES = 200  # file systems allow 255, temporary names are longer


@dataclass(frozen=True)
class FaceRow(PictureRow):
    """One picture of a face; in a prepared set `path` is the high-resolution one."""

    vlr_path: Path | None = None  # its very-low-resolution copy, if the set has them
    split: str = ""  # train, val or test in a prepared set
    role: str = ""  # in the identity split, earface/data/identity_split.py; empty without a splits.json
    session: str = ""  # of a Multi-PIE name, as are the next two
    camera: str = ""  # 051 is the frontal one
    illumination: str = ""


def identity_of(path: str | os.PathLike[str]) -> str:
    """Whose face a picture shows, by its name alone: a Multi-PIE name, IDENTITY__PICTURE, else its folder's name.

    Raises InputError for a picture in a prepared set's folder whose own name does not name it.
    """
    path = Path(path)
    identity = _identity_in_name(path.name)
    if identity is None and path.parent.name in (HR_FOLDER, VLR_FOLDER, ""):
        raise InputError(f"{path}: names no identity: expected IDENTITY{SEPARATOR}PICTURE or a Multi-PIE name")
    return person_name(path.parent.name) if identity is None else identity


def prepared_names(rows: Sequence[FaceRow]) -> list[str]:
    """The stem of each picture in a prepared set, such that `identity_of` gives the identity back; all differ.

    A Multi-PIE name stays as it is; else it is IDENTITY__PICTURE, where PICTURE leaves out the identity's folder and a
    repetition of its name. Characters that a file name cannot hold, and underscores that would look like the separator,
    are percent-encoded. Stems that differ in nothing but case, or are too long, end in a digest of the picture's name.
    """
    stems = [_prepared_name(row) for row in rows]
    count = Counter(stem.casefold() for stem in stems)
    return [
        _with_digest(stem, row.name) if count[stem.casefold()] > 1 or len(os.fsencode(stem)) > MAX_NAME_BYTES else stem
        for stem, row in zip(stems, rows, strict=True)
    ]


def read_faces(source: str | os.PathLike[str], splits: Iterable[str] = SPLITS) -> list[FaceRow]:
    """Every face of a set, sorted by path.

    source: the root of a prepared set, one of its split folders, a CSV with the columns file and identity, or a folder
        of pictures: all with Multi-PIE names, or in one folder per identity, or named IDENTITY__PICTURE.
    splits: of a prepared set's root, which to read; one that does not exist is an error.
    Raises InputError for a source without faces, a picture of unknown identity, a low-resolution picture that
    is missing, and an identity that does not stand where splits.json puts it.
    """
    path = Path(source)
    if path.is_file():
        return faces_from_index(path, path.parent)
    folder = DataRoot(path).folder
    if (folder / HR_FOLDER).is_dir():
        return _prepared_split(folder, _split_name(folder), folder.parent)
    if any((folder / split_folder(split) / HR_FOLDER).is_dir() for split in SPLITS):
        return [row for split in splits for row in _prepared_split(folder / split_folder(split), split, folder)]
    return faces_from_folder(folder)


def faces_from_folder(folder: Path) -> list[FaceRow]:
    """Every picture below `folder`: by Multi-PIE names if most have one, else by the first folder below it.

    Where Multi-PIE names decide, pictures without one that are in no folder of their person are left out with a
    warning. Otherwise a picture directly in `folder` must name its identity. Raises InputError if one does not.
    """
    paths = list_images(folder)
    names = [path.relative_to(folder).as_posix() for path in paths]
    by_name = decide_by_names([path.name for path in paths])
    subjects: dict[str, set[str]] = {}  # of the Multi-PIE names in each folder
    for path, name in zip(paths, names, strict=True):
        if parsed := MultiPieName.parse(path.name):
            subjects.setdefault(name.partition("/")[0], set()).add(parsed.subject)
    rows, nameless = [], []
    for path, name in zip(paths, names, strict=True):
        first, _, rest = name.partition("/")
        identity = first if rest and not by_name else _identity_in_name(path.name)
        if identity is None and subjects.get(first) == {first}:
            identity = first  # a stray in a folder that is named as its person
        if identity is None:
            nameless.append(name)
        else:
            rows.append(_with_conditions(FaceRow(path, name, identity)))
    warn_of_odd_names((row.identity for row in rows), folder)
    if nameless and by_name:
        warn(
            f"{folder}: {len(nameless)} of {len(names)} pictures have no Multi-PIE name and are left out "
            f"({', '.join(nameless[:3])}{', ...' if len(nameless) > 3 else ''})",
            nameless,
        )
    elif nameless:
        raise InputError(
            f"{folder}: {len(nameless)} of {len(names)} pictures lie in no folder, so their identities are unknown "
            f"({nameless[0]}): use one folder per identity, Multi-PIE names or a CSV"
        )
    return rows


def faces_from_index(index: Path, images: Path) -> list[FaceRow]:
    """The rows of a CSV with the columns file and identity; files are below `images`, or absolute.

    Raises InputError for a missing column, an empty identity and files that are not there.
    """
    table = read_csv(index)
    require_columns(table, ("file", "identity"), index)
    root, rows, missing = DataRoot(images), [], []
    for record in table:
        try:
            path = root.resolve(record["file"])
            if not record["identity"]:
                raise InputError("column 'identity' is empty")
        except InputError as error:
            raise InputError(f"{index} line {record.line}: {error}") from None
        if not path.is_file():
            missing.append(f"line {record.line} {record['file']}")
        rows.append(_with_conditions(FaceRow(path, record["file"], person_name(record["identity"]))))
    if missing:
        raise InputError(f"{index}: {len(missing)} of its files are not in {images}: {'; '.join(missing[:3])}")
    twice = len(rows) - len({row.path for row in rows})
    if twice:
        raise InputError(f"{index}: {twice} of its {len(rows)} rows name a file again")
    warn_of_odd_names((row.identity for row in rows), index)
    return rows


def _prepared_split(folder: Path, split: str, root: Path) -> list[FaceRow]:
    if not (folder / HR_FOLDER).is_dir():
        raise InputError(f"{folder / HR_FOLDER}: no such folder (earface faces prepare makes it)")
    roles = read_splits(root / SPLITS_FILE).roles if (root / SPLITS_FILE).is_file() else {}
    low = {path.name for path in scan_images(folder / VLR_FOLDER).paths} if (folder / VLR_FOLDER).is_dir() else None
    rows = []
    for path in list_images(folder / HR_FOLDER):
        if low is not None and path.name not in low:
            raise InputError(f"{folder / VLR_FOLDER / path.name}: missing, but {path} is there: prepare the set again")
        identity, vlr = identity_of(path), folder / VLR_FOLDER / path.name
        role = roles.get(identity, "")
        if roles and split and SPLIT_OF_ROLE.get(role) != split:
            says = f"puts {identity} in {SPLIT_OF_ROLE[role]}" if role else f"does not know {identity}"
            raise InputError(f"{path}: {root / SPLITS_FILE} {says}, not in {split}")
        row = FaceRow(path, path.name, identity, None if low is None else vlr, split, role)
        rows.append(_with_conditions(row))
    return rows


def _split_name(folder: Path) -> str:
    return next((split for split in SPLITS if folder.resolve().name == split_folder(split)), "")


def _identity_in_name(name: str) -> str | None:
    multi_pie = MultiPieName.parse(name)
    if multi_pie is not None:
        return multi_pie.subject
    identity, separator, picture = name.partition(SEPARATOR)
    return (
        person_name(unquote(identity, errors="surrogateescape"))
        if identity and separator and Path(picture).stem
        else None
    )


def _prepared_name(row: FaceRow) -> str:
    path = Path(row.name)
    if _identity_in_name(path.name) == row.identity:
        return path.stem
    parts = [part for part in path.with_suffix("").parts if part not in (path.anchor, "..")]
    below = parts[1:] if len(parts) > 1 and parts[0] == row.identity else parts
    picture = "-".join(below)
    shortened = picture.removeprefix(f"{row.identity}_")
    identity = LIKE_SEPARATOR.sub(percent_encoded, file_name_part(row.identity))
    return f"{identity}{SEPARATOR}{file_name_part(shortened or picture)}"


def _with_digest(stem: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    identity, separator, picture = stem.partition(SEPARATOR)
    if not separator:
        raise InputError(f"{name}: another picture has the same Multi-PIE name")
    room = MAX_NAME_BYTES - len(os.fsencode(f"{identity}{separator}")) - 9
    if room < 0:
        raise InputError(f"{name}: its identity is too long for a file name: shorten it")
    kept = picture.encode("utf-8", "surrogateescape")[:room].decode(errors="ignore")
    return f"{identity}{separator}{kept}~{digest}"


def _with_conditions(row: FaceRow) -> FaceRow:
    name = row.path.name
    parsed = MultiPieName.parse(name) or MultiPieName.parse(name.partition(SEPARATOR)[2])
    if parsed is None:
        return row
    return replace(row, session=parsed.session, camera=parsed.camera, illumination=parsed.illumination)
