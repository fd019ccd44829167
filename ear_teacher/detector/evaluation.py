"""How well a trained detector finds ears and their landmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ear_teacher.detector.metrics.average_precision import THRESHOLDS, by_size, coco_metrics, operate
from ear_teacher.detector.metrics.evaluation_set import Source
from ear_teacher.detector.metrics.failure_grids import save_false_alarms, save_missed, save_worst_landmarks
from ear_teacher.detector.metrics.landmark_error import (
    ear_lengths,
    ear_means,
    judge_visibility,
    landmark_rows,
    nme_by_size,
    normalised_errors,
    summarise,
)
from ear_teacher.detector.metrics.plots import save_cumulative_errors, save_precision_recall, save_scores
from ear_teacher.detector.metrics.predictions import DetectorPredictions, find_ears
from ear_teacher.detector.metrics.report import (
    BOX_METRICS,
    PROTOCOLS,
    size_metrics,
    write_detections,
    write_per_ear,
    write_per_landmark,
)
from ear_teacher.detector.model import EarDetector
from ear_teacher.detector.options import NOT_ALWAYS, EarDetectorEvaluationOptions, Normaliser
from earface.core.errors import InputError
from earface.data.annotations import HIDDEN, UNLABELLED, Annotations

FEW_EARS = 100  # with fewer, each ear changes the metrics visibly


def check_landmarks(model: EarDetector, annotations: Annotations) -> bool:
    """Whether landmarks can be evaluated. Raises InputError if their numbers differ, or if nothing can be evaluated."""
    own, given = model.config.num_landmarks, len(annotations.landmark_names)
    if own and given and own != given:
        raise InputError(
            f"{annotations.source}: {given} landmarks, but the model places {own}: measure it on the landmarks that it "
            "was trained for, or on boxes alone"
        )
    possible = bool(own) and any(photograph.has_landmarks for photograph in annotations.photographs)
    if not possible and not any(photograph.has_boxes for photograph in annotations.photographs):
        raise InputError(
            f"{annotations.source}: its boxes only enclose landmarks, and the model places none: nothing to measure"
        )
    return possible


def notes(
    model: EarDetector, annotations: Annotations, findings: Sequence[DetectorPredictions], threshold: float
) -> list[str]:
    """Notes on the metrics, one sentence each."""
    lines = []
    enclosing = sum(not found.photograph.has_boxes for found in findings)
    if enclosing:
        lines.append(
            f"{enclosing} photographs are left out of the box metrics: their boxes only enclose landmarks, and other "
            "ears may not be annotated; end to end, landmarks are matched to these boxes"
        )
    ears = sum(len(found.photograph.boxes) for found in findings)
    if ears < FEW_EARS:
        lines.append(f"insufficient data for fine differences: {ears} ears")
    if threshold < model.score_threshold:
        lines.append(f"the detector returns nothing that scores below {model.score_threshold:g}")
    own, given = model.config.landmark_names, annotations.landmark_names
    if bool(model.config.num_landmarks) != bool(given):
        lines.append(f"no landmarks are measured: {'the model' if given else 'the file'} has none")
    other = [pair for pair in zip(own, given, strict=False) if pair[0] != pair[1]]
    if other:
        lines.append(
            f"{len(other)} landmarks have another name in the model; the first is {other[0][0]!r} there and "
            f"{other[0][1]!r} here: if these are different points, the errors mean nothing"
        )
    return lines


def landmark_notes(findings: Sequence[DetectorPredictions], normaliser: Normaliser) -> list[str]:
    """As `notes`, where landmarks are measured."""
    truth = np.concatenate([found.photograph.keypoints for found in findings])
    labelled = (truth[..., 2] != UNLABELLED).sum(axis=1)
    few = int(((labelled > 0) & (2 * labelled < truth.shape[1])).sum())
    lines = []
    if few and normaliser == "landmark-box":
        lines.append(
            f"{few} ears have fewer than half of their landmarks labelled: the box around these is small, which "
            "makes their errors large; `normaliser` ear-box avoids this"
        )
    if not (truth[..., 2] == HIDDEN).any():
        lines.append("no landmark is labelled hidden: visibility cannot be measured")
    return lines


def measure_boxes(findings: Sequence[DetectorPredictions], out: Path, threshold: float) -> dict[str, Any] | None:
    """Metrics and plots of the photographs whose ears all have boxes; None if there are none."""
    results = [found.boxes for found in findings if found.photograph.has_boxes]
    if not results:
        return None
    coco, operation = coco_metrics(results), operate(results, threshold)
    save_scores(out / "scores.png", results, threshold)
    if coco is not None:
        save_precision_recall(out / "precision_recall.png", coco, operation)
    return {
        "photographs": len(results),
        "ears": sum(len(result.truth) for result in results),
        **{name: None if coco is None else getattr(coco, name) for name in BOX_METRICS},
        "operating_point": asdict(operation),
        "by_threshold": [asdict(operate(results, each)) for each in sorted({*THRESHOLDS, threshold})],
        "by_size": size_metrics(by_size(results), "ap50"),
    }


def measure_landmarks(
    findings: Sequence[DetectorPredictions],
    names: Sequence[str],
    annotations: Annotations,
    out: Path,
    options: EarDetectorEvaluationOptions,
) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
    """Metrics, and by protocol the mean error of each ear, (all ears,). Writes table, plot and image grid."""
    truth = np.concatenate([found.photograph.keypoints for found in findings])
    boxes = np.concatenate([found.photograph.boxes for found in findings])
    placed = np.concatenate([found.placed["keypoints"].numpy() for found in findings])
    scores = np.concatenate([found.placed["keypoints_scores"].numpy() for found in findings])
    matched = np.concatenate([found.matched(options.score_threshold) for found in findings])
    lengths = ear_lengths(truth, boxes, options.normaliser)
    protocols = zip(PROTOCOLS, (placed, matched), strict=True)
    errors = {protocol: normalised_errors(found, truth, lengths) for protocol, found in protocols}
    nme = {protocol: ear_means(values) for protocol, values in errors.items()}
    limit = options.ced_limit
    rows = {protocol: landmark_rows(values, annotations.landmark_names) for protocol, values in errors.items()}
    write_per_landmark(out / "per_landmark.csv", rows)
    if options.pictures:
        save_worst_landmarks(out / "worst_landmarks.png", names, findings, nme["annotated_boxes"], annotations.skeleton)
    curves = {PROTOCOLS[protocol]: values[~np.isnan(values)] for protocol, values in nme.items()}
    save_cumulative_errors(out / "cumulative_error.png", curves, limit, options.normaliser)
    metrics = {
        "normaliser": options.normaliser,
        "limit": limit,
        **{protocol: asdict(summarise(values, truth, limit)) for protocol, values in errors.items()},
        "by_size": size_metrics(nme_by_size(nme["annotated_boxes"], boxes), "nme"),
        "visibility": asdict(judge_visibility(placed, scores, truth)),
    }
    return metrics, nme


def evaluate(
    model: EarDetector,
    source: Source,
    out: Path,
    options: EarDetectorEvaluationOptions,
    done: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Measure, write everything but metrics.json to `out`, and return its metrics and notes.

    done: called with the number of photographs processed.
    """
    annotations = source.annotations
    with_landmarks = check_landmarks(model, annotations)
    findings, unreadable = find_ears(model, annotations, options.batch_size, with_landmarks, done)
    for name in NOT_ALWAYS:
        (out / name).unlink(missing_ok=True)
    names = [source.names[found.photograph.path] for found in findings]
    ids = [source.ids[found.photograph.path] for found in findings]
    num_ears = sum(len(found.photograph.boxes) for found in findings)
    remarks = notes(model, annotations, findings, options.score_threshold)

    boxes = measure_boxes(findings, out, options.score_threshold)
    landmarks, nme = None, dict.fromkeys(PROTOCOLS, np.full(num_ears, np.nan))
    if with_landmarks:
        landmarks, nme = measure_landmarks(findings, names, annotations, out, options)
        remarks += landmark_notes(findings, options.normaliser)
    if options.pictures:
        save_missed(out / "missed.png", names, findings, options.score_threshold)
        save_false_alarms(out / "false_alarms.png", names, findings)
    write_per_ear(out / "per_ear.csv", names, findings, nme)
    write_detections(out / "detections.json", ids, names, findings, source.category)
    return {
        "photographs": len(findings),
        "ears": num_ears,
        "unreadable": unreadable,
        "detection": boxes,
        "landmarks": landmarks,
        "notes": remarks
        + [f"{len(unreadable)} unreadable photographs left out: {'; '.join(unreadable)}"] * bool(unreadable),
    }
