"""Error-versus-reject curves beside a loop that rejects one probe after the other."""

from __future__ import annotations

import numpy as np
import pytest

from earface.metrics.error_reject import REJECTED, error_reject
from earface.metrics.resampling import Resampling

COUNT = 400


def trials(seed: int = 0) -> tuple[np.ndarray, np.ndarray, Resampling]:
    """Errors that a measure predicts somewhat; fifty people with eight probes each."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=COUNT)
    errors = rng.random(COUNT) < 1 / (1 + np.exp(2 * quality + 1))
    return quality, errors, Resampling([str(row // 8) for row in range(COUNT)], 200, seed)


def slow_curve(quality: np.ndarray, errors: np.ndarray) -> list[float]:
    order = np.argsort(quality)
    return [float(errors[order[round(share * len(order)) :]].mean()) for share in REJECTED]


def test_a_curve_is_that_of_rejecting_one_by_one() -> None:
    quality, errors, resampling = trials()
    found = error_reject(quality, errors, np.arange(COUNT), resampling)
    np.testing.assert_allclose(found.errors, slow_curve(quality, errors), atol=1e-12)  # 400 x .02 are whole
    wanted = np.trapezoid(np.array(slow_curve(quality, errors)) / errors.mean(), REJECTED) / 0.5
    assert found.area.value == pytest.approx(wanted)
    assert found.ideal < wanted < 1
    span = found.area.interval()
    assert span is not None
    assert span[0] < wanted < span[1] < 1


def test_a_replicate_is_the_curve_of_its_probes() -> None:
    quality, errors, resampling = trials(1)
    found = error_reject(quality, errors, np.arange(COUNT), resampling)
    assert found.area.replicates is not None
    for row in (0, 7):
        counts = resampling.weights[row, resampling.of].astype(int)
        repeated = np.repeat(quality, counts), np.repeat(errors, counts)
        again = error_reject(*repeated, np.zeros(counts.sum(), int), resampling)
        assert found.area.replicates[row] == pytest.approx(again.area.value)


def test_a_measure_that_says_nothing_has_an_area_of_1_and_the_errors_themselves_the_least() -> None:
    _, errors, resampling = trials()
    of = np.arange(COUNT)
    constant = error_reject(np.zeros(COUNT), errors, of, resampling)
    np.testing.assert_allclose(constant.errors, errors.mean())
    assert constant.area.value == pytest.approx(1)
    perfect = error_reject(1 - errors.astype(float), errors, of, resampling)
    assert perfect.area.value == pytest.approx(perfect.ideal)
    assert perfect.errors == pytest.approx(np.maximum(0, errors.mean() - REJECTED) / (1 - REJECTED))
    assert error_reject(errors.astype(float), errors, of, resampling).area.value > 1  # the wrong way round


def test_few_errors_are_insufficient_data() -> None:
    quality, errors, resampling = trials()
    few = errors & (np.cumsum(errors) <= 9)
    found = error_reject(quality, few, np.arange(COUNT), resampling)
    assert found.area.value is None
    assert found.area.reason == "9 errors, fewer than 10"
