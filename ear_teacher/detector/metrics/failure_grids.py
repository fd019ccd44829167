"""The worst errors of an evaluation as image grids: missed ears, false alarms, misplaced landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ear_teacher.detector.drawing import Skeleton, photograph_grid, zoomed
from ear_teacher.detector.metrics.predictions import DetectorPredictions, corners
from earface.data.images import read_image, write_image

COLUMNS, ROWS = 4, 3
SIDE = 360  # pixels of a tile
SURROUNDINGS = 1.0  # box sides around an ear or a false alarm, to see what it is


def save_missed(path: Path, names: Sequence[str], findings: Sequence[DetectorPredictions], threshold: float) -> None:
    """The largest ears without a detection that scores `threshold` or more, and the detections around them."""
    missed = []
    for row, found in enumerate(findings):
        kept = found.detections["scores"] >= threshold
        for ear, finder in enumerate(found.finders):
            if found.photograph.has_boxes and (finder is None or not kept[finder]):
                side = float(found.photograph.boxes[ear, 2:].prod() ** 0.5)
                missed.append((side, row, found.boxes.truth[ear], f"{side:.0f} px"))
    _save(path, names, findings, missed, margin=SURROUNDINGS, min_score=threshold)


def save_false_alarms(path: Path, names: Sequence[str], findings: Sequence[DetectorPredictions]) -> None:
    """The highest-scoring detections that match no ear, with all that score as high and the annotated ears."""
    alarms = []
    for row, found in enumerate(findings):
        for box, score, ear in zip(
            found.boxes.boxes, found.boxes.scores.tolist(), found.boxes.ears.tolist(), strict=True
        ):
            if found.photograph.has_boxes and ear < 0:
                alarms.append((score, row, box, f"{score:.2f}"))
    _save(path, names, findings, alarms, margin=SURROUNDINGS, min_score=None)


def save_worst_landmarks(
    path: Path,
    names: Sequence[str],
    findings: Sequence[DetectorPredictions],
    errors: NDArray[np.float64],
    skeleton: Skeleton,
) -> None:
    """The ears with the largest errors, with the landmarks predicted in their annotated boxes; the score shown is the
    error.

    errors: (all ears,), NaN for unlabelled ones.
    """
    worst, shown, start = [], [], 0
    for row, found in enumerate(findings):
        stop = start + len(found.photograph.boxes)
        own = torch.from_numpy(errors[start:stop].astype(np.float32))
        pictured = {"boxes": found.boxes.truth, "scores": own, "keypoints": found.placed["keypoints"]}
        shown.append(DetectorPredictions(found.photograph, pictured, {}))
        worst += [
            (error, row, box, f"error {error:.3f}")
            for error, box in zip(own.tolist(), corners(found.photograph.boxes), strict=True)
            if np.isfinite(error)
        ]
        start = stop
    _save(path, names, shown, worst, margin=0.25, skeleton=skeleton)


def _save(
    path: Path,
    names: Sequence[str],
    findings: Sequence[DetectorPredictions],
    found: Sequence[tuple[float, int, Tensor, str]],
    *,
    margin: float,
    min_score: float | None = 0.0,
    skeleton: Skeleton = (),
) -> None:
    """found: severity, row of the photograph, box x y x y, caption. Writes no file if it is empty.

    min_score: of the detections to draw; None: the severity.
    """
    worst = sorted(found, key=lambda entry: -entry[0])[: COLUMNS * ROWS]
    if not worst:
        return
    pictures, captions = [], []
    for severity, row, box, caption in worst:
        photograph = findings[row].photograph
        picture = zoomed(
            read_image(photograph.path),
            box,
            findings[row].detections,
            truth=photograph,
            skeleton=skeleton,
            min_score=severity if min_score is None else min_score,
            margin=margin,
            side=SIDE,
        )
        pictures.append(picture)
        captions.append(f"{names[row]}: {caption}")
    write_image(path, photograph_grid(pictures, COLUMNS, captions=captions, side=SIDE))
