"""Ears that a training can use, found among pictures and located in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from earface.core.errors import InputError
from earface.core.progress import tracked
from earface.data.boxes import check_boxes, checked_box, read_headers
from earface.data.duplicates import picture_signature
from earface.data.ear_contract import EarAligner, LocatedEar, letterboxed
from earface.data.ear_networks import EarBoxes
from earface.data.ear_rows import EarRow
from earface.data.image_cache import MAX_UNREADABLE, crop_to_box
from earface.data.images import Pixels, read_ahead, read_image

Rejection = Literal["unreadable", "bad box", "too small", "no ear found", "misfit"]


@dataclass(frozen=True, eq=False)
class InspectedEar:
    """What reading it gave."""

    signature: tuple[bytes, Pixels]
    size: tuple[int, int]  # width, height of the ear's pixels
    located: LocatedEar
    misfit: str = ""  # why it is kept as a letterbox; empty if it is not


@dataclass(frozen=True)
class RejectedEar:
    """A row that was left out, and why."""

    name: str
    reason: str
    kind: Rejection
    row: EarRow


@dataclass(frozen=True)
class Inspection:
    """Which ears are looked for, where, and which are kept."""

    aligner: EarAligner
    boxes: EarBoxes | None = None  # of photographs without a box
    min_size: int = 16
    side_of_column: bool = False
    keep_misfits: bool = False

    def __call__(self, row: EarRow) -> tuple[EarRow, InspectedEar] | RejectedEar:
        """Read and locate one ear; the row comes back with its box."""
        try:
            photograph = read_image(row.path)
        except InputError as error:
            return RejectedEar(row.name, str(error).removeprefix(f"{row.path}: "), "unreadable", row)
        try:
            if row.box is not None:
                checked_box(row.box, (photograph.shape[1], photograph.shape[0]))
            elif self.boxes is not None:
                found, _ = self.boxes(photograph)
                if not len(found):
                    return RejectedEar(row.name, "no ear found", "no ear found", row)
                row = dataclasses.replace(row, box=tuple(found[0].tolist()))
            box = None if row.box is None else np.array(row.box, np.float32)
            ear = photograph if box is None else crop_to_box(photograph, box)
        except InputError as error:
            return RejectedEar(row.name, str(error), "bad box", row)
        height, width = ear.shape[:2]
        if min(height, width) < self.min_size:
            reason = f"{width}x{height}: narrower or lower than {self.min_size} pixels"
            return RejectedEar(row.name, reason, "too small", row)
        given = row.side if self.side_of_column and row.side else None
        located = self.aligner.locate(photograph, box, given)  # type: ignore[arg-type]
        misfit = located.problem
        if misfit:
            if not self.keep_misfits:
                return RejectedEar(row.name, misfit, "misfit", row)
            located = letterboxed(located)
        # the whole photograph's pixels, the ear's likeness: a photograph with two ears is on one side
        signature = picture_signature(photograph)[0], picture_signature(ear)[1]
        return row, InspectedEar(signature, (width, height), located, misfit)


def inspect_ears(
    rows: Sequence[EarRow], inspection: Inspection, index: str | None = None
) -> tuple[list[EarRow], list[InspectedEar], list[RejectedEar]]:
    """Read every picture: the rows that can be used, with their boxes, what was found in them, and the rejects.

    index: the file that the boxes are from. Raises InputError if more than 5 % cannot be read or have a bad box, if the
    boxes are of another kind, and if none can be used.
    """
    boxes = [(row.path, row.box) for row in rows if row.box is not None]
    check_boxes(index, boxes, read_headers(path for path, _ in boxes))
    kept, found, rejects = [], [], []
    for result in tracked(read_ahead(inspection, rows), "reading pictures", len(rows)):
        if isinstance(result, RejectedEar):
            rejects.append(result)
        else:
            kept.append(result[0])
            found.append(result[1])
    unreadable = [f"{each.name}: {each.reason}" for each in rejects if each.kind in ("unreadable", "bad box")]
    if len(unreadable) > MAX_UNREADABLE * len(rows):
        raise InputError(
            f"{len(unreadable)} of {len(rows)} pictures cannot be used, over {MAX_UNREADABLE:.0%}: "
            + "; ".join(unreadable[:3])
        )
    if not kept:
        raise InputError(f"none of {len(rows)} pictures can be used: {rejects[0].name}: {rejects[0].reason}")
    return kept, found, rejects
