"""What is odd about the pictures of a training and its validation, found before hours are spent on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.data_digest import row_samples
from earface.data.images import image_size
from earface.data.npy import TeacherData

LOOKED_AT = 64  # pictures whose sizes are compared with their boxes
FILLED = 0.5  # of width or height: a box that reaches so far is around what the picture shows


@dataclass(frozen=True)
class DecodedPictures:
    """The pictures of one file as a network gets them."""

    source: str
    images: NDArray[np.uint8]  # (N, S, S, C)
    names: Sequence[str]
    with_subjects: bool


def check_decoded(train: Sequence[DecodedPictures], val: Sequence[DecodedPictures]) -> None:
    """Warn of pictures of one colour, and of those that are trained and validated on under two names.

    Raises InputError for the latter where no subjects are known.
    """
    places: dict[bytes, list[tuple[DecodedPictures, int]]] = {}
    for each in train:
        for row, sample in _varied(each).items():
            places.setdefault(sample, []).append((each, row))
    for each in val:
        found = [
            (row, same)
            for row, sample in _varied(each).items()
            for same in [next((place for place in places.get(sample, ()) if _equal(each, row, *place)), None)]
            if same is not None
        ]
        if found:
            row, (file, other) = found[0]
            known = f" (there {file.names[other]})" if each.names[row] != file.names[other] else ""
            count = f"{len(found)} of {len(each.names)} pictures"
            line = f"{each.source}: {count} are also trained on, such as {each.names[row]}{known}"
            if not each.with_subjects:
                raise InputError(f"{line}: validate on other pictures, of people that are not trained on")
            warn(f"{line}: under another subject's name; correct the names, or leave these pictures out")


def row_names(data: TeacherData) -> list[str]:
    """Of each row its picture's path, or its place in the image array."""
    if data.image_paths is None:
        return [f"{data.source} row {row}" for row in range(len(data))]
    return [str(path) for path in data.image_paths]


def warn_of_unused_boxes(data: TeacherData, cure: str) -> None:
    """Where the boxes of a file whose pictures are taken whole are around a small part of them. cure: what to do."""
    if data.bboxes is None:
        return
    rows = np.unique(np.linspace(0, len(data) - 1, LOOKED_AT).round().astype(int)).tolist()
    small = sum(_is_small(data, row) for row in rows)
    if 2 * small > len(rows):
        warn(f"{data.source}: has boxes that are a small part of the pictures, and whole pictures are used: {cure}")


def copies(train: Iterable[Path], val: Iterable[Path]) -> list[Path]:
    """Those of `val` with the bytes of one of `train`. A file that is not there is no copy."""
    by_size: dict[int, list[Path]] = {}
    for path in train:
        by_size.setdefault(_size(path), []).append(path)
    found = []
    for path in val:
        same_size = by_size.get(_size(path), []) if _size(path) > 0 else []
        if same_size and _content(path) in {_content(other) for other in same_size}:
            found.append(path)
    return found


def _varied(pictures: DecodedPictures) -> dict[int, bytes]:
    """Row -> sample of the pictures that are not of one colour; warns of the others."""
    samples = row_samples(pictures.images)
    flat = [row for row, image in enumerate(pictures.images) if _is_flat(image)]
    if flat:
        warn(
            f"{pictures.source}: {len(flat)} of {len(samples)} pictures are of one colour, such as "
            f"{pictures.names[flat[0]]}: anything reconstructs these; leave them out"
        )
    left_out = set(flat)
    return {row: sample for row, sample in enumerate(samples) if row not in left_out}


def _is_flat(image: NDArray[np.uint8]) -> bool:
    """Whether all of (S, S, C) is one colour: most are seen to vary in a few of their pixels."""
    first = image[0, 0]
    return bool((image[:: max(1, len(image) // 8)] == first).all()) and bool((image == first).all())


def _equal(one: DecodedPictures, row: int, other: DecodedPictures, place: int) -> bool:
    return np.array_equal(one.images[row], other.images[place])


def _is_small(data: TeacherData, row: int) -> bool:
    assert data.bboxes is not None
    try:
        if data.image_paths is not None:
            width, height = image_size(data.image_paths[row])
        else:
            assert data.images is not None
            height, width = data.images[row].shape[:2]
    except InputError:  # reported when it is decoded
        return False
    return bool(max(data.bboxes[row, 2] / width, data.bboxes[row, 3] / height) < FILLED)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _content(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
