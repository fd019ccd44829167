"""The detections in annotated photographs, one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ear_teacher.detector.metrics.average_precision import BoxResult
from ear_teacher.detector.model import EarDetector
from earface.core.errors import InputError
from earface.data.annotations import Annotations, Floats, Photograph
from earface.data.image_cache import MAX_UNREADABLE
from earface.data.images import Pixels, read_ahead, read_image


@dataclass(frozen=True)
class DetectorPredictions:
    """One photograph with N annotated ears of K landmarks and D detections, the best first. All on the CPU."""

    photograph: Photograph
    detections: Mapping[str, Tensor]  # of EarDetector.predict
    placed: Mapping[str, Tensor]  # of EarDetector.place_landmarks in the annotated boxes; empty: boxes only

    @cached_property
    def boxes(self) -> BoxResult:
        return BoxResult(corners(self.photograph.boxes), self.detections["boxes"], self.detections["scores"])

    @cached_property
    def finders(self) -> list[int | None]:
        """The detection that finds each of the N ears, or None."""
        ears = self.boxes.ears.tolist()
        return [ears.index(ear) if ear in ears else None for ear in range(len(self.photograph.boxes))]

    def matched(self, threshold: float) -> Floats:
        """(N, K, 3) landmarks of the detections that find the ears and score `threshold` or more; else infinity."""
        keypoints = self.detections["keypoints"].numpy()
        landmarks = np.full((len(self.finders), *keypoints.shape[1:]), np.inf, np.float32)
        for ear, finder in enumerate(self.finders):
            if finder is not None and self.detections["scores"][finder] >= threshold:
                landmarks[ear] = keypoints[finder]
        return landmarks


def corners(boxes: Floats) -> Tensor:
    """(N, 4) x y width height -> x y x y."""
    return torch.from_numpy(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1))


def find_ears(
    model: EarDetector,
    annotations: Annotations,
    batch_size: int,
    with_landmarks: bool,
    done: Callable[[int], None] = lambda count: None,
) -> tuple[list[DetectorPredictions], list[str]]:
    """Detections of the readable photographs, in their order, and why the others cannot be read.

    with_landmarks: whether to place them in the annotated boxes, too. done: called with the number of photographs
    processed. Raises InputError if more than 5 % cannot be read.
    """
    channels = model.config.in_channels

    def read(photograph: Photograph) -> tuple[Photograph, Pixels] | str:
        try:
            return photograph, read_image(photograph.path, channels)
        except InputError as error:
            return str(error)

    findings: list[DetectorPredictions] = []
    unreadable: list[str] = []
    batch: list[tuple[Photograph, Pixels]] = []
    for number, result in enumerate(read_ahead(read, annotations.photographs), 1):
        if isinstance(result, str):
            unreadable.append(result)
        else:
            batch.append(result)
        if len(batch) == batch_size or number == len(annotations):
            findings += _findings(model, batch, with_landmarks)
            batch = []
            done(number)
    if len(unreadable) > MAX_UNREADABLE * len(annotations):
        raise InputError(
            f"{annotations.source}: {len(unreadable)} of {len(annotations)} photographs cannot be read, over "
            f"{MAX_UNREADABLE:.0%}: {'; '.join(unreadable[:3])}"
        )
    return findings, unreadable


@torch.no_grad()
def _findings(
    model: EarDetector, batch: Sequence[tuple[Photograph, Pixels]], with_landmarks: bool
) -> list[DetectorPredictions]:
    if not batch:
        return []
    pictures = [picture for _, picture in batch]
    detections = model.predict(pictures)
    placed: Sequence[Mapping[str, Tensor]] = [{}] * len(batch)
    if with_landmarks:
        placed = model.place_landmarks(pictures, [corners(photograph.boxes) for photograph, _ in batch])
    return [
        DetectorPredictions(photograph, _on_cpu(found), _on_cpu(ears))
        for (photograph, _), found, ears in zip(batch, detections, placed, strict=True)
    ]


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: values.detach().cpu() for name, values in tensors.items()}
