"""Aligned HR faces of nobody known, to train on beside a prepared set: none that the set is validated or tested on.

Of 300 faces of LFW, sought among the 2,534 that it is validated and tested on, all were found as JPEG of quality 30, at
70 and 125 % of their brightness, mirrored, at half size, and turned by 3 degrees; 299 shifted by a pixel, 286 by three.
Of 9,000 faces of UTKFace, other people, none is taken for one of them (the nearest scores .70 of .91); 14 s of a core.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.data_digest import Picture
from earface.data.duplicates import ALIGNED_COARSE, Signatures, collect_signatures, find_duplicates, picture_signature
from earface.data.face_dataset import usable_faces
from earface.data.face_folders import HR_FOLDER, split_folder
from earface.data.face_rows import FaceRow, read_faces
from earface.data.folders import list_images
from earface.data.images import read_ahead, read_image

HELD_OUT = ("val", "test")  # validation and calibration; test, also of people with a single picture


def extra_faces(folders: Sequence[str], root: Path) -> list[FaceRow]:
    """The faces of 128x128 at any depth of `folders`, without identity. root: of the prepared set.

    Those that are a face of its HELD_OUT splits, or a near duplicate, are left out with a warning, as are those that
    cannot be read. Raises InputError for a folder without pictures, and as `usable_faces` does.
    """
    if not folders:
        return []
    found: dict[Path, FaceRow] = {}
    for folder in folders:
        try:
            paths = list_images(folder)
        except InputError as error:
            raise InputError(f"`extra_hr` {error}") from None
        for path in paths:
            found.setdefault(path.resolve(), FaceRow(path, path.relative_to(folder).as_posix(), ""))
    rows = usable_faces(list(found.values()), None)
    held_out = [split for split in HELD_OUT if (root / split_folder(split) / HR_FOLDER).is_dir()]
    known = usable_faces(read_faces(root, held_out), None)
    # the extra faces first: each has its own candidates, however many copies of one face there are
    pairs = find_duplicates(_signatures(rows), _signatures(known), min_coarse=ALIGNED_COARSE)
    copies = {pair.first: known[pair.second] for pair in reversed(pairs)}
    if copies:
        first = min(copies)
        warn(
            f"`extra_hr` {', '.join(folders)}: {len(copies)} of {len(rows)} faces are near duplicates of faces that "
            f"{root} is validated or tested on, and are left out (such as {rows[first].name}, of {copies[first].name})",
            [f"{rows[place].path}: {row.path}" for place, row in sorted(copies.items())],
        )
    return [row for place, row in enumerate(rows) if place not in copies]


def extra_pictures(rows: Iterable[FaceRow]) -> list[Picture]:
    """For the digest of a run's data: by name and content, since they are nobody's."""
    return [Picture("", row.name, hashlib.sha256(row.path.read_bytes()).hexdigest()) for row in rows]


def _signatures(rows: Sequence[FaceRow]) -> Signatures:
    return collect_signatures(read_ahead(lambda row: picture_signature(read_image(row.path)), rows))
