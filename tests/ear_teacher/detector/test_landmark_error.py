"""Landmark errors, their distribution and the visibility against slow loops, closed forms and cases counted by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from ear_teacher.detector.metrics.landmark_error import (
    area_under_ced,
    ear_lengths,
    ear_means,
    judge_visibility,
    landmark_rows,
    nme_by_size,
    normalised_errors,
    summarise,
)


def ears(seed: int, count: int = 30, landmarks: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Annotated landmarks of every visibility (N, K, 3), boxes (N, 4) and what was found (N, K, 3)."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.uniform(0, 200, (count, 2)), rng.uniform(10, 90, (count, 2))], axis=1)
    truth = np.empty((count, landmarks, 3), np.float32)
    truth[..., :2] = boxes[:, None, :2] + rng.random((count, landmarks, 2)) * boxes[:, None, 2:]
    truth[..., 2] = rng.integers(0, 3, (count, landmarks))
    truth[truth[..., 2] == 0] = 0
    truth[:2] = 0  # two ears without any landmark
    found = truth.copy()
    found[..., :2] += rng.normal(0, 3, (count, landmarks, 2))
    return truth, boxes.astype(np.float32), found


def slow_length(points: np.ndarray, box: np.ndarray, normaliser: str) -> float:
    labelled = [(x, y) for x, y, visibility in points.tolist() if visibility > 0]
    if normaliser == "ear-box":
        return math.hypot(*box[2:].tolist()) if labelled else math.nan
    xs, ys = [x for x, _ in labelled], [y for _, y in labelled]
    return math.hypot(max(xs) - min(xs), max(ys) - min(ys)) if len(labelled) > 1 else math.nan


def slow_errors(truth, boxes, found, normaliser, kinds=(1, 2)) -> list[list[float]]:
    """Of each ear that can be measured the errors of its landmarks of these kinds."""
    every = []
    for points, box, places in zip(truth, boxes, found, strict=True):
        length = slow_length(points, box, normaliser)
        pairs = zip(points.tolist(), places.tolist(), strict=True)
        every.append([math.dist(a[:2], b[:2]) / length for a, b in pairs if a[2] in kinds and length == length])
    return every


def slow_nme(errors: list[list[float]]) -> float:
    means = [sum(ear) / len(ear) for ear in errors if ear]
    return sum(means) / len(means)


@pytest.mark.parametrize("normaliser", ["landmark-box", "ear-box"])
def test_nme_of_all_visible_and_hidden_landmarks_is_that_of_slow_loops(normaliser):
    truth, boxes, found = ears(0)
    errors = normalised_errors(found, truth, ear_lengths(truth, boxes, normaliser))
    summary = summarise(errors, truth, 0.08)
    slow = slow_errors(truth, boxes, found, normaliser)
    assert summary.ears == sum(bool(ear) for ear in slow) == 28
    assert summary.unmatched == 0.0
    assert summary.nme == pytest.approx(slow_nme(slow))
    assert summary.nme_hidden == pytest.approx(slow_nme(slow_errors(truth, boxes, found, normaliser, (1,))))
    assert summary.nme_visible == pytest.approx(slow_nme(slow_errors(truth, boxes, found, normaliser, (2,))))
    means = sorted(sum(ear) / len(ear) for ear in slow if ear)
    assert summary.median == pytest.approx((means[13] + means[14]) / 2)
    assert summary.failure_rate == pytest.approx(sum(mean > 0.08 for mean in means) / 28)


def test_the_landmark_box_holds_hidden_landmarks_and_not_unlabelled_ones():
    points = np.array([[[10, 10, 2], [13, 14, 1], [0, 0, 0]]], np.float32)
    box = np.array([[0, 0, 30, 40]], np.float32)
    assert ear_lengths(points, box, "landmark-box").tolist() == [5.0]
    assert ear_lengths(points, box, "ear-box").tolist() == [50.0]


@pytest.mark.parametrize(("visibilities", "measurable"), [((2, 0, 0), "ear-box"), ((0, 0, 0), None)])
def test_an_ear_without_a_length_is_left_out(visibilities, measurable):
    points = np.array([[[10, 10, v] for v in visibilities]], np.float32)
    box = np.array([[0, 0, 30, 40]], np.float32)
    for normaliser in ("landmark-box", "ear-box"):
        lengths = ear_lengths(points, box, normaliser)
        summary = summarise(normalised_errors(points + np.float32([3, 4, 0]), points, lengths), points, 0.2)
        metrics = (summary.nme, summary.auc, summary.failure_rate, summary.unmatched, summary.median)
        if normaliser == measurable:
            assert lengths.tolist() == [50.0]
            assert metrics == (0.1, 0.5, 0.0, 0.0, 0.1)
        else:
            assert np.isnan(lengths).all()
            assert (summary.ears, *metrics) == (0, None, None, None, None, None)


def test_photographs_without_ears_or_landmarks_have_no_metrics():
    for shape in ((0, 5, 3), (4, 0, 3)):
        truth, boxes = np.zeros(shape, np.float32), np.ones((shape[0], 4), np.float32)
        errors = normalised_errors(truth, truth, ear_lengths(truth, boxes, "landmark-box"))
        assert errors.shape == shape[:2]
        assert summarise(errors, truth, 0.08).nme is None


def test_an_ear_that_was_not_found_fails_and_is_counted_but_spoils_no_mean():
    truth, boxes, found = ears(1)
    lengths = ear_lengths(truth, boxes, "ear-box")
    everything = summarise(normalised_errors(found, truth, lengths), truth, 0.08)
    lost = found.copy()
    lost[:9] = np.inf  # two of them have no landmarks, and do not count
    errors = normalised_errors(lost, truth, lengths)
    summary, rest = summarise(errors, truth, 0.08), summarise(errors[9:], truth[9:], 0.08)
    assert (summary.ears, summary.unmatched) == (28, pytest.approx(7 / 28))
    assert (summary.nme, summary.median) == (rest.nme, rest.median)
    assert (summary.nme_visible, summary.nme_hidden) == (rest.nme_visible, rest.nme_hidden)
    assert summary.auc == pytest.approx(rest.auc * 21 / 28)
    assert summary.failure_rate == pytest.approx((7 + 21 * rest.failure_rate) / 28)
    assert summary.failure_rate > everything.failure_rate
    nothing = summarise(np.full((3, 7), np.inf), truth[2:5], 0.08)
    assert (nothing.nme, nothing.auc, nothing.failure_rate, nothing.unmatched) == (None, 0.0, 1.0, 1.0)


def test_a_landmark_at_nan_is_as_far_as_can_be_rather_than_unlabelled():
    truth, boxes, found = ears(2)
    found[5] = np.nan
    errors = normalised_errors(found, truth, ear_lengths(truth, boxes, "ear-box"))
    np.testing.assert_array_equal(np.isnan(errors), truth[..., 2] == 0)
    assert ear_means(errors)[5] == np.inf


@pytest.mark.parametrize("limit", [0.05, 0.08])
def test_the_area_is_the_integral_of_the_step_function(limit):
    errors = np.append(np.random.default_rng(3).gamma(4, 0.015, 40), np.inf)
    # between neighbouring errors the distribution is constant: each rectangle by itself
    edges = [0.0, *sorted(error for error in errors if error < limit), limit]
    slow = sum((right - left) * np.mean([error <= left for error in errors]) for left, right in pairwise(edges))
    assert area_under_ced(errors, limit) == pytest.approx(slow / limit)
    grid = (np.arange(200_000) + 0.5) / 200_000 * limit
    shares = np.searchsorted(np.sort(errors), grid, side="right") / len(errors)
    assert area_under_ced(errors, limit) == pytest.approx(shares.mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("errors", "area"),
    [([0.0, 0.0], 1.0), ([0.04], 0.5), ([0.08], 0.0), ([0.2, np.inf], 0.0), ([0.0, 0.02, 0.06, 1.0], 0.5)],
)
def test_the_area_in_closed_form(errors, area):
    assert area_under_ced(np.array(errors), 0.08) == pytest.approx(area)


def test_an_ear_at_the_limit_has_not_failed():
    truth = np.full((4, 1, 3), 2, np.float32)
    assert summarise(np.array([[0.08], [0.081], [0.0], [np.inf]]), truth, 0.08).failure_rate == 0.5


def test_the_table_of_landmarks_counts_labelled_ones_of_ears_that_were_found():
    errors = np.array([[0.1, np.nan, np.nan], [0.3, 0.2, np.nan], [0.2, np.inf, np.nan], [np.inf, np.nan, np.nan]])
    tragus, lobule, helix = landmark_rows(errors, ["tragus", "lobule", "helix"])
    assert (tragus.name, tragus.count) == ("tragus", 3)
    assert (tragus.mean, tragus.median) == (pytest.approx(0.2), pytest.approx(0.2))
    assert tragus.percentile_90 == pytest.approx(0.28)  # eight tenths of the way from .2 to .3
    assert (lobule.count, lobule.mean, lobule.percentile_90) == (1, 0.2, 0.2)
    assert (helix.count, helix.mean, helix.median, helix.percentile_90) == (0, None, None, None)


def test_nme_by_size_is_that_of_the_ears_found_of_each_size():
    sides = [31.9, *[32.0] * 5, *[63.9] * 6, 200.0]
    boxes = np.array([[0, 0, side * 2, side / 2] for side in sides], np.float32)
    means = np.array([9.0, *[0.1] * 4, np.nan, *[0.3] * 4, np.inf, 0.3, 9.0])
    rows = nme_by_size(means, boxes)
    assert [row.ears for row in rows] == [0, 1, 9, 0, 1]
    assert [row.value for row in rows] == [None, None, pytest.approx((4 * 0.1 + 5 * 0.3) / 9), None, None]
    assert nme_by_size(means[1:5], boxes[1:5])[2].value is None
    assert nme_by_size(means[6:12], boxes[6:12])[2].value == pytest.approx(0.3)


def test_visibility_is_judged_on_labelled_landmarks_only():
    rng = np.random.default_rng(4)
    truth, _, found = ears(4)
    scores = (0.3 * truth[..., 2] - 0.1 + rng.normal(0, 0.15, truth.shape[:2])).clip(0, 1).astype(np.float32)
    found[..., 2] = scores > 0.5
    kinds = [
        (visibility, score)
        for visibility, score in zip(truth[..., 2].ravel().tolist(), scores.ravel().tolist(), strict=True)
        if visibility > 0
    ]
    hidden, visible = ([score for kind, score in kinds if kind == wanted] for wanted in (1, 2))
    wins = [(v > h) + 0.5 * (v == h) for v in visible for h in hidden]
    judged = judge_visibility(found, scores, truth)
    assert (judged.landmarks, judged.hidden) == (len(kinds), len(hidden))
    right = sum(v > 0.5 for v in visible) + sum(h <= 0.5 for h in hidden)
    assert judged.accuracy == pytest.approx(right / len(kinds))
    assert judged.majority == pytest.approx(max(len(hidden), len(visible)) / len(kinds))
    assert judged.roc_auc == pytest.approx(sum(wins) / len(wins))
    assert 0.7 < judged.accuracy < 1.0


def test_average_precision_of_hidden_landmarks_counted_by_hand():
    truth = np.array([[[0, 0, 1], [0, 0, 2], [0, 0, 1], [0, 0, 2], [0, 0, 2], [0, 0, 0]]], np.float32)
    scores = np.array([[0.1, 0.2, 0.3, 0.4, 0.9, 0.0]], np.float32)
    judged = judge_visibility(np.zeros_like(truth), scores, truth)
    assert judged.average_precision == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert judged.roc_auc == pytest.approx(5 / 6)
    assert judged.accuracy == pytest.approx(2 / 5)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_visibility_is_not_measured_on_landmarks_of_one_kind(kind):
    truth = np.full((2, 3, 3), kind, np.float32)
    judged = judge_visibility(truth, np.full((2, 3), 0.5, np.float32), truth)
    assert (judged.accuracy, judged.roc_auc, judged.average_precision) == (None, None, None)
    assert judged.hidden == (6 if kind == 1 else 0)
