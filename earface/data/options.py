"""Every option of the commands that prepare data. No numpy: help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from earface.core.errors import InputError
from earface.core.options import check_options, option
from earface.core.tool_options import ToolOptions
from earface.data.face_sizes import SMALL_FACE, USUAL_VLR, parse_vlr_size
from earface.data.tables import BOX_COLUMNS, SIDE_COLUMN, SUBJECT_COLUMN

USUAL_EARS = "data/preprocessed"  # where earface ears train looks
TEACHER_FILES = {"train": "train_teacher.npy", "val": "val_teacher.npy"}
EAR_REPORT = "prepare_report.json"
EAR_RESULTS = (*TEACHER_FILES.values(), EAR_REPORT)
FACE_SCORE = 0.7  # of a detection of a face
MIN_FACE_HELP = "pixels; smaller boxes of faces in photographs are ignored"
SOURCES = ("boxes", "pts", "points", "coco", "yolo")  # of annotations


@dataclass(frozen=True)
class FindingOptions(ToolOptions):
    """Of a command that finds small faces in photographs."""

    detector: str | None = option(None, "for photographs: YuNet's ONNX file; default: downloaded once and cached")
    min_score: float | None = option(None, "least confidence of a detection; default: .7", above=0, high=0.99)
    min_face: int = option(SMALL_FACE, MIN_FACE_HELP, low=1)
    centred_crops: bool = option(
        True, "a picture of 8 to 64 pixels in which no face is found is a crop of one: its middle square is taken"
    )


@dataclass(frozen=True)
class EarPreparationOptions(ToolOptions):
    """Write ears in one form, as train_teacher.npy and val_teacher.npy, split by subject."""

    images: str = option("", "folder of crops of ears, or of photographs, searched through")
    index: str | None = option(None, "CSV of the pictures to take; its paths are below `images`")
    out: str = option(USUAL_EARS, "folder for the ears, the two .npy files and the report")
    fit: Literal["canonical", "letterbox", "stretch"] = option(
        "canonical",
        "canonical: mirrored to right ears, upright, by their landmarks; letterbox: the whole crop; stretch: as it is",
    )
    size: int = option(128, "side of the ears that are written, pixels; stretch writes none", low=32, high=1024)
    landmarker: str | None = option(
        None, "landmarks.onnx of earface export detector, 17 or 55 points; default: the one that comes with earface"
    )
    max_residual: float = option(
        7.0, "canonical: pixels of 128 that landmarks may be off the mean shape, in the median", above=0
    )
    misfits: Literal["reject", "letterbox"] = option(
        "reject", "ears whose landmarks are of no use: leave them out, or keep them as letterboxes"
    )
    detector: str | None = option(
        None, "boxes.onnx of earface export detector: finds the ear in photographs that have no box in `index`"
    )
    min_score: float = option(0.5, "of a detected ear", above=0, high=0.99)
    side: Literal["landmarks", "column"] = option(
        "landmarks", "which ear it is: by its landmarks, or by the column of `index`; disagreement is reported"
    )
    side_column: str = option(SIDE_COLUMN, "column of `index` with l or r, if it has one")
    val_fraction: float = option(0.2, "of the subjects, to validate on", above=0, high=0.99)
    seed: int = option(42, "decides which subjects are validation")
    splits: str | None = option(None, 'fixed subjects: JSON {"val": [...]}, or CSV of subject and split (train, val)')
    subject_pattern: str | None = option(
        None, "regular expression on the path below `images`; its first group, or else its match, is the subject"
    )
    file_column: str = option("file", "column of `index` with the path")
    subject_column: str = option(SUBJECT_COLUMN, "column of `index` with the subject, if it has one")
    box_columns: str = option(BOX_COLUMNS, "four columns of `index`, in pixels; used if all four exist")
    min_size: int = option(16, "pixels; an ear narrower or lower is left out", low=1)
    duplicates: Literal["error", "drop", "keep-together"] = option(
        "error", "one photograph on both sides: stop; drop the validation copy; or keep its subjects on one side"
    )

    def check(self) -> None:
        check_options(self)
        if not self.images:
            raise InputError("`images`: give a folder of pictures")
        if self.landmarker is not None and self.fit != "canonical":
            raise InputError(f"`landmarker` belongs to `fit` canonical, not {self.fit}")
        if self.fit != "stretch" and Path(self.out).resolve().is_relative_to(Path(self.images).resolve()):
            raise InputError(f"`out` {self.out} lies in `images` {self.images}: its ears would be pictures next time")
        if self.side == "column" and self.index is None:
            raise InputError("`side` column: needs `index`, a CSV with the column")


@dataclass(frozen=True)
class AnnotationOptions(ToolOptions):
    """Convert annotated photographs to COCO keypoint JSON, as a whole and split for training."""

    boxes: str | None = option(None, "CSV with the columns file, x, y, width, height, and perhaps subject and side")
    pts: str | None = option(None, "instead: folder of photographs with a .pts file of the same name beside each")
    points: str | None = option(None, "instead: NPZ with `files` (N,) and `points` (N, K, 2) in pixels, of crops")
    coco: str | None = option(None, "instead: COCO keypoint JSON, to check and to split")
    yolo: str | None = option(None, "instead: folder of YOLO's label files, of boxes or poses, as images/ and labels/")
    images: str | None = option(
        None,
        "folder of the photographs: what names in `boxes`, `points` or `coco` start from, else found there by the last "
        "part of the name; default: where the annotations lie",
    )
    category: str | None = option(
        None, "the ears' category in `coco` or `yolo`, or several between commas; default: what is named ear, left_ear"
    )
    out: str = option("", "JSON file to write; the files of the split are named after it")
    val_fraction: float = option(0.2, "to validate on; 0: no split", low=0, high=0.99)
    folds: int = option(0, "splits for cross-validation, instead of one split; 0: one split", low=0)
    seed: int = option(42, "decides what is validation")
    split_by: Literal["photograph", "subject"] = option("photograph", "what the split keeps whole")
    duplicates: Literal["error", "keep-together"] = option(
        "error", "two copies of one photograph, one on each side: stop, or keep both on one side"
    )

    def check(self) -> None:
        check_options(self)
        given = [name for name in SOURCES if getattr(self, name)]
        if not given:
            raise InputError("give one of `boxes`, `pts`, `points`, `coco` and `yolo`")
        if len(given) > 1:
            raise InputError(f"give only one of {' and '.join(f'`{name}`' for name in given)}")
        if self.pts and self.images:
            raise InputError(
                "`images` belongs to `boxes`, `points`, `coco` and `yolo`: with `pts` the photographs lie beside the "
                "points"
            )
        if self.category is not None and not (self.coco or self.yolo):
            raise InputError("`category` belongs to `coco` and `yolo`")
        if not self.out:
            raise InputError("`out`: give a JSON file to write")
        if Path(self.out).suffix.lower() != ".json":
            raise InputError(f"`out` {self.out}: give a name that ends in .json")


@dataclass(frozen=True)
class FacePreparationOptions(ToolOptions):
    """Write photographs of people as aligned HR faces, their VLR copies, and one split of the identities."""

    images: str = option("", "folder of photographs, searched through")
    index: str | None = option(None, "CSV with the columns file and identity; files are below `images`")
    out: str = option("", "root of the prepared set, a new or empty folder")
    aligned: bool = option(False, "the pictures are aligned faces of 128x128 already")
    detector: str | None = option(None, "YuNet's ONNX file; default: downloaded once and cached")
    min_score: float = option(0.7, "of a detected face", above=0, high=0.99)
    min_face: int = option(64, "pixels; a smaller box would be enlarged more than 1.5 times", low=1)
    several: Literal["central", "reject"] = option(
        "central", "photographs of several faces: take the large one near the middle, or leave them out"
    )
    vlr_size: str = option(USUAL_VLR, "32, 24, 16 or 14x16, width x height")
    degradation: Literal["bicubic", "realistic"] = option("bicubic", "how VLR faces are made")
    seed: int = option(42, "decides the split, and realistic degradation", low=0)
    splits: str | None = option(None, "splits.json to keep to; only identities that are not in it are assigned")
    duplicates: Literal["error", "keep-together"] = option(
        "error", "one picture under two identities in two splits: stop, or keep both identities in one split"
    )

    def check(self) -> None:
        check_options(self)
        if not self.images:
            raise InputError("`images`: give a folder of photographs")
        if not self.out:
            raise InputError("`out`: give a new or empty folder")
        try:
            parse_vlr_size(self.vlr_size)
        except InputError as error:
            raise InputError(f"`vlr_size`: {error}") from None
        if Path(self.out).resolve().is_relative_to(Path(self.images).resolve()):
            raise InputError(
                f"`out` {self.out} lies in `images` {self.images}: its faces would be photographs next time"
            )
