"""A set of synthetic ears on disk: PNG files, their factors, COCO keypoints, and the two teacher files."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.core.files import atomic_write, require_empty
from earface.core.options import check_options
from earface.data.annotations import Annotations, Photograph
from earface.data.coco import write_coco
from earface.data.image_grid import tile_images
from earface.data.images import write_image
from earface.data.npy import write_teacher_npy
from earface.data.splits import split_by_subject
from earface.data.tables import write_csv
from earface.synthetic.ear_anatomy import EAR_LANDMARKS
from earface.synthetic.ear_factors import EarView, sample_shape, sample_view
from earface.synthetic.ear_rendering import EarPicture, draw_ear
from earface.synthetic.factors import check_seed
from earface.synthetic.options import EarSetOptions
from earface.synthetic.workers import PNG_FLAGS, map_processes

TEACHER_FILES = ("train_teacher.npy", "val_teacher.npy")
EAR_SKELETON = [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (9, 10), (10, 11), (11, 12), (12, 13), (2, 17)]


@dataclass(frozen=True)
class EarSet(EarSetOptions):
    """Which pictures of the population `seed`: subjects from 1 on, each one's pictures from 0 on."""

    def __post_init__(self) -> None:
        check_options(self)
        check_seed(seed=self.seed)

    def view(self, subject: int, index: int) -> EarView:
        return sample_view(self.seed, subject, index, self.variation)


@dataclass(frozen=True)
class _Labels:
    """What is known of one subject's pictures: landmarks (N, 17, 2), visibility (N, 17), bboxes (N, 4)
    from the picture's corner."""

    landmarks: NDArray[np.float32]
    visibility: NDArray[np.uint8]
    bboxes: NDArray[np.float32]


def subject_name(subject: int) -> str:
    return f"S{subject:04d}"


def image_name(subject: int, index: int) -> str:
    """The path below the set's folder."""
    return f"images/{subject_name(subject)}_{index:03d}.png"


def _draw_subject(ears: EarSet, subject: int) -> Iterator[EarPicture]:
    shape = sample_shape(ears.seed, subject)
    for index in range(ears.images_per_subject):
        yield draw_ear(shape, ears.view(subject, index), ears.image_size)


def synthesize_ears(ears: EarSet) -> tuple[NDArray[np.uint8], list[str]]:
    """The set in memory: images (N, H, W, 3) uint8 RGB and their N subjects, in the order of `write_ear_set`."""
    numbers = range(1, ears.subjects + 1)
    images = np.stack([picture.image for subject in numbers for picture in _draw_subject(ears, subject)])
    return images, [subject_name(subject) for subject in numbers for _ in range(ears.images_per_subject)]


def _write_subject(ears: EarSet, out: Path, subject: int) -> _Labels:
    """Write one subject's pictures into `out`. It runs in a worker process."""
    pictures = []
    for index, picture in enumerate(_draw_subject(ears, subject)):
        encoded = cv2.imencode(".png", cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR), PNG_FLAGS)[1]
        with atomic_write(out / image_name(subject, index), sync=False) as temporary:
            temporary.write_bytes(encoded.tobytes())
        pictures.append(picture)
    landmarks, visibility, bboxes = (
        np.stack([getattr(picture, name) for picture in pictures]) for name in ("landmarks", "visibility", "bbox")
    )
    bboxes[:, :2] += 0.5  # files count boxes from the picture's corner, not from its first pixel's centre
    return _Labels(landmarks, visibility, bboxes)


def _clear(out: Path, overwrite: bool) -> None:
    """Make `out` ready. With `overwrite` an earlier set's own files go, the teacher files first; others stay."""
    require_empty(out, overwrite)
    for name in (*TEACHER_FILES, "landmarks.json", "index.csv"):
        (out / name).unlink(missing_ok=True)
    for path in (out / "images").glob("S[0-9][0-9][0-9][0-9]_[0-9][0-9][0-9].png"):
        path.unlink()
    (out / "images").mkdir(parents=True, exist_ok=True)


