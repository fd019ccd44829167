"""One-to-one comparison: how often two faces (or ears) of one person match, and of two persons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

FEWEST_FALSE_ACCEPTS = 10  # a rate decided by fewer impostor scores than this is not reported


def equal_error_rate(genuine: NDArray[np.floating], impostor: NDArray[np.floating]) -> float:
    """The rate at which false matches and false non-matches are equal, in [0, 1], of two non-empty sets of scores.

    A pair matches when its score is at least the threshold. The rates at the thresholds that occur are joined by
    straight lines, as in scikit-learn's ROC curve, and the EER is read where FMR = FNMR on them: separated sets give 0,
    and equal distributions, or one score for all, .5.
    """
    labels = np.concatenate([np.ones(len(genuine), bool), np.zeros(len(impostor), bool)])
    false_match, true_match, _ = roc_curve(labels, np.concatenate([genuine, impostor]))
    gap = false_match - (1.0 - true_match)  # rises strictly, from -1 to 1
    right = int(np.argmax(gap >= 0))
    weight = gap[right] / (gap[right] - gap[right - 1])
    return float(false_match[right] - weight * (false_match[right] - false_match[right - 1]))


def threshold_at(impostor: NDArray[np.floating], rate: float) -> float | None:
    """The lowest threshold that at most `rate` of the impostor scores reach.

    None (insufficient data) where `rate` of them are fewer than FEWEST_FALSE_ACCEPTS. Of equal scores all reach it or
    none.
    """
    accepted = int(rate * len(impostor) + 1e-9)
    if accepted < FEWEST_FALSE_ACCEPTS:
        return None
    if accepted >= len(impostor):
        return float(impostor.min())
    first_refused = np.partition(impostor, len(impostor) - accepted - 1)[len(impostor) - accepted - 1]
    return float(np.nextafter(first_refused, first_refused.dtype.type(np.inf)))


def true_accept_rate(genuine: NDArray[np.floating], impostor: NDArray[np.floating], far: float) -> float | None:
    """The share of genuine scores from the lowest threshold on that accepts at most `far` of the impostor scores.

    None (insufficient data) without genuine scores, and where `threshold_at` has none.
    """
    threshold = threshold_at(impostor, far)
    return float((genuine >= threshold).mean()) if len(genuine) and threshold is not None else None
