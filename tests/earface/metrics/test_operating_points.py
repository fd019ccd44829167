"""Thresholds by the size of the gallery: beside thresholds of all scores, and galleries that are drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from earface.core.errors import InputError
from earface.metrics.operating_points import OperatingPoints, fpir_of_part
from earface.metrics.resampling import fpir_in_gallery
from earface.metrics.verification import threshold_at


@pytest.mark.parametrize("count", [10, 60, 523, 5000])
def test_a_threshold_is_that_of_all_scores_or_a_little_above(count: int) -> None:
    best = np.random.default_rng(count).normal(0.25, 0.05, count).astype(np.float32).round(3)
    points = OperatingPoints.fit(best, 50)
    for rate, size in itertools.product((0.3, 0.1, 0.01), (3, 20, 50, 120)):
        exact = threshold_at(best, fpir_in_gallery(rate, size, 50))
        if exact is None:
            with pytest.raises(InputError, match=f"insufficient data for FPIR {rate:g} among {size} people"):
                points.threshold(rate, size)
            continue
        found = points.threshold(rate, size)
        assert found >= exact
        allowed = fpir_in_gallery(rate, size, 50) * count
        if allowed < 100:
            assert found == exact
        assert (best >= found).sum() <= allowed  # never more than was asked for
        assert (best >= np.float32(found) - 0.002).sum() >= min(count, allowed / 1.04) - 1


def test_a_larger_gallery_needs_a_higher_threshold() -> None:
    best = np.random.default_rng(1).normal(0.25, 0.05, 2000).astype(np.float32)
    points = OperatingPoints.fit(best, 100)
    thresholds = [points.threshold(0.1, size) for size in (5, 20, 100, 500)]
    assert thresholds == sorted(set(thresholds))


def test_the_fpir_of_parts_of_a_gallery_is_that_of_every_part() -> None:
    rng = np.random.default_rng(0)
    scores, searches, people = rng.normal(size=(6, 7)), 6, 7
    of = np.repeat(np.arange(searches), people)
    for size, threshold in itertools.product((1, 3, 7), (0.2, 1.0, 3.0)):
        parts = list(itertools.combinations(range(people), size))
        wanted = [np.mean([own[list(part)].max() >= threshold for part in parts]) for own in scores]
        found = fpir_of_part(scores.ravel(), of, searches, threshold, size)
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert np.isnan(fpir_of_part(scores.ravel(), of, searches, 0.0, 8)).all()  # nobody has so many


def test_the_formula_predicts_the_fpir_of_parts_where_comparisons_are_independent() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(4000, 100))
    of, threshold = np.repeat(np.arange(4000), 100), float(np.quantile(scores.max(axis=1), 0.9))
    for size in (1, 10, 50):
        measured = float(np.mean(fpir_of_part(scores.ravel(), of, 4000, threshold, size)))
        assert measured == pytest.approx(fpir_in_gallery(0.1, 100, size), rel=0.08)


@pytest.mark.parametrize("count", [10, 11, 60, 523])
@pytest.mark.parametrize("rate", [0.3, 0.1, 0.01])
def test_the_largest_gallery_is_the_last_that_has_a_threshold(count: int, rate: float) -> None:
    points = OperatingPoints.fit(np.random.default_rng(0).normal(size=count), 50)

    def known(size: int) -> bool:
        try:
            points.threshold(rate, size)
        except InputError:
            return False
        return True

    assert points.largest_gallery(rate) == max((size for size in range(1, 1200) if known(size)), default=0)
