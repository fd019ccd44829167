"""Every photograph of a face set once: read, its face found and aligned, or the reason why it is left out.

What was found is kept in a work folder, a line of JSON and a PNG for each photograph, so that a killed run continues
where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from earface.core.errors import InputError
from earface.data.face_alignment import align_face, alignment_residual, enlargement, face_placement, share_outside
from earface.data.face_detection import ENLARGED_LOOKS, LOOKS, FaceDetector, subject_face
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import FACE_SIZE, MAX_VLR, MIN_VLR
from earface.data.image_cache import MAX_UNREADABLE
from earface.data.images import Pixels, read_ahead, read_image, write_image

UNREADABLE, WRONG_SIZE, NO_FACE, TOO_SMALL, SEVERAL = "unreadable", "wrong size", "no face", "too small", "several"
DETECTED, ENLARGED, CENTRED = "detected", "enlarged", "centred"  # how a face was found
CROP_PROPORTIONS = 1.5  # of a crop of a face, its longer side by its shorter one


@dataclass(frozen=True)
class AlignedFace:
    """One face of FACE_SIZE x FACE_SIZE in the work folder; from `found` on None for one that came aligned."""

    row: FaceRow
    stem: str  # of the file in the work folder, and in the prepared set
    path: Path
    found: str | None = None  # how
    outside: float | None = None  # share of the face beyond the photograph
    score: float | None = None  # the detector's
    enlargement: float | None = None  # pixels of the face per pixel of the photograph
    residual: float | None = None  # root mean square distance of its five points from the template, pixels
    others: int | None = None  # faces in the photograph that were not taken


@dataclass(frozen=True)
class RejectedFace:
    """A picture that was left out, and why."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class FaceFinder:
    """How a photograph becomes an aligned face; without detector it must be one already."""

    detector: FaceDetector | None
    min_face: int = 0  # pixels of the photograph, the shorter side of the face's box
    reject_several: bool = False
    enlarging: bool = False  # whether it looks at the photograph enlarged, too
    centred_crops: bool = False  # whether a small picture without a face that is found is a crop of one

    def settings(self) -> dict[str, object]:
        """What decides the result of earface faces prepare, beside the photograph."""
        if self.detector is None:
            return {"aligned": True}
        return {
            "detector": self.detector.digest,
            "min_score": self.detector.min_score,
            "min_face": self.min_face,
            "reject_several": self.reject_several,
        }

    def __call__(self, photograph: Pixels) -> tuple[Pixels, dict[str, Any]] | tuple[str, str]:
        """(H, W, 3) uint8 -> the aligned face and what is known of it; or the kind of reject and its reason.

        A centred crop keeps its own pixels, and nothing is known of it but how it was found.
        """
        height, width = photograph.shape[:2]
        if self.detector is None:
            if (width, height) != (FACE_SIZE, FACE_SIZE):
                return WRONG_SIZE, f"{width}x{height}, expected an aligned face of {FACE_SIZE}x{FACE_SIZE}"
            return photograph, {}
        found, how = self.detector(photograph), DETECTED
        if not found and self.enlarging:
            found, how = self.detector.enlarged(photograph), ENLARGED
        if not found and self.centred_crops and self._is_crop(width, height):
            return centred_square(photograph), {"found": CENTRED}
        if not found:
            return NO_FACE, f"no face with a score of {self.detector.min_score} or more"
        faces = [face for face in found if face.side >= self.min_face]
        if not faces:
            largest = max(face.side for face in found)
            return TOO_SMALL, f"the largest face is {largest:.0f} pixels wide or high, under {self.min_face}"
        if self.reject_several and len(faces) > 1:
            return SEVERAL, f"{len(faces)} faces"
        looks = ENLARGED_LOOKS if how == ENLARGED else LOOKS
        face = self.detector.refined(photograph, subject_face(faces, (width, height)), looks)
        try:
            placement = face_placement(face.points, (width, height))
        except InputError as error:
            return NO_FACE, str(error)
        known = {
            "found": how,
            "outside": round(share_outside(placement), 3),
            "score": round(face.score, 4),
            "enlargement": round(enlargement(placement), 4),
            "residual": round(alignment_residual(face.points, placement), 3),
            "others": len(faces) - 1,
        }
        return align_face(photograph, face.points), known

    def _is_crop(self, width: int, height: int) -> bool:
        shorter, longer = min(width, height), max(width, height)
        return max(self.min_face, MIN_VLR) <= shorter and longer <= min(MAX_VLR, CROP_PROPORTIONS * shorter)