def write_ear_set(
    out: str | os.PathLike[str],
    ears: EarSet,
    *,
    val_fraction: float = 0.2,
    num_workers: int = 1,
    overwrite: bool = False,
    done: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Write a set into the folder `out` and return lines that say what was written where.

    `images/S0001_000.png`; `index.csv` (file, subject, split, box and every factor); `landmarks.json` (COCO keypoints);
    and last `train_teacher.npy` and `val_teacher.npy`, subject-disjoint, without which the set is not complete.
    Landmarks are those of `EarPicture`, hidden ones too; boxes are measured from the picture's corner. The files do not
    depend on `num_workers`. done: called with the number of pictures finished since its last call.
    Raises InputError for bad values or a folder in use.
    """
    out = Path(out)
    count = ears.subjects * ears.images_per_subject
    pairs = [(s, i) for s in range(1, ears.subjects + 1) for i in range(ears.images_per_subject)]
    files = [image_name(*pair) for pair in pairs]
    names = [subject_name(subject) for subject, _ in pairs]
    validation = split_by_subject(names, val_fraction, ears.seed)  # before any work: it may refuse
    _clear(out, overwrite)

    work = functools.partial(_write_subject, ears, out)
    labels = map_processes(work, range(1, ears.subjects + 1), num_workers, lambda: done(ears.images_per_subject))
    landmarks, visibility, bboxes = (
        np.concatenate([getattr(found, name) for found in labels]) for name in ("landmarks", "visibility", "bboxes")
    )
    _write_index(out / "index.csv", ears, pairs, validation, bboxes)
    keypoints = np.concatenate([landmarks, visibility[..., None]], axis=2, dtype=np.float32)
    write_coco(out / "landmarks.json", _annotations(ears, out, pairs, keypoints, bboxes))
    for name, chosen in zip(TEACHER_FILES, (~validation, validation), strict=True):
        rows = np.flatnonzero(chosen)
        write_teacher_npy(
            out / name,
            image_paths=[files[row] for row in rows],
            bboxes=bboxes[rows],
            subjects=[names[row] for row in rows],
            landmarks=landmarks[rows],
        )
    num_val = int(validation.sum())
    val_subjects = num_val // ears.images_per_subject
    return [
        f"{count} pictures of {ears.subjects} subjects, {ears.image_size}x{ears.image_size}: {out / 'images'}",
        f"every factor, side and box: {out / 'index.csv'}",
        f"{len(EAR_LANDMARKS)} landmarks a picture, COCO keypoints: {out / 'landmarks.json'}",
        f"train: {count - num_val} pictures of {ears.subjects - val_subjects} subjects: {out / TEACHER_FILES[0]}",
        f"val: {num_val} pictures of {val_subjects} subjects: {out / TEACHER_FILES[1]}",
    ]


def _write_index(
    path: Path, ears: EarSet, pairs: list[tuple[int, int]], validation: NDArray[np.bool_], bboxes: NDArray[np.float32]
) -> None:
    rows = []
    for (subject, index), is_val, bbox in zip(pairs, validation, bboxes, strict=True):
        x, y, width, height = (f"{value:.3f}" for value in bbox)
        row = {
            "file": image_name(subject, index),
            "subject": subject_name(subject),
            "split": "val" if is_val else "train",
        }
        row |= {"x": x, "y": y, "width": width, "height": height}
        row |= dataclasses.asdict(ears.view(subject, index))
        rows.append(row | dataclasses.asdict(sample_shape(ears.seed, subject)))
    write_csv(path, list(rows[0]), (list(row.values()) for row in rows))


def _annotations(
    ears: EarSet, out: Path, pairs: list[tuple[int, int]], keypoints: NDArray[np.float32], bboxes: NDArray[np.float32]
) -> Annotations:
    photographs = [
        Photograph(
            path=out / image_name(subject, index),
            size=(ears.image_size, ears.image_size),
            boxes=bbox[None],
            keypoints=points[None],
            sides=(ears.view(subject, index).side,),
            subject=subject_name(subject),
        )
        for (subject, index), points, bbox in zip(pairs, keypoints, bboxes, strict=True)
    ]
    return Annotations(out / "landmarks.json", photographs, EAR_LANDMARKS, tuple(EAR_SKELETON))


def write_image_grid(path: str | os.PathLike[str], ears: EarSet, count: int = 48, columns: int = 8) -> None:
    """An image grid PNG of `count` pictures: the first of each subject, then the second of each, ..."""
    places = [divmod(place, ears.subjects) for place in range(min(count, ears.subjects * ears.images_per_subject))]
    pictures = [
        draw_ear(sample_shape(ears.seed, subject + 1), ears.view(subject + 1, index), ears.image_size)
        for index, subject in places
    ]
    write_image(path, tile_images([picture.image for picture in pictures], columns))
