"""Metrics of landmarks: errors relative to the size of the ear, and the classification as visible or hidden.

An error is the distance in pixels divided by a length of the ear. Of N ears with K landmarks it is an (N, K) array in
which NaN means not labelled and infinity that the ear was not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from ear_teacher.detector.metrics.average_precision import MIN_EARS, SIZE_EDGES, SizeRow
from ear_teacher.detector.options import Normaliser
from earface.data.annotations import HIDDEN, UNLABELLED, VISIBLE, Floats

Errors = NDArray[np.float64]


@dataclass(frozen=True)
class LandmarkAccuracy:
    """Of N ears, by one protocol. Errors are shares of the normaliser; None: no ear, or no such landmark."""

    ears: int
    unmatched: float | None  # share of the ears that were not found; they are not in nme and median
    nme: float | None  # mean over ears of the mean over their labelled landmarks
    median: float | None  # over ears
    nme_visible: float | None  # as nme, of the landmarks that are labelled visible
    nme_hidden: float | None
    auc: float | None  # under the cumulative distribution up to the limit, in [0, 1]; of an ear not found infinity
    failure_rate: float | None  # share of the ears beyond the limit or not found


@dataclass(frozen=True)
class LandmarkRow:
    """One landmark over the ears where it is labelled and which were found."""

    name: str
    count: int
    mean: float | None  # None: on no ear
    median: float | None
    percentile_90: float | None


@dataclass(frozen=True)
class Visibility:
    """Classification of labelled landmarks as visible or hidden. None: all are of one kind, or there are none."""

    landmarks: int
    hidden: int
    accuracy: float | None
    majority: float | None  # the accuracy of predicting the more frequent class for all
    roc_auc: float | None
    average_precision: float | None  # of the hidden ones


def ear_lengths(keypoints: Floats, boxes: Floats, normaliser: Normaliser) -> NDArray[np.float64]:
    """The length that errors of each ear are divided by, (N,) pixels; NaN where it is zero or nothing is labelled.

    `landmark-box`: the diagonal of the box around the labelled landmarks of (N, K, 3) keypoints, hidden ones too, as
    for ears in Zhou & Zafeiriou 2017 (an ear has no inter-ocular distance). `ear-box`: that of the annotated (N, 4)
    x y width height.
    """
    labelled = keypoints[..., 2] != UNLABELLED
    extent = boxes[:, 2:].astype(np.float64)
    if normaliser == "landmark-box":
        places = keypoints[..., :2].astype(np.float64)
        low = np.where(labelled[..., None], places, np.inf).min(axis=1, initial=np.inf)
        high = np.where(labelled[..., None], places, -np.inf).max(axis=1, initial=-np.inf)
        extent = high - low
    lengths = np.linalg.norm(extent, axis=1)
    return np.where(labelled.any(axis=1) & (lengths > 0), lengths, np.nan)


def normalised_errors(found: Floats, truth: Floats, lengths: NDArray[np.float64]) -> Errors:
    """(N, K) of (N, K, 2 or 3) found and (N, K, 3) annotated landmarks; found: infinity where an ear was not found."""
    distances = np.linalg.norm(found[..., :2].astype(np.float64) - truth[..., :2], axis=-1)
    distances[np.isnan(distances)] = np.inf  # the output of a diverged network must not count as unlabelled
    return np.where(truth[..., 2] != UNLABELLED, distances / lengths[:, None], np.nan)


def ear_means(errors: Errors) -> NDArray[np.float64]:
    """(N,) the mean over each ear's labelled landmarks; NaN for an ear without any."""
    labelled = ~np.isnan(errors)
    total = np.where(labelled, errors, 0.0).sum(axis=1)
    return np.where(labelled.any(axis=1), total / np.maximum(labelled.sum(axis=1), 1), np.nan)


def area_under_ced(ear_errors: NDArray[np.float64], limit: float) -> float:
    """Of the cumulative error distribution from 0 to `limit`, over `limit`: in [0, 1], 1 if all errors are 0.

    The distribution steps up by 1 / N at each of the N >= 1 errors e, so the area is exactly the mean of
    max(0, limit - e).
    """
    return float(np.maximum(0.0, 1.0 - ear_errors / limit).mean())


def summarise(errors: Errors, truth: Floats, limit: float) -> LandmarkAccuracy:
    """Of (N, K) errors of (N, K, 3) annotated landmarks. Ears without a labelled landmark are left out."""
    all_ears = ear_means(errors)
    means = all_ears[~np.isnan(all_ears)]
    return LandmarkAccuracy(
        ears=len(means),
        unmatched=float(np.isinf(means).mean()) if len(means) else None,
        nme=_mean(means),
        median=float(np.median(means[np.isfinite(means)])) if np.isfinite(means).any() else None,
        nme_visible=_mean(ear_means(np.where(truth[..., 2] == VISIBLE, errors, np.nan))),
        nme_hidden=_mean(ear_means(np.where(truth[..., 2] == HIDDEN, errors, np.nan))),
        auc=area_under_ced(means, limit) if len(means) else None,
        failure_rate=float((means > limit).mean()) if len(means) else None,
    )


def landmark_rows(errors: Errors, names: Sequence[str]) -> list[LandmarkRow]:
    """A row for each of K landmarks."""
    rows = []
    for name, column in zip(names, errors.T, strict=True):
        known = column[np.isfinite(column)]
        values = (known.mean(), np.median(known), np.percentile(known, 90)) if len(known) else (None,) * 3
        rows.append(LandmarkRow(name, len(known), *(None if value is None else float(value) for value in values)))
    return rows


def nme_by_size(means: NDArray[np.float64], boxes: Floats, edges: Sequence[float] = SIZE_EDGES) -> list[SizeRow]:
    """The mean of `ear_means`, (N,), over the ears between every two edges, by (N, 4) boxes x y width height."""
    sides = np.sqrt(boxes[:, 2:].astype(np.float64).prod(axis=1))
    rows = []
    for low, high in pairwise(edges):
        chosen = means[(sides >= low) & (sides < high) & np.isfinite(means)]
        rows.append(SizeRow(low, high, len(chosen), float(chosen.mean()) if len(chosen) >= MIN_EARS else None))
    return rows


def judge_visibility(called: Floats, scores: Floats, truth: Floats) -> Visibility:
    """called, truth: (N, K, 3), found as in `EarDetector.predict` and annotated; scores: (N, K) of being visible."""
    labelled = truth[..., 2] != UNLABELLED
    visible = truth[..., 2][labelled] == VISIBLE
    share = float(visible.mean()) if len(visible) else 0.0
    if not 0.0 < share < 1.0:
        return Visibility(len(visible), int((~visible).sum()), None, None, None, None)
    right = (called[..., 2][labelled] > 0.5) == visible
    return Visibility(
        landmarks=len(visible),
        hidden=int((~visible).sum()),
        accuracy=float(right.mean()),
        majority=max(share, 1.0 - share),
        roc_auc=float(roc_auc_score(visible, scores[labelled])),
        average_precision=float(average_precision_score(~visible, 1.0 - scores[labelled])),
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
