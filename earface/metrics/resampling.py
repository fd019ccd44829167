"""The metrics of ISO/IEC 19795-1 from similarity scores, with intervals by resampling subjects. Plain NumPy.

Identification: a mated search is for someone who is in the gallery. FNIR(N, R, T): the share of mated searches that do
not return the mate among the best R of N at T or above. FPIR(N, T): the share of non-mated searches that return anyone
at T or above. CMC: the share of mated searches whose mate is among the best R, without a threshold. Verification: FMR
and FNMR of single comparisons at T. A score equal to the threshold matches; of equal scores another identity's ranks
before the mate's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from earface.metrics.verification import FEWEST_FALSE_ACCEPTS, equal_error_rate, threshold_at

LEVEL = 0.95
CURVE_POINTS = 400  # thresholds at which a trade-off is plotted and resampled
LOWEST_RATE = 1e-6  # of the plotted ones

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A metric's value and its bootstrap replicates; or, without a value, why there is insufficient data."""

    value: float | None
    replicates: Floats | None = field(default=None, repr=False)  # (B,); None where nothing can be resampled
    samples: int = 0  # searches or comparisons that it rests on
    reason: str = ""

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """The middle `level` of the replicates (percentile bootstrap).

        None if all replicates are equal: that none of these subjects caused an error does not mean that none could.
        """
        if self.value is None or self.replicates is None:
            return None
        known = self.replicates[np.isfinite(self.replicates)]  # a replicate may hold no subject that counts
        if 2 * len(known) <= len(self.replicates) or known.min() == known.max():
            return None
        low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def __sub__(self, other: Estimate) -> Estimate:
        """The difference of two metrics of one Resampling: replicate by replicate, so what they share cancels."""
        if self.value is None or other.value is None:
            return Estimate(None, reason=self.reason or other.reason)
        both = self.replicates is not None and other.replicates is not None
        replicates = self.replicates - other.replicates if both else None  # type: ignore[operator]
        return Estimate(self.value - other.value, replicates, min(self.samples, other.samples))


class Resampling:
    """The subjects of N trials resampled with replacement, each with all its trials: the subsets bootstrap.

    Bolle, Ratha & Pankanti, "Error analysis of pattern recognition systems - the subsets bootstrap", 2004. The gallery
    is not resampled. One Resampling serves every configuration, so their differences are paired.
    """

    def __init__(self, subjects: Sequence[str], replicates: int = 1000, seed: int = 0) -> None:
        """subjects: of each trial, in its order."""
        names, self.of = np.unique(np.asarray(subjects, dtype=object).astype(str), return_inverse=True)
        self.size, count = len(subjects), len(names)
        boxes = max(1, count)  # multinomial refuses none
        draws = np.random.default_rng(seed).multinomial(count, np.full(boxes, 1 / boxes), size=replicates)
        self.weights: Floats = draws[:, :count].astype(np.float64)  # (B, S): how often a replicate holds each subject
        self.subjects = count

    def share(self, events: Bools, trials: Bools | None = None) -> Estimate:
        """The share of `trials` (N,) at which the event occurs."""
        chosen = np.ones(self.size, bool) if trials is None else trials
        total = int(chosen.sum())
        if total == 0:
            return Estimate(None, reason="no such searches")
        occurred, counted = (self._per_subject(self.of[mask]) for mask in (events & chosen, chosen))
        value = float(occurred.sum() / total)
        if np.count_nonzero(counted) < 2:
            return Estimate(value, None, total)
        with np.errstate(invalid="ignore"):
            return Estimate(value, (self.weights @ occurred) / (self.weights @ counted), total)

    def mean(self, values: Floats, of: NDArray[np.int64]) -> Estimate:
        """The mean of values (N,), each of the trial that `of` says. NaN is not counted."""
        known = np.isfinite(values)
        if not known.any():
            return Estimate(None, reason="nothing to measure on")
        own, subjects = values[known].astype(np.float64), self.of[of[known]]
        sums = np.bincount(subjects, own, self.subjects)
        counted = self._per_subject(subjects)
        if np.count_nonzero(counted) < 2:
            return Estimate(float(own.mean()), None, len(own))
        with np.errstate(invalid="ignore"):
            return Estimate(float(own.mean()), (self.weights @ sums) / (self.weights @ counted), len(own))

    def _per_subject(self, of: NDArray[np.int64]) -> Floats:
        return np.bincount(of, minlength=self.subjects).astype(np.float64)

    def reaching(self, scores: Floats, of: NDArray[np.int64], thresholds: Floats) -> tuple[Floats, Floats]:
        """The share of scores that reach each threshold, (T,), and in each replicate, (B, T).

        of: the trial of each score. thresholds: rising. NaN in replicates without a subject that has scores.
        """
        width = len(thresholds) + 1
        reached = np.searchsorted(thresholds, scores, side="right")  # how many thresholds a score reaches
        counts = np.bincount(self.of[of] * width + reached, minlength=self.subjects * width)
        table = counts.reshape(self.subjects, width)[:, ::-1].cumsum(axis=1)[:, ::-1].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled = self.weights @ table
            return table[:, 1:].sum(axis=0) / len(scores), resampled[:, 1:] / resampled[:, :1]


