"""One-to-one metrics against slow sweeps of the threshold, with ties, and where the sample is too small."""

from itertools import pairwise

import numpy as np
import pytest

from earface.metrics.verification import FEWEST_FALSE_ACCEPTS, equal_error_rate, true_accept_rate


def slow_eer(genuine, impostor):
    """Every threshold in turn; the two lines FMR and FNMR are joined between neighbouring thresholds."""
    thresholds = [np.inf, *sorted({*genuine.tolist(), *impostor.tolist()}, reverse=True)]
    rates = [(np.mean(impostor >= t), np.mean(genuine < t)) for t in thresholds]
    for (fmr, fnmr), (next_fmr, next_fnmr) in pairwise(rates):
        if next_fmr >= next_fnmr:
            step = (fnmr - fmr) / ((next_fmr - fmr) + (fnmr - next_fnmr))
            return fmr + step * (next_fmr - fmr)
    raise AssertionError("the rates never meet")


@pytest.mark.parametrize("shift", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("decimals", [1, 8])  # 1: many ties, also between genuine and impostor
@pytest.mark.parametrize("seed", range(3))
def test_eer_is_that_of_a_threshold_sweep(shift, decimals, seed):
    rng = np.random.default_rng(seed)
    genuine = (rng.normal(size=37) + shift).round(decimals)
    impostor = rng.normal(size=181).round(decimals)
    assert equal_error_rate(genuine, impostor) == pytest.approx(slow_eer(genuine, impostor), abs=1e-12)


def test_eer_of_separated_sets_is_0_and_of_swapped_ones_1():
    low, high = np.linspace(-1, 0, 20), np.linspace(0.1, 1, 7)
    assert equal_error_rate(high, low) == 0.0
    assert equal_error_rate(low, high) == 1.0


@pytest.mark.parametrize("scores", [np.linspace(-1, 1, 50), np.zeros(9), np.array([0.5])])
def test_eer_of_equal_distributions_is_a_half(scores):
    assert equal_error_rate(scores, scores) == pytest.approx(0.5, abs=1e-12)
    assert equal_error_rate(scores, np.tile(scores, 3)) == pytest.approx(0.5, abs=1e-12)


def test_eer_of_two_normal_distributions():
    rng = np.random.default_rng(0)
    genuine, impostor = rng.normal(2.0, 1.0, 200_000), rng.normal(0.0, 1.0, 200_000)
    assert equal_error_rate(genuine, impostor) == pytest.approx(0.158655, abs=2e-3)  # Phi(-1), at threshold 1


def slow_tar(genuine, impostor, far):
    """Every threshold that occurs, from the strictest: the last at which the false accepts are few enough."""
    best = 0.0
    for threshold in [np.inf, *sorted({*genuine.tolist(), *impostor.tolist()}, reverse=True)]:
        if np.mean(impostor >= threshold) > far:
            break
        best = np.mean(genuine >= threshold)
    return best


@pytest.mark.parametrize("far", [0.001, 0.01, 0.1, 0.37])
@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_true_accept_rate_is_that_of_a_threshold_sweep(far, decimals, seed):
    rng = np.random.default_rng(seed)
    genuine = (rng.normal(size=90) + 1.5).round(decimals)
    impostor = rng.normal(size=10_000).round(decimals)
    assert true_accept_rate(genuine, impostor, far) == pytest.approx(slow_tar(genuine, impostor, far), abs=1e-12)


def test_a_rate_that_the_sample_cannot_support_is_not_reported():
    scores = np.linspace(0, 1, 10 * FEWEST_FALSE_ACCEPTS)
    assert true_accept_rate(scores, scores, 0.1) == pytest.approx(0.1)
    assert true_accept_rate(scores, scores[1:], 0.1) is None
    assert true_accept_rate(scores[:0], scores, 0.1) is None


def test_equal_scores_are_accepted_by_none():
    assert true_accept_rate(np.ones(5), np.ones(1000), 0.1) == 0.0
