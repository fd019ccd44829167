"""Photographs to calibrate an int8 detector on, and how far its boxes are those of the float one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ear_teacher.detector.config import EarDetectorConfig
from ear_teacher.detector.metrics.average_precision import BoxResult, coco_metrics, match
from ear_teacher.detector.metrics.predictions import corners
from earface.core.errors import InputError
from earface.data.affine import letterbox
from earface.data.coco import read_coco
from earface.data.folders import pictures_at
from earface.data.images import Pixels, read_ahead, read_image
from earface.export.quantization import Calibration, Judge, Loss, Outputs, calibration_of

MIN_SCORE = 0.5  # of the boxes that are compared


def calibration_photographs(config: EarDetectorConfig, source: str) -> Calibration:
    """uint8 squares of photographs, with their boxes where `source` has them.

    source: a photograph folder, or a COCO file of annotated ones. Raises InputError, also for too few, and for one that
    cannot be read.
    """
    annotated = read_coco(source).photographs if Path(source).suffix.lower() == ".json" else None
    paths = [each.path for each in annotated] if annotated else pictures_at(source)
    people = [each.subject for each in annotated] if annotated else [""] * len(paths)
    truth: list[Tensor] = []

    def read(rows: list[int]) -> tuple[Sequence[int], Pixels]:
        def square(row: int) -> tuple[Pixels, Tensor]:
            photograph = read_image(paths[row], config.in_channels)
            placement = letterbox((photograph.shape[1], photograph.shape[0]), config.image_size)
            boxes = annotated[row].boxes if annotated else np.zeros((0, 4), np.float32)
            return placement.image(photograph), corners(placement.boxes(boxes))

        found = list(read_ahead(square, rows))
        truth.extend(boxes for _, boxes in found)
        return range(len(rows)), np.stack([each for each, _ in found])

    complete = annotated is not None and all(each.has_boxes for each in annotated)
    calibration = calibration_of(source, people, read)
    return replace(calibration, boxes=truth) if complete else calibration


def box_loss(truth: Sequence[Tensor] | None) -> Judge:
    """1 - agreement: of the boxes that score MIN_SCORE in either file, the share with a counterpart at IoU .5.

    truth: by photograph, boxes (N, 4) x y x y in its square, for AP.
    """

    def judge(floats: Outputs, int8: Outputs, held_out: NDArray[np.bool_]) -> Loss:
        pairs, count = 0, 0
        for ours, theirs in zip(_above(floats), _above(int8), strict=True):
            pairs += int((match(BoxResult(ours, theirs, torch.ones(len(theirs))).overlaps) >= 0).sum())
            count += len(ours) + len(theirs)
        if not count:
            raise InputError("`calibration`: the detector finds no ear in its photographs; give some with ears")
        metrics = {"agreement of boxes": 2 * pairs / count, "boxes of float": float(sum(map(len, _above(floats))))}
        if truth is not None:
            wanted = [boxes for boxes, chosen in zip(truth, held_out, strict=True) if chosen]
            for name, outputs in (("float", floats), ("int8", int8)):
                found = coco_metrics([BoxResult(*each) for each in zip(wanted, *_tables(outputs), strict=True)])
                metrics |= {} if found is None else {f"AP of {name}": found.ap}
        return Loss(1 - metrics["agreement of boxes"], metrics)

    return judge


def _tables(outputs: Outputs) -> tuple[list[Tensor], list[Tensor]]:
    """Boxes and scores of each photograph, without the zeros behind them."""
    boxes, scores = map(torch.from_numpy, outputs)
    kept = scores > 0
    rows = range(len(kept))
    return [boxes[row][kept[row]] for row in rows], [scores[row][kept[row]] for row in rows]


def _above(outputs: Outputs) -> list[Tensor]:
    boxes, scores = map(torch.from_numpy, outputs)
    return [boxes[row][scores[row] >= MIN_SCORE] for row in range(len(boxes))]
