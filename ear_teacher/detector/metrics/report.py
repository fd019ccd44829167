"""The metrics of an evaluation: CSV files with a row per ear or landmark, COCO results, tables on the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ear_teacher.detector.metrics.average_precision import SizeRow
from ear_teacher.detector.metrics.landmark_error import LandmarkRow
from ear_teacher.detector.metrics.predictions import DetectorPredictions
from earface.core.files import atomic_write
from earface.data.tables import write_csv

BOX_METRICS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "recall_iou50": "recall, IoU .5",
    "recall_iou30": "recall, IoU .3",
    "average_recall": "average recall",
}
PROTOCOLS = {"annotated_boxes": "in annotated boxes", "end_to_end": "end to end"}
EAR_COLUMNS = ("file", "ear", "x", "y", "width", "height", "best_iou", "score", "nme", "nme_end_to_end")

CONVENTION = (
    "Shares in [0, 1]. Boxes by COCO's rules (pycocotools): AP is the mean of the interpolated precision at 101 "
    "recalls, over IoU .50, .55, ... .95; at most 100 detections per photograph; photographs without ears count. "
    "average_recall: over the same IoUs. Of photographs whose boxes only enclose landmarks, or where they are "
    "missing, no box is evaluated. operating_point: the detections of its score and above, matched at IoU .5, the "
    "best score first. by_size: sqrt(width * height) of the annotated box in pixels of the photograph, low included, "
    "high not; for ap50, ears of other sizes count neither as found nor as missed, and unmatched detections of other "
    "sizes are not false alarms; null: fewer than 5 ears. nme: distance to the annotated landmark over the "
    "normaliser, mean over an ear's labelled landmarks (hidden ones, too), then mean over ears. landmark-box: "
    "diagonal of the box around an ear's labelled landmarks; ear-box: of its annotated box. annotated_boxes: "
    "landmarks placed in the annotated boxes. end_to_end: those of the detections matched to the ears at the "
    "operating point; unmatched ears are not in its nme, but count in its auc and failure_rate as infinite errors. "
    "auc: area under the cumulative distribution of the ears' errors from 0 to the limit, over the limit. "
    "failure_rate: share of the ears beyond the limit. visibility: in annotated boxes; average_precision is that of "
    "the hidden landmarks; majority: the accuracy of predicting the more frequent class for all. null: cannot be "
    "measured on these data."
)


def size_metrics(rows: Iterable[SizeRow], name: str) -> list[dict[str, float | None]]:
    """name: of the metric. JSON has no infinity, so the upper edge of the last size is None."""
    edges = [(row, row.high if math.isfinite(row.high) else None) for row in rows]
    return [{"low": row.low, "high": high, "ears": row.ears, name: row.value} for row, high in edges]


def write_per_ear(
    path: Path, names: Sequence[str], findings: Sequence[DetectorPredictions], nme: Mapping[str, NDArray[np.float64]]
) -> None:
    """CSV, one row per ear, numbered from 1 in its photograph; the score is of the detection that finds it at IoU .5.

    names: of the photographs. nme: by the keys of PROTOCOLS, (all ears,); what is not finite is left empty, as is the
    score of an ear that no detection finds.
    """
    errors = iter(zip(*(nme[protocol].tolist() for protocol in PROTOCOLS), strict=True))
    rows = []
    for name, found in zip(names, findings, strict=True):
        best = found.boxes.overlaps.max(axis=0, initial=0.0)
        scores = found.detections["scores"].tolist()
        for ear, (box, finder) in enumerate(zip(found.photograph.boxes.tolist(), found.finders, strict=True)):
            score = math.nan if finder is None else scores[finder]
            numbers = [*box, best[ear], score, *next(errors)]
            rows.append([name, ear + 1, *(_number(value) for value in numbers)])
    write_csv(path, EAR_COLUMNS, rows)


def write_per_landmark(path: Path, rows: Mapping[str, Sequence[LandmarkRow]]) -> None:
    """CSV, one row per landmark and protocol; rows: by a key of PROTOCOLS."""
    cells = [
        [protocol, row.name, row.count, *map(_number, (row.mean, row.median, row.percentile_90))]
        for protocol, landmarks in rows.items()
        for row in landmarks
    ]
    write_csv(path, ("protocol", "landmark", "count", "mean", "median", "percentile_90"), cells)


def write_detections(
    path: Path,
    image_ids: Sequence[int | str],
    names: Sequence[str],
    findings: Sequence[DetectorPredictions],
    category: int | str,
) -> None:
    """COCO's results format, https://cocodataset.org/#format-results: pycocotools' `loadRes` takes it.

    image_ids, names: of the photographs. Keypoints have COCO's visibility: 1 hidden, 2 visible. Beyond the standard,
    each detection has its file_name.
    """
    entries: list[dict[str, object]] = []
    for image_id, name, found in zip(image_ids, names, findings, strict=True):
        boxes = found.detections["boxes"].double()
        boxes[:, 2:] -= boxes[:, :2]
        landmarks = found.detections["keypoints"].double()
        landmarks[..., 2] += 1
        for box, score, points in zip(
            boxes.tolist(), found.detections["scores"].double().tolist(), landmarks.flatten(1).tolist(), strict=True
        ):
            entry = {"image_id": image_id, "file_name": name, "category_id": category, "bbox": box, "score": score}
            entries.append(entry | ({"keypoints": points} if points else {}))
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(entries, allow_nan=False), encoding="utf-8")


def print_report(console: Console, metrics: Mapping[str, Any]) -> None:
    """Tables of what was measured: boxes, boxes by size, landmarks."""
    boxes, landmarks = metrics["detection"], metrics["landmarks"]
    if boxes is not None:
        rows: list[Sequence[str]] = [(name, _share(boxes[key])) for key, name in BOX_METRICS.items()]
        console.print(_table(f"boxes of {boxes['ears']} ears", ("", "value"), rows))
        console.print(_threshold_table(boxes))
        console.print(_size_table("boxes", boxes["by_size"], "ap50", "AP50"))
    if landmarks is not None:
        title = f"landmarks, errors over the diagonal of the {landmarks['normaliser']}"
        columns = ("", "ears", "not found", "NME", "visible", "hidden", f"AUC {landmarks['limit']:g}", "failures")
        rows = []
        for protocol, name in PROTOCOLS.items():
            found = landmarks[protocol]
            errors = (_share(found[key]) for key in ("nme", "nme_visible", "nme_hidden", "auc"))
            rows.append(
                (name, str(found["ears"]), _percent(found["unmatched"]), *errors, _percent(found["failure_rate"]))
            )
        console.print(_table(title, columns, rows))
        console.print(_size_table("landmarks", landmarks["by_size"], "nme", "NME"))
        seen = landmarks["visibility"]
        if seen["accuracy"] is not None:
            accuracy = f"accuracy {seen['accuracy']:.1%} (majority class: {seen['majority']:.1%})"
            line = f"visibility of {seen['landmarks']} landmarks: {accuracy}, ROC AUC {seen['roc_auc']:.3f}"
            console.print(line, highlight=False)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _threshold_table(boxes: Mapping[str, Any]) -> Table:
    rows = []
    for point in boxes["by_threshold"]:
        score = f"{point['threshold']:g}" + (" (operating point)" if point == boxes["operating_point"] else "")
        shares = (_share(point[key]) for key in ("precision", "recall", "false_positives_per_photograph"))
        rows.append((score, *shares))
    columns = ("score", "precision", "recall", "false alarms per photograph")
    return _table("boxes of a score and above, at IoU .5", columns, rows)


def _size_table(title: str, rows: Iterable[Mapping[str, Any]], key: str, name: str) -> Table:
    lines = []
    for row in rows:
        size = f"{row['low']:g} to {row['high']:g}" if row["high"] is not None else f"{row['low']:g} and more"
        lines.append((size, str(row["ears"]), _share(row[key], "insufficient data")))
    return _table(f"{title} by size of ear", ("pixels", "ears", name), lines)


def _share(value: float | None, missing: str = "-") -> str:
    return missing if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"
