"""Ears that a training can use, found among pictures, and the split that is written of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earface.core.errors import InputError
from earface.core.progress import tracked
from earface.data.duplicates import picture_signature
from earface.data.ear_rows import EarRow
from earface.data.image_cache import MAX_UNREADABLE, crop_to_box
from earface.data.images import DataRoot, Pixels, read_ahead, read_image
from earface.data.npy import write_teacher_npy


@dataclass(frozen=True)
class InspectedEar:
    """What reading it gave."""

    signature: tuple[bytes, Pixels]
    size: tuple[int, int]  # width, height of the ear's pixels


@dataclass(frozen=True)
class RejectedEar:
    """A row that was left out, and why."""

    name: str
    reason: str
    unreadable: bool  # rather than too small


def inspect_ears(rows: Sequence[EarRow], min_size: int) -> tuple[list[EarRow], list[InspectedEar], list[RejectedEar]]:
    """Read every photograph: the rows that can be used, what was found in them, and the rejects."""

    def read(row: EarRow) -> InspectedEar | RejectedEar:
        try:
            photograph = read_image(row.path)
            ear = photograph if row.box is None else crop_to_box(photograph, np.array(row.box, np.float32))
        except InputError as error:
            return RejectedEar(row.name, str(error).removeprefix(f"{row.path}: "), True)
        height, width = ear.shape[:2]
        if min(height, width) < min_size:
            return RejectedEar(row.name, f"{width}x{height}: narrower or lower than {min_size} pixels", False)
        # the whole photograph's pixels, the ear's likeness: a photograph with two ears is on one side
        return InspectedEar((picture_signature(photograph)[0], picture_signature(ear)[1]), (width, height))

    kept, found, rejects = [], [], []
    for row, result in zip(rows, tracked(read_ahead(read, rows), "reading pictures", len(rows)), strict=True):
        if isinstance(result, RejectedEar):
            rejects.append(result)
        else:
            kept.append(row)
            found.append(result)
    unreadable = [f"{reject.name}: {reject.reason}" for reject in rejects if reject.unreadable]
    if len(unreadable) > MAX_UNREADABLE * len(rows):
        raise InputError(
            f"{len(unreadable)} of {len(rows)} pictures cannot be read, over {MAX_UNREADABLE:.0%}: "
            + "; ".join(unreadable[:3])
        )
    if not kept:
        raise InputError(f"none of {len(rows)} pictures can be used: {rejects[0].name}: {rejects[0].reason}")
    return kept, found, rejects


def write_split(path: Path, rows: Sequence[EarRow]) -> None:
    """Paths are relative if they lie below the folder of `path`, so that both can be moved together; else absolute."""
    root = DataRoot(path.parent)
    written = [root.written(row.path) for row in rows]
    boxes = None if any(row.box is None for row in rows) else np.array([row.box for row in rows], np.float32)
    write_teacher_npy(path, image_paths=written, bboxes=boxes, subjects=[row.subject for row in rows])
