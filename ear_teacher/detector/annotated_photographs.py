"""The annotated photographs of a run: read, checked, and those that can be decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from ear_teacher.detector.config import EarDetectorTrainingConfig
from earface.core.errors import InputError
from earface.core.notices import warn
from earface.data.annotations import Annotations, Floats, Photograph
from earface.data.coco import read_coco
from earface.data.image_cache import MAX_UNREADABLE
from earface.data.images import read_ahead, read_image
from earface.data.training_checks import copies


@dataclass(frozen=True)
class AnnotatedPhotographs:
    """The annotations of a run: files of training photographs and of validation photographs."""

    train: list[Annotations]
    val: list[Annotations]

    @classmethod
    def read(cls, config: EarDetectorTrainingConfig) -> Self:
        """Raises InputError for a file that cannot be used, and if a photograph is on both sides."""
        annotated = cls(read_all(config.train_json, config.images), read_all(config.val_json, config.images))
        shared = {photograph.path.resolve() for each in annotated.train for photograph in each.photographs} & {
            photograph.path.resolve() for each in annotated.val for photograph in each.photographs
        }
        if shared:
            raise InputError(
                f"{config.val_json[0]}: {len(shared)} photographs are also trained on (such as {min(shared)}): split "
                "them with earface ears annotations"
            )
        train, val = (
            [each.path for file in side for each in file.photographs] for side in (annotated.train, annotated.val)
        )
        if same := copies(train, val):
            warn(
                f"{config.val_json[0]}: {len(same)} photographs are copies of ones that are trained on, such as "
                f"{same[0]}: leave them out, or validation shows what was learned by heart"
            )
        agreed_landmarks([*annotated.train, *annotated.val])
        return annotated

    @property
    def num_landmarks(self) -> int:
        """On each ear; 0 if no training photograph has any."""
        labelled = any(photograph.has_landmarks for each in self.train for photograph in each.photographs)
        return agreed_landmarks([*self.train, *self.val]) if labelled else 0

    @property
    def landmarks(self) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
        """The names of the landmarks and the skeleton, from the first file that has any."""
        named = next((each for each in [*self.train, *self.val] if each.landmark_names), None)
        return (named.landmark_names, named.skeleton) if named else ((), ())


def read_all(paths: Sequence[str], images: str | None) -> list[Annotations]:
    """COCO files. Raises InputError for one that is missing, wrong, or without an ear."""
    read = []
    for path in paths:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; make it from your annotations with earface ears annotations")
        annotations = read_coco(path, images)
        if not annotations.num_ears:
            raise InputError(f"{path}: {len(annotations)} photographs and no ears; give annotations of ears")
        read.append(annotations)
    if not read:
        raise InputError("no annotations: give one or more COCO files")
    return read


def agreed_landmarks(files: Sequence[Annotations]) -> int:
    """How many landmarks the files have; those with boxes only agree with all. Raises InputError."""
    counts = {len(each.landmark_names): each.source for each in files if each.landmark_names}
    if len(counts) > 1:
        (first, source), (second, other) = list(counts.items())[:2]
        raise InputError(f"{source} has {first} landmarks and {other} {second}: train a detector for each")
    return next(iter(counts), 0)


def readable(files: Sequence[Annotations], num_landmarks: int) -> list[Photograph]:
    """The photographs of all files that can be decoded, with `num_landmarks` each; not labelled where a file has none.

    Raises InputError if more than 5 % cannot.
    """
    photographs = [photograph for each in files for photograph in each.photographs]
    failures = list(read_ahead(_failure, photographs))
    rejects = [failure for failure in failures if failure]
    if len(rejects) > MAX_UNREADABLE * len(photographs):
        raise InputError(
            f"{files[0].source}: {len(rejects)} of {len(photographs)} photographs cannot be read, over "
            f"{MAX_UNREADABLE:.0%}: {'; '.join(rejects[:3])}"
        )
    _report(files, rejects)
    kept = [photograph for photograph, failure in zip(photographs, failures, strict=True) if not failure]
    return [
        dataclasses.replace(photograph, keypoints=_with_landmarks(photograph.keypoints, num_landmarks))
        for photograph in kept
    ]


def _report(files: Sequence[Annotations], rejects: Sequence[str]) -> None:
    if rejects:
        first = "; ".join(rejects[:3])
        warn(f"{files[0].source}: {len(rejects)} photographs cannot be read and are left out ({first})", rejects)


def _failure(photograph: Photograph) -> str:
    """Why decoding fails; empty if it does not."""
    try:
        read_image(photograph.path)
    except InputError as error:
        return str(error)
    return ""


def _with_landmarks(keypoints: Floats, count: int) -> Floats:
    if keypoints.shape[1] == count:
        return keypoints
    return np.zeros((len(keypoints), count, 3), np.float32)