@dataclass(frozen=True)
class Curve:
    """A trade-off: errors of the two kinds at each threshold, and their middle 95 % of the replicates."""

    thresholds: Floats  # (T,) rising
    false_positive: Floats  # (T,) FMR or FPIR
    false_negative: Floats  # (T,) FNMR or FNIR
    band: Floats  # (2, T) of false_negative at that false_positive; NaN where it is unknown


class TradeOff:
    """Both kinds of error at any threshold: FNMR and FMR of comparisons, or FNIR and FPIR of searches.

    positive, negative: scores of those that should and of those that should not match, float, finite; -inf for a mate
    that is not among the best R. *_of: the trial of each, a number below `resampling.size`. Raises ValueError for other
    scores: NaN would reach every threshold.
    """

    def __init__(
        self,
        positive: Floats,
        positive_of: NDArray[np.int64],
        negative: Floats,
        negative_of: NDArray[np.int64],
        resampling: Resampling,
        named: str = "comparisons",
    ) -> None:
        if not ((positive < np.inf).all() and np.isfinite(negative).all()):
            raise ValueError("scores must be finite; only a mate's may be -inf")
        kind = np.result_type(positive, negative)  # or a threshold between two of one kind is rounded in the other
        self.positive, self.negative = (scores.astype(kind, copy=False) for scores in (positive, negative))
        self.positive_of, self.negative_of = positive_of, negative_of
        self.resampling, self.named = resampling, named
        self.lacking = self._lacking()
        self.several = min(len(np.unique(resampling.of[of])) for of in (positive_of, negative_of)) > 1
        if not self.lacking:
            self.thresholds = self._curve_thresholds()
            reaching = resampling.reaching
            self.false_positive, self._fp = reaching(negative, negative_of, self.thresholds)
            found, resampled = reaching(positive, positive_of, self.thresholds)
            self.false_negative, self._fn = 1.0 - found, 1.0 - resampled

    def _lacking(self) -> str:
        absent = [name for name, own in (("mated", self.positive), ("non-mated", self.negative)) if not len(own)]
        return f"no {' and no '.join(absent)} {self.named}" if absent else ""

    def _curve_thresholds(self) -> Floats:
        """Quantiles of both sets of scores, denser towards the highest of `negative`; the last is above all of these.

        Without it, a replicate that holds the highest of `negative` often could have too many matches everywhere.
        """
        rates = np.geomspace(max(LOWEST_RATE, 0.5 / len(self.negative)), 1.0, CURVE_POINTS)
        above_all = [np.nextafter(self.negative.max(), np.inf)]
        levels = np.concatenate([np.quantile(self.negative, 1.0 - rates, method="higher"), above_all])
        finite = self.positive[np.isfinite(self.positive)]
        if len(finite):
            levels = np.concatenate([levels, np.quantile(finite, np.linspace(0, 1, CURVE_POINTS), method="lower")])
        return np.unique(levels.astype(np.float64))

    def at(self, threshold: float) -> tuple[Estimate, Estimate]:
        """False negatives and false positives at a threshold. At -inf every score matches, except -inf itself."""
        return self._at(self.positive, self.positive_of, threshold, True), self._at(
            self.negative, self.negative_of, threshold, False
        )

    def _at(self, scores: Floats, of: NDArray[np.int64], threshold: float, below: bool) -> Estimate:
        if not len(scores):
            return Estimate(None, reason=self.lacking)
        least = np.array([max(threshold, np.finfo(np.float64).min)])  # -inf is not a score of -inf or above
        found, resampled = self.resampling.reaching(scores, of, least)
        value, replicates = float(found[0]), resampled[:, 0]
        several = len(np.unique(self.resampling.of[of])) > 1
        if below:
            value, replicates = 1.0 - value, 1.0 - replicates
        return Estimate(value, replicates if several else None, len(scores))

    def false_negatives_at_rate(self, rate: float) -> Estimate:
        """False negatives at the lowest threshold with at most `rate` of false positives, measured on the same scores.

        The threshold moves with each replicate. Insufficient data where fewer than FEWEST_FALSE_ACCEPTS of the negative
        scores would decide it. Raises ValueError for a rate that is not between 0 and 1.
        """
        if not 0 < rate < 1:
            raise ValueError(f"a rate lies between 0 and 1, not at {rate:g}")
        if self.lacking:
            return Estimate(None, reason=self.lacking)
        threshold = threshold_at(self.negative, rate)
        if threshold is None:
            return Estimate(None, reason=too_few(len(self.negative), self.named, rate))
        value = float((self.positive < threshold).mean())
        wanted = np.array([rate])
        replicates = np.array([_read(fp, fn, wanted)[0] for fp, fn in zip(self._fp, self._fn, strict=True)])
        return Estimate(value, replicates if self.several else None, len(self.positive))

    def equal_error_rate(self) -> Estimate:
        """Where both errors are equal, in [0, 1]. Raises ValueError where a mate's score is -inf."""
        if self.lacking:
            return Estimate(None, reason=self.lacking)
        value = equal_error_rate(self.positive, self.negative)
        replicates = np.array([_crossing(fp, fn) for fp, fn in zip(self._fp, self._fn, strict=True)])
        return Estimate(value, replicates if self.several else None, len(self.positive))

    def curve(self) -> Curve | None:
        """None where there is nothing to plot."""
        if self.lacking:
            return None
        rates = self.false_positive
        band = np.full((2, len(rates)), np.nan)
        if self.several and len(self._fp):
            read = np.stack([_read(fp, fn, rates) for fp, fn in zip(self._fp, self._fn, strict=True)])
            known = read[np.isfinite(read).all(axis=1)]
            if 2 * len(known) > len(read):
                band = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return Curve(self.thresholds, rates, self.false_negative, band)