def centred_square(picture: Pixels) -> Pixels:
    """(H, W, C) -> (S, S, C), S the shorter side."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def inspect_faces(
    rows: Sequence[FaceRow],
    stems: Sequence[str],
    finder: FaceFinder,
    work: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[AlignedFace], list[RejectedFace]]:
    """The faces of `rows`, written to `work` as STEM.png, and the rejects; both in the order of the rows.

    Raises InputError if more than 5 % of the pictures cannot be read, or none can be used.
    """
    known = _read_journal(work, finder.settings())

    def inspect(item: tuple[FaceRow, str]) -> dict[str, Any]:
        row, stem = item
        record: dict[str, Any] = {"name": row.name, "stem": stem, "stamp": _stamp(row.path)}
        if all(known.get(row.name, {}).get(key) == value for key, value in record.items()):
            return known[row.name]
        try:
            face, found = finder(read_image(row.path))
        except InputError as error:
            face, found = UNREADABLE, str(error).removeprefix(f"{row.path}: ")
        if isinstance(face, str):
            return record | {"reject": [face, found]}
        write_image(work / f"{stem}.png", face)
        return record | {"face": found}

    faces, rejects = [], []
    with (work / "journal.jsonl").open("a", encoding="utf-8", errors="backslashreplace") as journal:
        items = list(zip(rows, stems, strict=True))
        for done, ((row, stem), record) in enumerate(zip(items, read_ahead(inspect, items), strict=True), start=1):
            if record is not known.get(row.name):
                _append(journal, record)
            if "reject" in record:
                rejects.append(RejectedFace(row.name, *record["reject"]))
            else:
                faces.append(AlignedFace(row, stem, work / f"{stem}.png", **record["face"]))
            progress(done, len(rows))
    unreadable = [f"{reject.name}: {reject.reason}" for reject in rejects if reject.kind == UNREADABLE]
    if len(unreadable) > MAX_UNREADABLE * len(rows):
        raise InputError(
            f"{len(unreadable)} of {len(rows)} pictures cannot be read, over {MAX_UNREADABLE:.0%}: "
            + "; ".join(unreadable[:3])
        )
    if not faces:
        hint = "; if they are aligned faces, give `aligned`" if rejects[0].kind == NO_FACE else ""
        raise InputError(f"none of {len(rows)} pictures can be used: {rejects[0].name}: {rejects[0].reason}{hint}")
    return faces, rejects


def _read_journal(work: Path, settings: dict[str, object]) -> dict[str, dict[str, Any]]:
    """By name, what an earlier run with the same settings found; the folder is emptied if there was none."""
    journal = work / "journal.jsonl"
    try:
        head, *lines = journal.read_text(encoding="utf-8").splitlines()
        same = json.loads(head) == settings
    except (OSError, ValueError):
        same, lines = False, []
    if not same:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        journal.write_text(json.dumps(settings), encoding="utf-8")
        return {}
    known = {}
    for line in lines:
        try:
            record = json.loads(line)
            if "reject" in record or (work / f"{record['stem']}.png").is_file():
                known[record["name"]] = record
        except (ValueError, KeyError, TypeError):  # the line at which a run was killed
            continue
    return known


def _append(journal: TextIO, record: dict[str, Any]) -> None:
    journal.write("\n" + json.dumps(record, ensure_ascii=False))  # on a line of its own even after a kill
    journal.flush()


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
