"""Everything measured of one configuration: estimates with intervals, arranged as a report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earface.metrics.error_reject import ErrorReject
from earface.metrics.resampling import Curve, Estimate, Resampling, TradeOff, fpir_in_gallery, too_few
from earface.metrics.verification import threshold_at
from pipeline.calibration_metrics import NO_CALIBRATION, CalibrationResult, calibrated
from pipeline.options import FPIRS
from pipeline.picture_quality import PictureSets
from pipeline.protocol import Pair
from pipeline.quality import Quality
from pipeline.search import Searches

RANKS = (1, 5, 10)
LONGEST_CMC = 20
FARS = (1e-3, 1e-4)
BIN_EDGES = np.linspace(-1, 1, 101)  # of the score histograms

# name -> title, and whether higher is better; in the order of the table
METRICS: Mapping[str, tuple[str, bool]] = {
    **{f"rank{rank}": (f"rank-{rank}", True) for rank in RANKS},
    **{f"fnir_at_fpir_{rate:g}": (f"FNIR at FPIR {rate:g}", False) for rate in FPIRS},
    **{f"tar_at_far_{rate:g}": (f"TAR at FAR {rate:g}", True) for rate in FARS},
    "eer": ("EER", False),
    "fold_accuracy": ("accuracy over folds", True),
}


@dataclass(frozen=True)
class AtThreshold:
    """Both error rates at a threshold that was not chosen on the scores they are measured on."""

    kind: str  # identification or verification
    origin: str  # of the threshold, such as "fitted for FPIR 0.1", or "given"
    threshold: float | None
    false_negative: Estimate  # FNIR or FNMR
    false_positive: Estimate  # FPIR or FMR
    reason: str = ""  # why there is no threshold


@dataclass(frozen=True)
class ConfigurationResult:
    """Everything measured of one configuration under one condition."""

    name: str
    metrics: dict[str, Estimate]  # by the names of METRICS, those that the protocol has
    thresholds: list[AtThreshold]
    cmc: NDArray[np.float64]  # (R,) of rank 1 to R; empty without searches
    verification: Curve | None
    identification: Curve | None
    histograms: dict[str, NDArray[np.int64]]  # mated and non-mated comparisons in BIN_EDGES
    breakdown: dict[str, dict[str, Estimate]]  # such as camera -> 051 -> rank-1
    searches: Searches | None
    calibration: CalibrationResult | None = None  # None: without searches
    error_rejects: Mapping[str, Mapping[str, ErrorReject]] = field(default_factory=dict)  # by measure, kind of error
    picture_sets: Sequence[PictureSets] = ()  # of 1, 2, 4, ... pictures
    quality: Quality = field(default_factory=dict)  # of the probes


@dataclass(frozen=True)
class Trials:
    """What all configurations share: whose the probes are, and how they are grouped and resampled."""

    mated: NDArray[np.bool_]  # (P,)
    resampling: Resampling
    groups: Mapping[str, Sequence[str]]  # such as camera -> the camera of each probe; empty text: in no group
    gallery_size: int


def of_searches(
    name: str,
    searches: Searches,
    trials: Trials,
    calibration: Searches | None,
    calibration_size: int,
    threshold: float,
) -> ConfigurationResult:
    """Identification and verification metrics of P probes searched for in one gallery.

    calibration: searches that thresholds are fitted on, in a gallery of calibration_size; None: no thresholds are
    fitted. threshold: the user's. If everyone probed is enrolled, every search also counts as a non-mated one, without
    its mate.
    """
    resampling, mated, rank = trials.resampling, trials.mated, searches.rank
    right, wrong = np.flatnonzero(mated), np.flatnonzero(mated if mated.all() else ~mated)
    others = trials.gallery_size - bool(mated.all())  # how many people a non-mated search can find
    first = np.where(rank[right] == 1, searches.mated[right], -np.inf).astype(np.float32)
    identification = TradeOff(first, right, searches.best[wrong], wrong, resampling, "searches")
    comparisons = TradeOff(searches.mated[right], right, searches.impostor, searches.impostor_of, resampling)
    return ConfigurationResult(
        name=name,
        metrics={
            **{f"rank{limit}": resampling.share((rank <= limit) & mated, mated) for limit in RANKS},
            **{f"fnir_at_fpir_{rate:g}": identification.false_negatives_at_rate(rate) for rate in FPIRS},
            **_one_to_one(comparisons),
        },
        thresholds=[
            *(_fitted_fpir(identification, calibration, rate, calibration_size, others) for rate in FPIRS),
            *(_fitted_fmr(comparisons, calibration, rate) for rate in FARS),
            _at("identification", "given", identification, threshold),
            _at("verification", "given", comparisons, threshold),
        ],
        cmc=_cmc(rank[mated], trials.gallery_size),
        verification=comparisons.curve(),
        identification=identification.curve(),
        histograms={"mated": _histogram(searches.mated[right]), "non-mated": _histogram(searches.impostor)},
        breakdown=_breakdown(rank, trials),
        searches=searches,
        calibration=calibrated(searches, mated, wrong, resampling, calibration, calibration_size, others, FPIRS),
    )


def of_pairs(
    name: str, first: Tensor, second: Tensor, pairs: Sequence[Pair], resampling: Resampling, threshold: float
) -> ConfigurationResult:
    """Verification metrics of pairs of pictures; the accuracy over folds uses thresholds fitted on the other folds.

    first, second: the embeddings that `pairs` index. resampling: of the pairs.
    """
    one, other = (torch.tensor([getattr(pair, side) for pair in pairs]) for side in ("first", "second"))
    scores = (first[one] * second[other]).sum(dim=1).numpy()
    same, fold = np.array([pair.same for pair in pairs]), np.array([pair.fold for pair in pairs])
    right, wrong = np.flatnonzero(same), np.flatnonzero(~same)
    comparisons = TradeOff(scores[right], right, scores[wrong], wrong, resampling)
    return ConfigurationResult(
        name=name,
        metrics={**_one_to_one(comparisons), "fold_accuracy": fold_accuracy(scores, same, fold, resampling)},
        thresholds=[_at("verification", "given", comparisons, threshold)],
        cmc=np.empty(0),
        verification=comparisons.curve(),
        identification=None,
        histograms={"mated": _histogram(scores[right]), "non-mated": _histogram(scores[wrong])},
        breakdown={},
        searches=None,
    )


def _one_to_one(comparisons: TradeOff) -> dict[str, Estimate]:
    tars = {f"tar_at_far_{rate:g}": _complement(comparisons.false_negatives_at_rate(rate)) for rate in FARS}
    return tars | {"eer": comparisons.equal_error_rate()}


def _cmc(ranks: NDArray[np.int64], gallery_size: int) -> NDArray[np.float64]:
    """ranks: of the mated probes."""
    limits = range(1, min(LONGEST_CMC, gallery_size) + 1)
    return np.array([(ranks <= limit).mean() for limit in limits]) if len(ranks) else np.empty(0)


def _breakdown(rank: NDArray[np.int64], trials: Trials) -> dict[str, dict[str, Estimate]]:
    """Rank-1 of the mated probes of each group, in the order of the groups' angles or names."""
    mated = trials.mated
    found = {}
    for kind, values in trials.groups.items():
        present = {value for value, use in zip(values, mated, strict=True) if use and value}
        found[kind] = {
            value: trials.resampling.share((rank == 1) & mated, mated & (np.asarray(values) == value))
            for value in sorted(present, key=_angle_and_name)
        }
    return {kind: values for kind, values in found.items() if values}


