"""Which ears to encode, and reading them: image files, folders, and the NPY or NPZ files that training reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ear_teacher.config import EarVAEConfig
from ear_teacher.model import EarVAE
from earface.core.errors import InputError
from earface.data.ear_contract import STRETCH, EarAligner, EarContract, landmarker_of
from earface.data.ear_networks import EarBoxes
from earface.data.ear_writing import contract_of_folder
from earface.data.image_cache import MAX_UNREADABLE, read_picture
from earface.data.images import EXTENSIONS, Pixels, list_images, read_ahead, resize_image
from earface.data.npy import TeacherData, read_teacher_npy
from earface.data.pixels import to_model_range

WHOLE = np.full(4, np.nan, np.float32)  # the box of an uncropped picture
ARRAY_ROW = re.compile(r"(.+\.np[yz]) row (\d+)", re.DOTALL)  # how a row of an image array is named


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


@dataclass(frozen=True)
class Encoded:
    """The posteriors of the sources that could be read, in their order."""

    kept: list[int]  # (N,) which sources
    mu: NDArray[np.float32]  # (N, D)
    logvar: NDArray[np.float32]  # (N, D)
    skipped: list[tuple[str, str]]  # name, reason


class NoEarError(InputError):
    """A picture that can be read, and in which no ear is found."""


class EarReader:
    """`source -> (size, size, channels)`: the ear in the form that a model takes; any number of threads may call it.

    A picture that has the form already is resized; any other is brought into it, and a prepared one in another form is
    refused.
    """

    def __init__(self, config: EarVAEConfig, landmarker: str | None = None, detector: str | None = None) -> None:
        """landmarker, detector: landmarks.onnx and boxes.onnx of an export; by default earface's landmarker, and no
        detector: each picture is an ear. Raises InputError if this is not the landmarker of the model's ears.
        """
        self.size, self.channels, self.contract = config.image_size, config.in_channels, config.contract
        self.fit = EarContract.parse(config.contract).fit
        self.boxes = None if detector is None else EarBoxes(Path(detector))
        self._landmarker = landmarker
        if landmarker is not None:
            _ = self.aligner

    @cached_property
    def aligner(self) -> EarAligner:
        return EarAligner(self.fit, landmarker_of(self.contract, self._landmarker))

    def __call__(self, source: EarSource) -> Pixels:
        """Raises InputError for what cannot be read, and for a picture whose ear cannot be found."""
        if source.contract == self.contract and self.boxes is None:
            return resize_image(source.read(self.channels), self.size)
        if source.contract != STRETCH:
            raise InputError(f"{source.name}: is in the form {source.contract}, the model takes {self.contract}")
        photograph = source.photograph(self.channels)
        box = source.own_box
        if box is None and self.boxes is not None:
            found, _ = self.boxes(photograph)
            if not len(found):
                raise NoEarError(f"{source.name}: no ear found")
            box = found[0]
        located = self.aligner.locate(photograph, box)
        if located.problem:
            raise NoEarError(f"{source.name}: {located.problem}")
        return self.aligner.image(photograph, located, self.size)


def image_sources(paths: Sequence[Path], origin: Path, subjects: list[str] | None = None) -> list[EarSource]:
    """Whole pictures; origin: the file or folder that they were named by."""
    folder = origin if origin.is_dir() else origin.parent
    data = TeacherData(origin, list(paths), None, None, subjects, None, contract=contract_of_folder(folder) or "")
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
        images = list_images(path)
        if not images:
            raise InputError(f"{path}: holds no pictures ({', '.join(EXTENSIONS)})")
        below = [image.relative_to(path).parts[:-1] for image in images]
        return image_sources(images, path, [parts[0] if parts else "" for parts in below] if folder_subjects else None)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() in EXTENSIONS:
        return image_sources([path], path)
    if path.suffix.lower() not in (".npy", ".npz"):
        raise InputError(f"{path}: neither a picture ({', '.join(EXTENSIONS)}), a folder, an .npy nor an .npz")
    data = read_teacher_npy(path, data_root)
    if crop_to_bbox is None and data.bboxes is not None:
        raise InputError(
            f"{path}: has boxes, and an exported model does not record whether it was trained on crops: "
            "add `crop_to_bbox` true or false"
        )
    if crop_to_bbox and data.bboxes is None:
        raise InputError(f"{path}: has no bboxes to crop to; add `crop_to_bbox` false if its pictures are ears already")
    return [EarSource(data, row, crop=bool(crop_to_bbox)) for row in range(len(data))]


def sources_of_table(paths: Sequence[str], boxes: NDArray[np.float32] | None) -> list[EarSource | None]:
    """The sources of rows that were encoded earlier; None for those of an image array that no longer exists.

    boxes: (N, 4), NaN for whole pictures.
    """
    data = TeacherData(Path(), [Path(path) for path in paths], None, boxes, None, None)
    arrays: dict[str, TeacherData | None] = {}
    found: list[EarSource | None] = []
    for row, path in enumerate(paths):
        source: EarSource | None = EarSource(data, row, crop=boxes is not None and bool(np.isfinite(boxes[row]).all()))
        named = ARRAY_ROW.fullmatch(path)
        if named:
            if named[1] not in arrays:
                arrays[named[1]] = _array(named[1])
            array = arrays[named[1]]
            source = None
            if array is not None and int(named[2]) < len(array):
                source = EarSource(array, int(named[2]), crop=False)
        found.append(source)
    return found


def _array(path: str) -> TeacherData | None:
    try:
        return read_teacher_npy(path)
    except InputError:
        return None


def read_ears(sources: Sequence[EarSource | None], channels: int) -> list[Pixels | None]:
    """The pictures at their own sizes; None for what cannot be read."""

    def read(source: EarSource | None) -> Pixels | None:
        try:
            return None if source is None else source.read(channels)
        except InputError:
            return None

    return list(read_ahead(read, sources))


@torch.no_grad()
def encode_sources(
    model: EarVAE,
    sources: Sequence[EarSource],
    *,
    batch_size: int,
    device: str,
    reader: EarReader | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Encoded:
    """Read, bring into form and encode one batch at a time; the embeddings do not depend on its size.

    progress: called with the number of sources processed. Raises InputError when more than 5 % cannot be read, or no
    ear is found at all.
    """
    form = reader or EarReader(model.config)

    def read(source: EarSource) -> Pixels | InputError:
        try:
            return form(source)
        except InputError as error:
            return error

    kept: list[int] = []
    batch: list[Pixels] = []
    parts: list[tuple[Tensor, Tensor]] = []
    skipped: list[tuple[str, str]] = []
    unreadable = 0
    for index, picture in enumerate(read_ahead(read, sources)):
        if isinstance(picture, InputError):
            name = sources[index].name
            skipped.append((name, str(picture).removeprefix(f"{name}: ")))
            unreadable += not isinstance(picture, NoEarError)
            if unreadable > MAX_UNREADABLE * len(sources) or len(skipped) == len(sources):
                raise InputError(_too_many(skipped, len(sources)))
        else:
            kept.append(index)
            batch.append(picture)
        if batch and (len(batch) == batch_size or index + 1 == len(sources)):
            images = to_model_range(torch.from_numpy(np.stack(batch)).to(device))
            parts.append(tuple(part.float().cpu() for part in model.encode_posterior(images)))  # type: ignore[arg-type]
            batch = []
        progress(index + 1)
    mu, logvar = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return Encoded(kept, mu, logvar, skipped)


def _too_many(skipped: list[tuple[str, str]], count: int) -> str:
    first = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
    if count == 1:
        return first
    return f"{len(skipped)} or more of {count} pictures cannot be used, over {MAX_UNREADABLE:.0%}: {first}"
