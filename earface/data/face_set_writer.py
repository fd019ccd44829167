"""The prepared set of faces as files: HR and VLR pictures, faces.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from earface.core.errors import InputError
from earface.data.degradation import degrade, picture_key
from earface.data.duplicates import (
    ALIGNED_COARSE,
    DuplicatePair,
    collect_signatures,
    find_duplicates,
    picture_signature,
)
from earface.data.face_folders import HR_FOLDER, INDEX, REPORT, SPLITS, SPLITS_FILE, VLR_FOLDER, WORK, split_folder
from earface.data.face_inspection import AlignedFace
from earface.data.face_sizes import VLRSize
from earface.data.identity_split import SPLIT_OF_ROLE, IdentitySplit
from earface.data.images import read_ahead, read_image, write_image
from earface.data.pixels import to_model_range, to_uint8
from earface.data.tables import Row, read_csv, write_csv

BATCH = 64


def shared_pictures(faces: Sequence[AlignedFace]) -> list[DuplicatePair]:
    """Pairs of one picture under two identities."""
    signatures = collect_signatures(read_ahead(lambda face: picture_signature(read_image(face.path)), faces))
    pairs = find_duplicates(signatures, min_coarse=ALIGNED_COARSE)
    return [pair for pair in pairs if faces[pair.first].row.identity != faces[pair.second].row.identity]


def write_faces(
    root: Path, faces: Sequence[AlignedFace], split: IdentitySplit, size: VLRSize, degradation: str, seed: int
) -> None:
    """hr_images/NAME.png and vlr_images/NAME.png of each, whose degradation depends on the seed and its name alone."""
    pixels = list(read_ahead(lambda face: read_image(face.path), faces))
    hr = to_model_range(torch.from_numpy(np.stack(pixels)))
    keys = [picture_key(seed, face.stem) for face in faces]
    vlr = to_uint8(degrade(degradation, hr, size, keys)).numpy()
    for face, high, low in zip(faces, pixels, vlr, strict=True):
        folder = root / split_folder(split.split_of(face.row.identity))
        write_image(folder / HR_FOLDER / f"{face.stem}.png", high)
        write_image(folder / VLR_FOLDER / f"{face.stem}.png", low)


def write_index(path: Path, faces: Sequence[AlignedFace], split: IdentitySplit) -> None:
    """faces.csv: one row a face, in the order of the photographs."""
    rows = []
    for face in faces:
        role = split.roles[face.row.identity]
        file = f"{split_folder(SPLIT_OF_ROLE[role])}/{HR_FOLDER}/{face.stem}.png"
        known = (face.score, face.enlargement, face.residual, face.others)
        rows.append((file, face.row.identity, role, face.row.name, *known))
    write_csv(path, ("file", "identity", "role", "photograph", "score", "enlargement", "residual", "others"), rows)


def clear(root: Path) -> None:
    """Remove what an earlier run wrote, the report first: without it the set is not complete. Other files stay.

    A run that stopped before its index left one in its work folder. Raises InputError, and removes nothing, where an
    index is damaged, so that the earlier run's pictures are unknown.
    """
    indexes = [index for index in (root / INDEX, root / WORK / INDEX) if index.is_file()]
    names = {Path(row["file"]).name for index in indexes for row in read_index(index)}
    for name in (REPORT, SPLITS_FILE):
        (root / name).unlink(missing_ok=True)
    folders = [root / split_folder(split) / kind for split in SPLITS for kind in (HR_FOLDER, VLR_FOLDER)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for path in [*(folder / name for folder in folders for name in names), *indexes]:
        path.unlink(missing_ok=True)


def read_index(path: Path) -> list[Row]:
    """Raises InputError for one that `write_index` did not write."""
    try:
        rows = read_csv(path)
    except InputError as error:
        raise InputError(f"{error}: the pictures of the set in {path.parent} are unknown; give another `out`") from None
    if "file" not in rows[0]:
        raise InputError(f"{path}: has no column file; give another `out`")
    return rows
