"""Scores to likelihood ratios, and what these cost: Brümmer & du Preez, "Application-independent evaluation of speaker
detection", Computer Speech & Language 2006. Plain NumPy.

A likelihood ratio says how much more often a score occurs between pictures of one person than of two. Of one
comparison: that a search takes the best of many is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from earface.metrics.verification import FEWEST_FALSE_ACCEPTS

Floats = NDArray[np.floating]
MOST_STEPS, CLOSE = 100, 1e-12


def costs(ratios: Floats, mated: bool) -> NDArray[np.float64]:
    """What each log-likelihood ratio costs, in bits: log2(1 + 1 / LR) of mated comparisons, log2(1 + LR) of others."""
    llr = np.asarray(ratios, np.float64)
    return np.logaddexp(0.0, -llr if mated else llr) / np.log(2.0)


def cllr(mated: Floats, nonmated: Floats) -> float:
    """The cost of natural log-likelihood ratios, in bits: the mean of both kinds' mean `costs`.

    0 for perfect ratios, 1 for those that say nothing (0), more for those that mislead.
    """
    return float((costs(mated, True).mean() + costs(nonmated, False).mean()) / 2)


def cllr_min(mated: Floats, nonmated: Floats) -> float:
    """The least Cllr that any rising function of the scores has on these comparisons, in bits.

    By pool adjacent violators, both kinds weighing the same. What Cllr is above it is the loss of the calibration.
    """
    scores = np.concatenate([mated, nonmated]).astype(np.float64)
    of_one = np.concatenate([np.ones(len(mated)), np.zeros(len(nonmated))])
    weights = np.concatenate([np.full(len(own), 0.5 / len(own)) for own in (mated, nonmated)])
    posterior = IsotonicRegression().fit(scores, of_one, weights).predict(scores)
    posterior = np.clip(posterior, 0.0, 1.0)
    return float(-(np.log2(posterior[: len(mated)]).mean() + np.log2(1.0 - posterior[len(mated) :]).mean()) / 2)


@dataclass(frozen=True)
class LogisticCalibration:
    """log LR = slope * score + offset, within bounds."""

    slope: float
    offset: float
    mated: int  # comparisons that it was fitted on
    nonmated: int

    @staticmethod
    def lacking(mated: Floats, nonmated: Floats) -> str:
        """Why these comparisons cannot be calibrated on; empty where they can."""
        if min(len(mated), len(nonmated)) < FEWEST_FALSE_ACCEPTS:
            counts = f"{len(mated):,} mated and {len(nonmated):,} non-mated comparisons"
            return f"{counts}, fewer than {FEWEST_FALSE_ACCEPTS} of a kind"
        if float(mated.min()) >= float(nonmated.max()):
            return "no non-mated score is above a mated one: any steeper ratios would fit as well"
        if float(mated.mean()) <= float(nonmated.mean()):
            return "mated scores are not higher than non-mated ones"
        return ""

    @classmethod
    def fit(cls, mated: Floats, nonmated: Floats) -> Self:
        """Of least Cllr: logistic regression in which both kinds weigh the same, by Newton's method.

        Raises ValueError where they are `lacking`.
        """
        if reason := cls.lacking(mated, nonmated):
            raise ValueError(reason)
        scores = np.concatenate([mated, nonmated]).astype(np.float64)
        sign = np.concatenate([np.ones(len(mated)), -np.ones(len(nonmated))])
        weights = np.concatenate([np.full(len(own), 0.5 / len(own)) for own in (mated, nonmated)])
        middle, width = float(scores.mean()), float(scores.std())
        inputs = np.stack([(scores - middle) / width, np.ones(len(scores))], axis=1)

        def loss(found: NDArray[np.float64]) -> float:
            return float(weights @ np.logaddexp(0.0, -sign * (inputs @ found)))

        found = np.zeros(2)
        for _ in range(MOST_STEPS):
            wrong = 1.0 / (1.0 + np.exp(np.clip(sign * (inputs @ found), -700, 700)))
            gradient = -(inputs * (weights * sign * wrong)[:, None]).sum(axis=0)
            curvature = inputs.T @ (inputs * (weights * wrong * (1.0 - wrong))[:, None])
            step = np.linalg.solve(curvature, gradient)
            while loss(found - step) > loss(found) and np.abs(step).max() > CLOSE:  # Newton's may go too far
                step /= 2
            found = found - step
            if np.abs(step).max() < CLOSE * (1.0 + np.abs(found).max()):
                break
        slope = float(found[0] / width)
        return cls(slope, float(found[1] - slope * middle), len(mated), len(nonmated))

    @property
    def bounds(self) -> tuple[float, float]:
        """The log LR lies between 1 to the number of mated comparisons + 1, and that of non-mated ones + 1 to 1.

        So many comparisons do not show more, though the line goes on.
        """
        return -float(np.log(self.mated + 1)), float(np.log(self.nonmated + 1))

    def __call__(self, scores: Floats) -> NDArray[np.float64]:
        """Natural log-likelihood ratios of scores, any shape."""
        return np.clip(self.slope * np.asarray(scores, np.float64) + self.offset, *self.bounds)
