"""Likelihood ratios and their cost: beside closed forms, numerical integration and scikit-learn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from earface.metrics.calibration import LogisticCalibration, cllr, cllr_min, costs

DISTANCE = 2.0  # between the means of two Gaussians of deviation 1


def gaussian_scores(count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.normal(DISTANCE, 1, count), rng.normal(0, 1, count)


def gaussian_ratio(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The log of the densities' quotient."""
    return DISTANCE * (scores - DISTANCE / 2)


def overlapping(seed: int, mated: int = 40, nonmated: int = 300) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rounded: many are equal."""
    rng = np.random.default_rng(seed)
    return rng.normal(0.5, 0.2, mated).round(2), rng.normal(0.1, 0.15, nonmated).round(2)


def test_the_cost_of_true_ratios_of_two_gaussians_is_the_integral() -> None:
    def of_mated(score: float) -> float:
        return norm.pdf(score, DISTANCE) * np.log2(1 + np.exp(-DISTANCE * (score - DISTANCE / 2)))

    wanted = quad(of_mated, -12, 14)[0]  # of both kinds the same, by symmetry
    mated, nonmated = gaussian_scores(400_000)
    assert cllr(gaussian_ratio(mated), gaussian_ratio(nonmated)) == pytest.approx(wanted, abs=0.004)
    fitted = LogisticCalibration.fit(mated, nonmated)
    assert (fitted.slope, fitted.offset) == pytest.approx((DISTANCE, -(DISTANCE**2) / 2), abs=0.03)
    assert cllr(fitted(mated), fitted(nonmated)) == pytest.approx(wanted, abs=0.004)
    assert cllr_min(mated, nonmated) == pytest.approx(wanted, abs=0.004)


def test_ratios_that_say_nothing_cost_one_bit_and_wrong_ones_more() -> None:
    nothing = np.zeros(7)
    assert cllr(nothing, nothing) == pytest.approx(1)
    assert cllr(nothing + 50, nothing - 50) == pytest.approx(0, abs=1e-12)
    assert cllr(nothing - 1000, nothing + 1000) == pytest.approx(1000 / np.log(2))
    assert costs(np.log([3.0]), True) == pytest.approx([np.log2(1 + 1 / 3)])
    assert costs(np.log([3.0]), False) == pytest.approx([2])


def slow_isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The rising sequence of least squares: the greatest over starts of the least over ends of means."""

    def mean(start: int, end: int) -> float:
        own = slice(start, end + 1)
        return float(np.average(values[own], weights=weights[own]))

    places = range(len(values))
    return [max(min(mean(a, b) for b in places if b >= at) for a in places if a <= at) for at in places]


@pytest.mark.parametrize("seed", range(3))
def test_the_least_cost_is_that_of_pooled_adjacent_violators(seed: int) -> None:
    mated, nonmated = overlapping(seed, 25, 40)
    levels = sorted({*mated, *nonmated})
    counts = np.array([[(own == level).sum() / len(own) for level in levels] for own in (mated, nonmated)])
    posterior = np.array(slow_isotonic(list(counts[0] / counts.sum(axis=0)), list(counts.sum(axis=0))))
    with np.errstate(divide="ignore"):
        ratios = dict(zip(levels, np.log(posterior) - np.log(1 - posterior), strict=True))
    wanted = cllr(*(np.array([ratios[score] for score in own]) for own in (mated, nonmated)))
    assert cllr_min(mated, nonmated) == pytest.approx(wanted, abs=1e-9)
    assert cllr_min(2 * mated**3, 2 * nonmated**3) == pytest.approx(wanted, abs=1e-9)  # any rising function
    fitted = LogisticCalibration.fit(mated, nonmated)
    assert cllr_min(mated, nonmated) < cllr(fitted(mated), fitted(nonmated))


def test_separate_scores_have_no_least_cost_and_no_calibration() -> None:
    mated, nonmated = np.linspace(0.6, 0.9, 20), np.linspace(-0.1, 0.5, 20)
    assert cllr_min(mated, nonmated) == 0
    assert "no non-mated score is above a mated one" in LogisticCalibration.lacking(mated, nonmated)
    with pytest.raises(ValueError, match="no non-mated score"):
        LogisticCalibration.fit(mated, nonmated)
    assert "not higher" in LogisticCalibration.lacking(nonmated, mated)
    assert "fewer than 10 of a kind" in LogisticCalibration.lacking(mated[:9], nonmated)


@pytest.mark.parametrize(("seed", "scale"), itertools.product(range(3), (1.0, 1e-3)))
def test_the_calibration_is_a_logistic_regression_of_both_kinds_alike(seed: int, scale: float) -> None:
    mated, nonmated = (own * scale for own in overlapping(seed))
    fitted = LogisticCalibration.fit(mated.astype(np.float32), nonmated.astype(np.float32))
    weights = np.repeat([1 / len(mated), 1 / len(nonmated)], [len(mated), len(nonmated)])
    inputs = np.concatenate([mated, nonmated])[:, None] / scale
    other = LogisticRegression(C=1e9, tol=1e-12, max_iter=10_000)
    other.fit(inputs, np.repeat([1, 0], [len(mated), len(nonmated)]), weights)
    assert fitted.slope * scale == pytest.approx(other.coef_[0, 0], rel=1e-4)
    assert fitted.offset == pytest.approx(other.intercept_[0], rel=1e-4)


def test_ratios_stay_within_what_so_many_comparisons_can_show() -> None:
    fitted = LogisticCalibration.fit(*overlapping(0))
    assert np.exp(fitted(np.array([-1.0, 1.0]))) == pytest.approx([1 / 41, 301])
    middle = -fitted.offset / fitted.slope
    assert fitted(np.array(middle)) == pytest.approx(0, abs=1e-9)
