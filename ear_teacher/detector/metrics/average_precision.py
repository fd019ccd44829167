"""Metrics of boxes: COCO's average precision and recall, AP by size of ear, and precision and recall at a threshold.

Boxes are x y x y in pixels of the photograph. COCO's rules: https://cocodataset.org/#detection-eval, by pycocotools.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

MATCH_IOU = 0.5  # above which a box matches an ear
LOOSE_IOU = 0.3  # at which the literature reports recall of small ears
COCO_IOUS = np.linspace(0.5, 0.95, 10).tolist()
RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads the precision
SIZE_EDGES = (0.0, 16.0, 32.0, 64.0, 128.0, math.inf)  # sqrt(width * height), pixels
THRESHOLDS = tuple(tenth / 10 for tenth in range(1, 10))  # of scores
MIN_EARS = 5  # of a size; fewer are insufficient data


@dataclass(frozen=True)
class BoxResult:
    """One photograph with N annotated ears and D <= 100 detections, the best first."""

    truth: Tensor  # (N, 4) x y x y
    boxes: Tensor  # (D, 4) x y x y
    scores: Tensor  # (D,) in [0, 1], descending

    @cached_property
    def overlaps(self) -> NDArray[np.float64]:
        """(D, N) IoU."""
        overlaps: NDArray[np.float64] = box_iou(self.boxes.double(), self.truth.double()).numpy()
        return overlaps

    @cached_property
    def ears(self) -> NDArray[np.int64]:
        """(D,) the ear that each detection finds, or -1."""
        return match(self.overlaps)


@dataclass(frozen=True)
class SizeRow:
    """The ears of one size."""

    low: float  # sqrt(width * height) in pixels, included
    high: float  # excluded
    ears: int
    value: float | None  # None: insufficient data


@dataclass(frozen=True)
class Operation:
    """Metrics of the detections with scores of at least `threshold`, at IoU .5. In [0, 1]."""

    threshold: float
    detections: int
    precision: float | None  # None: nothing is detected
    recall: float | None  # None: there are no ears
    false_positives_per_photograph: float


@dataclass(frozen=True)
class CocoMetrics:
    """COCO's metrics, with at most 100 detections per photograph. In [0, 1]."""

    ap: float  # mean over IoU .50, .55, ... .95
    ap50: float
    ap75: float
    recall_iou50: float
    recall_iou30: float
    average_recall: float  # mean over IoU .50, .55, ... .95
    precisions: dict[float, NDArray[np.float64]]  # IoU -> (101,) interpolated precision at RECALLS


def match(
    overlaps: NDArray[np.float64], threshold: float = MATCH_IOU, ignored: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """(D, N) IoU of detections, the best first, with ears -> (D,) the ear that each finds, or -1. COCO's rule.

    Each detection in turn takes the free ear that it overlaps most, at `threshold` or more, and of equals the first.
    ignored: (N,) ears that are taken only where no other can be.
    """
    ears = np.full(len(overlaps), -1, np.int64)
    if overlaps.shape[1] == 0:
        return ears
    free = np.ones(overlaps.shape[1], bool)
    lowered = overlaps if ignored is None else overlaps - 2.0 * ignored  # below every overlap that counts
    for row, overlap in enumerate(lowered):
        possible = np.where(free & (overlaps[row] >= threshold), overlap, -np.inf)
        best = int(possible.argmax())
        if np.isfinite(possible[best]):
            ears[row], free[best] = best, False
    return ears


def average_precision(scores: NDArray[np.floating], correct: NDArray[np.bool_], num_ears: int) -> float:
    """Area under the interpolated precision of D detections in any order, read at 101 recalls. In [0, 1]; num_ears > 0.

    At each recall it is the highest precision at that recall or beyond, and 0 beyond the last.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(correct[order])
    precision = np.append(hits / np.arange(1, len(hits) + 1), 0.0)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float(highest[np.searchsorted(hits / num_ears, RECALLS)].mean())


def by_size(results: Sequence[BoxResult], edges: Sequence[float] = SIZE_EDGES) -> list[SizeRow]:
    """AP50 of the ears between every two edges, in pixels of the photographs.

    As in COCO's area ranges, ears of other sizes count neither as found nor as missed, and unmatched detections of
    other sizes are not false alarms.
    """
    rows = []
    for low, high in pairwise(edges):
        scores, correct, num_ears = [], [], 0
        for result in results:
            ignored = ~_within(result.truth, low, high)
            ears = match(result.overlaps, ignored=ignored)
            found = ears >= 0
            counts = _within(result.boxes, low, high)
            counts[found] = ~ignored[ears[found]]
            scores.append(result.scores.numpy()[counts])
            correct.append(found[counts])
            num_ears += int((~ignored).sum())
        enough = num_ears >= MIN_EARS
        ap50 = average_precision(np.concatenate(scores), np.concatenate(correct), num_ears) if enough else None
        rows.append(SizeRow(low, high, num_ears, ap50))
    return rows


def operate(results: Sequence[BoxResult], threshold: float) -> Operation:
    """Precision, recall and false positives of the detections that score `threshold` or more."""
    # a match depends on better detections only, so those below the threshold can be removed afterwards
    kept = [result.ears[result.scores.numpy() >= threshold] for result in results]
    detections, num_ears = sum(map(len, kept)), sum(len(result.truth) for result in results)
    found = sum(int((ears >= 0).sum()) for ears in kept)
    return Operation(
        threshold=threshold,
        detections=detections,
        precision=found / detections if detections else None,
        recall=found / num_ears if num_ears else None,
        false_positives_per_photograph=(detections - found) / len(results),
    )


def coco_metrics(results: Sequence[BoxResult]) -> CocoMetrics | None:
    """Of completely annotated photographs, including those without ears. None if none has ears."""
    if not any(len(result.truth) for result in results):
        return None
    metric = MeanAveragePrecision(
        iou_thresholds=[LOOSE_IOU, *COCO_IOUS],
        rec_thresholds=RECALLS.tolist(),  # its own are float32: a recall of exactly .1 would be read a step later
        extended_summary=True,
    )
    metric.warn_on_many_detections = False
    metric.update(
        [{"boxes": r.boxes, "scores": r.scores, "labels": _one_class(r.boxes)} for r in results],
        [{"boxes": r.truth, "labels": _one_class(r.truth)} for r in results],
    )
    found = metric.compute()
    precision = found["precision"][:, :, 0, 0, -1].double().numpy()  # (IoUs, recalls) of ears of all areas
    recall = found["recall"][:, 0, 0, -1].double().numpy()  # (IoUs,)
    at75 = COCO_IOUS.index(0.75) + 1
    return CocoMetrics(
        ap=float(precision[1:].mean()),
        ap50=float(precision[1].mean()),
        ap75=float(precision[at75].mean()),
        recall_iou50=float(recall[1]),
        recall_iou30=float(recall[0]),
        average_recall=float(recall[1:].mean()),
        precisions={LOOSE_IOU: precision[0], MATCH_IOU: precision[1], 0.75: precision[at75]},
    )


def _one_class(boxes: Tensor) -> Tensor:
    return torch.ones(len(boxes), dtype=torch.int64)


def _within(boxes: Tensor, low: float, high: float) -> NDArray[np.bool_]:
    sizes = (boxes[:, 2:] - boxes[:, :2]).double().prod(dim=1).sqrt().numpy()
    return (sizes >= low) & (sizes < high)