def too_few(count: int, named: str, rate: float) -> str:
    """Why a rate cannot be estimated."""
    whole = int(rate * count + 1e-9)  # as threshold_at counts: 9.96 are not "10.0, fewer than 10"
    return f"{rate:.3g} of {count:,} non-mated {named} are {whole}, fewer than {FEWEST_FALSE_ACCEPTS}"


def fpir_in_gallery(rate: float, of: int, size: int) -> float:
    """The FPIR in a gallery of `size` of the threshold whose FPIR in one of `of` is `rate`.

    As if the comparisons of a search were independent: 1 - (1 - FMR)^N (ISO/IEC 19795-1, annex on identification).
    """
    with np.errstate(divide="ignore"):  # a rate of 1 stays 1
        return float(-np.expm1(np.log1p(-rate) * size / of))


def _read(false_positive: Floats, false_negative: Floats, rates: Floats) -> Floats:
    """False negatives of one replicate at the lowest of its thresholds with at most each rate of false positives."""
    if not (np.isfinite(false_positive).all() and np.isfinite(false_negative).all()):
        return np.full(len(rates), np.nan)
    return false_negative[np.searchsorted(-false_positive, -rates)]  # none reaches the last threshold


def _crossing(false_positive: Floats, false_negative: Floats) -> float:
    """Where the lines of one replicate cross; NaN where it holds no scores of one kind."""
    gap = np.concatenate([[1.0], false_positive - false_negative, [-1.0]])  # below all thresholds, and above
    if not np.isfinite(gap).all():
        return float("nan")
    rising = np.concatenate([[0.0], false_negative, [1.0]])
    right = int(np.argmax(gap <= 0))
    weight = gap[right - 1] / (gap[right - 1] - gap[right])
    return float(rising[right - 1] + weight * (rising[right] - rising[right - 1]))
