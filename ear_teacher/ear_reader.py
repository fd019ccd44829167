"""Which ears there are, in image files, folders and the files that training reads, and each in a model's form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.ear_contract import STRETCH, EarAligner, EarContract, landmarker_of
from earface.data.ear_networks import EarBoxes
from earface.data.ear_writing import EARS, contract_of_folder, holds_prepared_ears, sides_of_folder
from earface.data.folders import list_images
from earface.data.image_cache import box_oddities, read_picture
from earface.data.images import Pixels, resize_image
from earface.data.names import person_name, warn_of_odd_names
from earface.data.npy import TeacherData, read_teacher_npy
from earface.data.picture_formats import EXTENSIONS, SHOWN_EXTENSIONS

WHOLE = np.full(4, np.nan, np.float32)  # the box of an uncropped picture


@dataclass(frozen=True)
class EarSource:
    """One ear: a row of `data`, whole or cropped to its box."""

    data: TeacherData
    row: int
    crop: bool

    @property
    def name(self) -> str:
        """The picture's path; for an image array the file and the row."""
        paths = self.data.image_paths
        return f"{self.data.source} row {self.row}" if paths is None else str(paths[self.row])

    @property
    def subject(self) -> str:
        """Empty if unknown."""
        return "" if self.data.subjects is None else self.data.subjects[self.row]

    @property
    def side(self) -> str:
        """l, r, or empty if unknown."""
        return "" if self.data.sides is None else self.data.sides[self.row]

    @property
    def box(self) -> NDArray[np.float32]:
        """x y width height in pixels; NaN for a whole picture."""
        return self.data.bboxes[self.row] if self.crop and self.data.bboxes is not None else WHOLE

    @property
    def own_box(self) -> NDArray[np.float32] | None:
        """The ear's box in `photograph`; None if it is not known."""
        return None if self.data.bboxes is None else self.data.bboxes[self.row]

    def photograph(self, channels: int) -> Pixels:
        """(H, W, channels) uint8, uncropped. Raises InputError."""
        return read_picture(self.data, self.row, channels=channels)

    def read(self, channels: int) -> Pixels:
        """(H, W, channels) uint8 at its own size. Raises InputError."""
        return read_picture(self.data, self.row, channels=channels, crop_to_bbox=self.crop)

    @property
    def contract(self) -> str:
        """EarContract.id of the picture."""
        return self.data.contract or STRETCH


class NoEarError(InputError):
    """A picture that can be read, and in which no ear is found."""


class EarForm(Protocol):
    """Of a model's configuration: the ears that it takes."""

    @property
    def image_size(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def contract(self) -> str: ...


class EarReader:
    """Brings ears into the form that a model takes; any number of threads may use it.

    A picture that has the form already is resized; any other is brought into it, and a prepared one in another form is
    refused.
    """

    def __init__(self, form: EarForm, landmarker: str | None = None, detector: str | None = None) -> None:
        """form: the model's configuration. landmarker, detector: landmarks.onnx and boxes.onnx of an export; by default
        earface's landmarker, and no detector: each picture is an ear. Raises InputError if this is not the landmarker
        of the model's ears.
        """
        self.size, self.channels, self.contract = form.image_size, form.in_channels, form.contract
        self.fit = EarContract.parse(form.contract).fit
        self.boxes = None if detector is None else EarBoxes(Path(detector))
        self._landmarker = landmarker
        if landmarker is not None:
            _ = self.aligner

    @cached_property
    def aligner(self) -> EarAligner:
        return EarAligner(self.fit, landmarker_of(self.contract, self._landmarker))

    def __call__(self, source: EarSource) -> Pixels:
        """The picture of `read`."""
        return self.read(source)[0]

    def read(self, source: EarSource) -> tuple[Pixels, str]:
        """The ear in its form, (size, size, channels) uint8, and its side: l, r, or empty if unknown.

        Raises InputError for what cannot be read, and NoEarError for a picture whose ear cannot be found.
        """
        prepared = source.contract != STRETCH
        if source.contract == self.contract and (prepared or self.boxes is None):
            return resize_image(source.read(self.channels), self.size), source.side
        if prepared:
            raise InputError(f"{source.name}: is in the form {source.contract}, the model takes {self.contract}")
        return self.formed(source.photograph(self.channels), source.name, source.own_box, source.side)

    def formed(
        self, photograph: Pixels, name: str, box: NDArray[np.float32] | None = None, side: str = ""
    ) -> tuple[Pixels, str]:
        """`read` of a picture (H, W, channels) uint8 that is in no form. box: of its ear, where it is known."""
        if box is None and self.boxes is not None:
            found, _ = self.boxes(photograph)
            if not len(found):
                raise NoEarError(f"{name}: no ear found")
            box = found[0]
        located = self.aligner.locate(photograph, box)
        if located.problem:
            raise NoEarError(f"{name}: {located.problem}")
        return self.aligner.image(photograph, located, self.size), side if located.fit is None else located.fit.side


def image_sources(paths: Sequence[Path], origin: Path, subjects: list[str] | None = None) -> list[EarSource]:
    """Whole pictures; origin: the file or folder that they were named by."""
    folder = origin if origin.is_dir() else origin.parent
    contract, sides = contract_of_folder(folder), sides_of_folder(folder)
    known = [sides.get(path.resolve(), "") for path in paths] if sides else None
    data = TeacherData(origin, list(paths), None, None, subjects, None, known, contract or "")
    return [EarSource(data, row, crop=False) for row in range(len(paths))]


def sources_of(
    written: str, *, data_root: str | None, crop_to_bbox: bool | None, folder_subjects: bool
) -> list[EarSource]:
    """The ears of one input: an image, a folder of them, or a teacher NPY or NPZ.

    crop_to_bbox: whether those of an NPY are cut to their boxes; None is not to know, and refused if it has boxes.
    folder_subjects: in a folder the first folder below it is the subject. Raises InputError, also for an empty folder.
    """
    path = Path(written)
    if path.is_dir():
        if holds_prepared_ears(path):
            raise InputError(f"{path}: holds prepared ears beside other pictures; give {path / EARS}")
        images = list_images(path)
        below = [image.relative_to(path).parts[:-1] for image in images]
        subjects = [person_name(parts[0]) if parts else "" for parts in below] if folder_subjects else None
        warn_of_odd_names(filter(None, subjects or ()), path)
        return image_sources(images, path, subjects)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() in EXTENSIONS:
        return image_sources([path], path)
    if path.suffix.lower() not in (".npy", ".npz"):
        raise InputError(f"{path}: neither a picture ({SHOWN_EXTENSIONS}), a folder, an .npy nor an .npz")
    data = read_teacher_npy(path, data_root)
    if crop_to_bbox is None and data.bboxes is not None:
        raise InputError(
            f"{path}: has boxes, and an exported model does not record whether it was trained on crops: "
            "add `crop_to_bbox` true or false"
        )
    if crop_to_bbox and data.bboxes is None:
        raise InputError(f"{path}: has no bboxes to crop to; add `crop_to_bbox` false if its pictures are ears already")
    for oddity in box_oddities(data):
        warn(oddity)
    return [EarSource(data, row, crop=bool(crop_to_bbox)) for row in range(len(data))]