def _angle_and_name(value: str) -> tuple[float, str]:
    """Sorts -15° before +0°, -1 before 0, and names that are no number after all numbers."""
    try:
        return float(value.removesuffix("°")), value
    except ValueError:
        return float("inf"), value


def fold_accuracy(
    scores: NDArray[np.floating], same: NDArray[np.bool_], fold: NDArray[np.int64], resampling: Resampling
) -> Estimate:
    """The share of pairs classified correctly, each fold at the threshold that is best on the other folds.

    LFW's "view 2" (Huang et al. 2007), with `best_threshold`.
    """
    if len(set(fold.tolist())) < 2:
        return Estimate(None, reason="one fold: no other to fit a threshold on")
    correct = np.zeros(len(scores), bool)
    for held_out in np.unique(fold):
        others = fold != held_out
        threshold = best_threshold(scores[others], same[others])
        correct[~others] = (scores[~others] >= threshold) == same[~others]
    return resampling.share(correct)


def best_threshold(scores: NDArray[np.floating], same: NDArray[np.bool_]) -> float:
    """The threshold that classifies most pairs correctly, pairs at or above it as the same; of several the lowest.

    Halfway between the two scores that it separates, so that pairs of another fold may lie a little further out.
    Infinity if calling every pair different is best.
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    correct = np.concatenate([[0], np.cumsum(np.where(same[order], 1, -1))]) + (~same).sum()
    last_of_equals = np.concatenate([[True], falling[:-1] != falling[1:], [True]])[: len(correct)]
    candidates = np.flatnonzero(last_of_equals)
    best = candidates[len(candidates) - 1 - int(np.argmax(correct[candidates][::-1]))]
    if not best:
        return float("inf")
    return float(falling[best - 1 : best + 1].astype(np.float64).mean())  # the last score itself where none is below


def _complement(estimate: Estimate) -> Estimate:
    if estimate.value is None:
        return estimate
    replicates = None if estimate.replicates is None else 1.0 - estimate.replicates
    return Estimate(1.0 - estimate.value, replicates, estimate.samples)


def _at(kind: str, origin: str, trade_off: TradeOff, threshold: float) -> AtThreshold:
    return AtThreshold(kind, origin, threshold, *trade_off.at(threshold))


def _fitted_fpir(
    trade_off: TradeOff, calibration: Searches | None, rate: float, calibration_size: int, size: int
) -> AtThreshold:
    """Each calibration search is non-mated once its mate is left out. The FPIR depends on the gallery's size."""
    origin = f"fitted for FPIR {rate:g}"
    if calibration is None or not len(calibration.best) or calibration_size < 2 or not size:
        return _unfitted("identification", origin, NO_CALIBRATION)
    corrected = fpir_in_gallery(rate, size, calibration_size - 1)
    threshold = threshold_at(calibration.best, corrected)
    if threshold is None:
        reason = too_few(len(calibration.best), "searches", corrected)
        return _unfitted("identification", origin, f"of the calibration identities, {reason}")
    return _at("identification", origin, trade_off, threshold)


def _fitted_fmr(trade_off: TradeOff, calibration: Searches | None, rate: float) -> AtThreshold:
    origin = f"fitted for FMR {rate:g}"
    if calibration is None or not len(calibration.impostor):
        return _unfitted("verification", origin, NO_CALIBRATION)
    threshold = threshold_at(calibration.impostor, rate)
    if threshold is None:
        reason = too_few(len(calibration.impostor), "comparisons", rate)
        return _unfitted("verification", origin, f"of the calibration identities, {reason}")
    return _at("verification", origin, trade_off, threshold)


def _unfitted(kind: str, origin: str, reason: str) -> AtThreshold:
    return AtThreshold(kind, origin, None, Estimate(None, reason=reason), Estimate(None, reason=reason), reason)


def _histogram(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.histogram(np.clip(scores, -1, 1), BIN_EDGES)[0]
