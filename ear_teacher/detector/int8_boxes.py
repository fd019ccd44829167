"""Photographs to calibrate an int8 detector on, and how far its boxes are those of the float one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou

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
FEWEST_BOXES = 8
MOVED = 0.1  # a score that changes by less is of the same box


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
    """1 - agreement: of the boxes that score MIN_SCORE in either file, the share with a counterpart in the other.

    That is a box at IoU .5 that scores MIN_SCORE - MOVED or more. truth: by photograph, boxes (N, 4) x y x y in its
    square, for AP. Judging raises InputError where the float detector finds fewer than FEWEST_BOXES.
    """

    def judge(floats: Outputs, int8: Outputs, held_out: NDArray[np.bool_]) -> Loss:
        found, count = 0, 0
        for one, other in ((floats, int8), (int8, floats)):
            for boxes, counterparts in zip(_above(one), _above(other, MIN_SCORE - MOVED), strict=True):
                found += int((match(box_iou(boxes, counterparts).double().numpy()) >= 0).sum())
                count += len(boxes)
        boxes_of_float = sum(map(len, _above(floats)))
        if boxes_of_float < FEWEST_BOXES:
            raise InputError(
                f"`calibration`: the detector finds {boxes_of_float} ears in {int(held_out.sum())} of its photographs; "
                f"{FEWEST_BOXES} or more show what int8 loses; give more photographs of ears"
            )
        metrics = {"agreement of boxes": found / count, "boxes of float": float(boxes_of_float)}
        if truth is not None:
            wanted = [boxes for boxes, chosen in zip(truth, held_out, strict=True) if chosen]
            for name, outputs in (("float", floats), ("int8", int8)):
                coco = coco_metrics([BoxResult(*each) for each in zip(wanted, *_tables(outputs), strict=True)])
                metrics |= {} if coco is None else {f"AP of {name}": coco.ap}
        return Loss(1 - metrics["agreement of boxes"], metrics)

    return judge


def _tables(outputs: Outputs) -> tuple[list[Tensor], list[Tensor]]:
    """Boxes and scores of each photograph, without the zeros behind them."""
    boxes, scores = map(torch.from_numpy, outputs)
    kept = scores > 0
    rows = range(len(kept))
    return [boxes[row][kept[row]] for row in rows], [scores[row][kept[row]] for row in rows]


def _above(outputs: Outputs, score: float = MIN_SCORE) -> list[Tensor]:
    boxes, scores = map(torch.from_numpy, outputs)
    return [boxes[row][scores[row] >= score] for row in range(len(boxes))]
