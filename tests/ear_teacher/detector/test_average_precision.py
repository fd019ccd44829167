"""Average precision, recall and matching of boxes against pycocotools itself, slow loops and cases counted by hand."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ear_teacher.detector.metrics.average_precision import (
    SIZE_EDGES,
    BoxResult,
    average_precision,
    by_size,
    coco_metrics,
    match,
    operate,
)


def result(truth: list[list[float]], boxes: list[list[float]], scores: list[float]) -> BoxResult:
    return BoxResult(
        torch.tensor(truth, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
    )


def population(seed: int, ears: int, found: float = 0.8, noise: float = 0.12) -> list[BoxResult]:
    """Photographs of 0 to 3 ears, `ears` in all, from 8 to 200 px; of each photograph there are false alarms, too."""
    rng = np.random.default_rng(seed)
    results = []
    while ears > 0:
        count = min(int(rng.integers(0, 4)), ears)
        ears -= count
        sides = np.exp(rng.uniform(np.log(8), np.log(200), (count, 1))) * rng.uniform(0.8, 1.25, (count, 2))
        low = rng.uniform(0, 400, (count, 2))
        truth = np.concatenate([low, low + sides], axis=1)
        kept = truth[rng.random(count) < found]
        kept = kept + rng.normal(0, noise, kept.shape) * np.tile(kept[:, 2:] - kept[:, :2], 2)
        alarms = rng.uniform(0, 300, (int(rng.integers(0, 3)), 4))
        alarms[:, 2:] = alarms[:, :2] + rng.uniform(6, 150, (len(alarms), 2))
        boxes = np.concatenate([kept, kept + 1.5, alarms])  # each found ear is found twice
        scores = np.sort(rng.random(len(boxes)).round(2))[::-1]  # rounded: some are equal
        order = rng.permutation(len(boxes))
        results.append(result(truth.tolist(), boxes[order].tolist(), scores.tolist()))
    return results


def coco_eval(results: list[BoxResult], folder: Path, sizes: tuple[float, float] = (0.0, 1e5)) -> COCOeval:
    """What pycocotools makes of two JSON files, at IoU .3, .5, .55, ... .95."""

    def entries(boxes: torch.Tensor) -> list[list[float]]:
        return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).double().tolist()

    images = [{"id": number} for number in range(1, len(results) + 1)]
    truth = [(number, box) for number, r in enumerate(results, 1) for box in entries(r.truth)]
    ears = [
        {"id": ear, "image_id": number, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for ear, (number, box) in enumerate(truth, 1)
    ]
    found = [
        {"image_id": number, "category_id": 1, "bbox": box, "score": score}
        for number, r in enumerate(results, 1)
        for box, score in zip(entries(r.boxes), r.scores.double().tolist(), strict=True)
    ]
    content = {"info": {}, "images": images, "annotations": ears, "categories": [{"id": 1, "name": "ear"}]}
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "found.json").write_text(json.dumps(found))
    annotated = COCO(str(folder / "truth.json"))
    evaluation = COCOeval(annotated, annotated.loadRes(str(folder / "found.json")), "bbox")
    evaluation.params.iouThrs = np.array([0.3, *np.linspace(0.5, 0.95, 10)])
    evaluation.params.areaRng = [[sizes[0] ** 2, sizes[1] ** 2]]
    evaluation.params.areaRngLbl = ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def slow_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def slow_found(results: list[BoxResult], threshold: float, least_score: float = 0.0) -> int:
    """Ears that get a detection of their own, one detection after the other, each the ear it overlaps most."""
    found = 0
    for r in results:
        free = r.truth.tolist()
        for box, score in zip(r.boxes.tolist(), r.scores.tolist(), strict=True):
            near = [ear for ear in free if slow_iou(box, ear) >= threshold]
            if near and score >= least_score:
                free.remove(max(near, key=lambda ear: slow_iou(box, ear)))
                found += 1
    return found


# 10 and 100 ears: recalls of exactly .1, .2, ... at which the precision is read
@pytest.mark.parametrize(("seed", "ears", "found"), [(0, 10, 1.0), (1, 100, 1.0), (2, 37, 0.8), (3, 60, 0.3)])
def test_coco_metrics_equal_pycocotools(tmp_path, seed, ears, found):
    results = population(seed, ears, found)
    metrics, reference = coco_metrics(results), coco_eval(results, tmp_path).eval
    precision, recall = reference["precision"][:, :, 0, 0, -1], reference["recall"][:, 0, 0, -1]
    assert metrics.ap == pytest.approx(precision[1:].mean(), abs=1e-6)
    assert metrics.ap50 == pytest.approx(precision[1].mean(), abs=1e-6)
    assert metrics.ap75 == pytest.approx(precision[6].mean(), abs=1e-6)
    assert metrics.average_recall == pytest.approx(recall[1:].mean(), abs=1e-6)
    for iou, row in ((0.3, 0), (0.5, 1), (0.75, 6)):
        np.testing.assert_allclose(metrics.precisions[iou], precision[row], atol=1e-6)
    assert 0.05 < metrics.ap < metrics.ap50 < 1.0


@pytest.mark.parametrize("seed", [4, 5])
def test_recall_equals_a_slow_loop(seed):
    results = population(seed, 50, noise=0.25)
    metrics = coco_metrics(results)
    assert metrics.recall_iou50 == pytest.approx(slow_found(results, 0.5) / 50)
    assert metrics.recall_iou30 == pytest.approx(slow_found(results, 0.3) / 50)
    assert metrics.recall_iou50 < metrics.recall_iou30


def test_average_precision_counted_by_hand():
    ears = [[0.0, 0, 10, 10], [20.0, 0, 30, 10]]
    results = [result(ears, [ears[0], [50, 50, 60, 60], ears[1]], [0.9, 0.8, 0.7])]
    by_hand = (51 * 1.0 + 50 * 2 / 3) / 101  # recalls 0 to .50, and .51 to 1
    assert coco_metrics(results).ap50 == pytest.approx(by_hand, abs=1e-6)
    assert average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2) == pytest.approx(by_hand)


def test_average_precision_is_zero_beyond_the_last_ear_found_and_one_when_all_are_found_first():
    assert average_precision(np.array([0.9]), np.array([True]), 2) == pytest.approx(51 / 101)
    assert average_precision(np.array([0.1, 0.9]), np.array([False, True]), 1) == 1.0
    assert average_precision(np.array([0.9, 0.8]), np.array([False, False]), 3) == 0.0
    assert average_precision(np.array([]), np.array([], bool), 3) == 0.0


def test_without_detections_everything_is_missed():
    results = [result([[0, 0, 40, 40]] * 5, [], []), result([], [], [])]
    metrics = coco_metrics(results)
    assert (metrics.ap, metrics.recall_iou30, metrics.average_recall) == (0.0, 0.0, 0.0)
    assert by_size(results)[2].value == 0.0
    found = operate(results, 0.5)
    assert (found.precision, found.recall, found.false_positives_per_photograph) == (None, 0.0, 0.0)


@pytest.mark.parametrize("boxes", [[], [[0.0, 0, 9, 9]]])
def test_without_ears_there_are_false_alarms_only(boxes):
    results = [result([], boxes, [0.9] * len(boxes))]
    assert coco_metrics(results) is None
    assert [row.value for row in by_size(results)] == [None] * 5
    found = operate(results, 0.5)
    assert (found.recall, found.false_positives_per_photograph) == (None, float(len(boxes)))


def test_false_alarms_on_photographs_without_ears_count():
    ear = [[0.0, 0, 10, 10]]
    clean, spoilt = [result(ear, ear, [0.5])], [result(ear, ear, [0.5]), result([], ear, [0.9])]
    assert coco_metrics(clean).ap == pytest.approx(1.0)
    assert coco_metrics(spoilt).ap == pytest.approx(0.5)
    assert operate(spoilt, 0.5).precision == 0.5


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_the_operating_point_equals_a_slow_loop(threshold):
    results = population(6, 40)
    found = operate(results, threshold)
    hits = slow_found(results, 0.5, threshold)
    detections = sum(int((r.scores >= threshold).sum()) for r in results)
    assert found.detections == detections
    assert found.recall == pytest.approx(hits / 40)
    assert found.precision == (pytest.approx(hits / detections) if detections else None)
    assert found.false_positives_per_photograph == pytest.approx((detections - hits) / len(results))


def test_a_score_of_exactly_the_threshold_is_kept():
    ear = [[0.0, 0, 10, 10]]
    assert operate([result(ear, ear, [0.5])], 0.5).recall == 1.0


def test_each_detection_takes_the_free_ear_that_it_overlaps_most():
    overlaps = np.array([[0.6, 0.8], [0.55, 0.9], [0.7, 0.7], [0.5, 0.0]])
    assert match(overlaps).tolist() == [1, 0, -1, -1]
    assert match(overlaps, 0.75).tolist() == [1, -1, -1, -1]
    assert match(overlaps[3:]).tolist() == [0]  # exactly the threshold is enough
    assert match(np.empty((2, 0))).tolist() == [-1, -1]
    assert match(np.empty((0, 2))).tolist() == []


def test_of_equal_overlaps_the_first_ear_is_taken_and_of_equal_scores_the_first_detection_chooses():
    assert match(np.array([[0.7, 0.7], [0.7, 0.7]])).tolist() == [0, 1]
    ear = [[0.0, 0, 10, 10]]
    twice = result(ear, ear * 2, [0.6, 0.6])
    assert twice.ears.tolist() == [0, -1]
    assert operate([twice], 0.5).precision == 0.5


def test_an_ignored_ear_is_taken_only_where_no_other_can_be():
    ignored = np.array([True, False])
    assert match(np.array([[0.9, 0.5], [0.9, 0.9]]), ignored=ignored).tolist() == [1, 0]
    assert match(np.array([[0.9, 0.4]]), ignored=ignored).tolist() == [0]


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_sizes_are_the_area_ranges_of_pycocotools(tmp_path, seed):
    results = population(seed, 120)
    rows = by_size(results)
    assert sum(row.ears for row in rows) == 120
    for row in rows:
        reference = coco_eval(results, tmp_path, (row.low, min(row.high, 1e5))).eval["precision"]
        assert row.value == pytest.approx(reference[1, :, 0, 0, -1].mean(), abs=1e-6)
    whole = by_size(results, (0.0, np.inf))[0]
    assert whole.value == pytest.approx(coco_metrics(results).ap50, abs=1e-6)


def test_an_ear_on_an_edge_has_one_size_and_few_ears_are_insufficient_data():
    results = [result([[0, 0, 32, 32]] * ears, [], []) for ears in (4, 1)]
    assert [row.ears for row in by_size(results)] == [0, 0, 5, 0, 0]
    assert [row.value for row in by_size(results)] == [None, None, 0.0, None, None]
    assert [row.value for row in by_size(results[:1])] == [None] * 5
    assert [(row.low, row.high) for row in by_size(results)] == list(pairwise(SIZE_EDGES))


def test_detections_of_another_size_are_no_false_alarms_unless_they_find_a_smaller_ear():
    small, large = [[0.0, 0, 20, 20]], [[100.0, 100, 200, 200]]
    alarm = [result(small, [*large, *small], [0.9, 0.8])] * 5
    assert by_size(alarm)[1].value == pytest.approx(1.0)
    assert by_size([result(small, [[50, 50, 70, 70], *small], [0.9, 0.8])] * 5)[1].value == pytest.approx(0.5)
    grown = [[0.0, 0, 35, 19]]  # a size larger than the ear that it finds
    assert by_size([result(small, grown, [0.9])] * 5)[1].value == pytest.approx(1.0)
    assert by_size([result(small, grown, [0.9])] * 5)[2].ears == 0
