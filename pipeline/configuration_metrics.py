"""What is measured of one row: the figures of pipeline.metrics, in the places where a report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earface.metrics.verification import threshold_at
from pipeline.metrics import Curve, Figure, Resampling, TradeOff, fpir_in_gallery, too_few
from pipeline.protocol import Pair
from pipeline.search import Searches

RANKS = (1, 5, 10)
LONGEST_CMC = 20
FPIRS = (0.1, 0.01)
FARS = (1e-3, 1e-4)
BIN_EDGES = np.linspace(-1, 1, 101)  # of the score histograms

# name -> title, and whether more is better; in the order of a table
MEASURES: Mapping[str, tuple[str, bool]] = {
    **{f"rank{rank}": (f"rank-{rank}", True) for rank in RANKS},
    **{f"fnir_at_fpir_{rate:g}": (f"FNIR at FPIR {rate:g}", False) for rate in FPIRS},
    **{f"tar_at_far_{rate:g}": (f"TAR at FAR {rate:g}", True) for rate in FARS},
    "eer": ("EER", False),
    "fold_accuracy": ("accuracy over folds", True),
}


@dataclass(frozen=True)
class AtThreshold:
    """Both errors at a threshold that was not chosen on the scores they are measured on."""

    kind: str  # identification or verification
    named: str  # such as "fitted for FPIR 0.1", or "given"
    threshold: float | None
    false_negative: Figure  # FNIR or FNMR
    false_positive: Figure  # FPIR or FMR
    reason: str = ""  # why there is no threshold


@dataclass(frozen=True)
class ConfigurationResult:
    """All of one row under one condition."""

    name: str
    measured: dict[str, Figure]  # by the names of MEASURES, those that the protocol has
    thresholds: list[AtThreshold]
    cmc: NDArray[np.float64]  # (R,) of rank 1 to R; empty without searches
    verification: Curve | None
    identification: Curve | None
    histograms: dict[str, NDArray[np.int64]]  # mated and non-mated comparisons in BIN_EDGES
    breakdown: dict[str, dict[str, Figure]]  # such as camera -> 051 -> rank-1
    searches: Searches | None


@dataclass(frozen=True)
class Trials:
    """What is the same for all rows: whose the probes are, and how they are grouped and resampled."""

    mated: NDArray[np.bool_]  # (P,)
    resampling: Resampling
    groups: Mapping[str, Sequence[str]]  # such as camera -> that of each probe; empty text: in no group
    gallery_size: int


def of_searches(
    name: str, searches: Searches, trials: Trials, tune: Searches | None, tune_size: int, given: float
) -> ConfigurationResult:
    """Of P probes searched for in one gallery.

    tune: searches that thresholds are fitted on, in a gallery of tune_size; None: none. given: the user's threshold.
    Where nobody of the probes is missing in the gallery, the non-mated searches are all, each without its mate.
    """
    resampling, mated, rank = trials.resampling, trials.mated, searches.rank
    right, wrong = np.flatnonzero(mated), np.flatnonzero(mated if mated.all() else ~mated)
    others = trials.gallery_size - bool(mated.all())  # whom a non-mated search can find
    first = np.where(rank[right] == 1, searches.mated[right], -np.inf).astype(np.float32)
    identification = TradeOff(first, right, searches.best[wrong], wrong, resampling, "searches")
    comparisons = TradeOff(searches.mated[right], right, searches.impostor, searches.impostor_of, resampling)
    return ConfigurationResult(
        name=name,
        measured={
            **{f"rank{limit}": resampling.share((rank <= limit) & mated, mated) for limit in RANKS},
            **{f"fnir_at_fpir_{rate:g}": identification.false_negatives_at_rate(rate) for rate in FPIRS},
            **_one_to_one(comparisons),
        },
        thresholds=[
            *(_fitted_fpir(identification, tune, rate, tune_size, others) for rate in FPIRS),
            *(_fitted_fmr(comparisons, tune, rate) for rate in FARS),
            _at("identification", "given", identification, given),
            _at("verification", "given", comparisons, given),
        ],
        cmc=_cmc(rank[mated], trials.gallery_size),
        verification=comparisons.curve(),
        identification=identification.curve(),
        histograms={"mated": _histogram(searches.mated[right]), "non-mated": _histogram(searches.impostor)},
        breakdown=_breakdown(rank, trials),
        searches=searches,
    )


def of_pairs(
    name: str, first: Tensor, second: Tensor, pairs: Sequence[Pair], resampling: Resampling, given: float
) -> ConfigurationResult:
    """Of pairs of pictures: verification alone. The accuracy is the mean over folds at the threshold of the others.

    first, second: embeddings that `pairs` number. resampling: of the pairs.
    """
    one, other = (torch.tensor([getattr(pair, side) for pair in pairs]) for side in ("first", "second"))
    scores = (first[one] * second[other]).sum(dim=1).numpy()
    same, fold = np.array([pair.same for pair in pairs]), np.array([pair.fold for pair in pairs])
    right, wrong = np.flatnonzero(same), np.flatnonzero(~same)
    comparisons = TradeOff(scores[right], right, scores[wrong], wrong, resampling)
    return ConfigurationResult(
        name=name,
        measured={**_one_to_one(comparisons), "fold_accuracy": fold_accuracy(scores, same, fold, resampling)},
        thresholds=[_at("verification", "given", comparisons, given)],
        cmc=np.empty(0),
        verification=comparisons.curve(),
        identification=None,
        histograms={"mated": _histogram(scores[right]), "non-mated": _histogram(scores[wrong])},
        breakdown={},
        searches=None,
    )


def _one_to_one(comparisons: TradeOff) -> dict[str, Figure]:
    tars = {f"tar_at_far_{rate:g}": _complement(comparisons.false_negatives_at_rate(rate)) for rate in FARS}
    return tars | {"eer": comparisons.equal_error_rate()}


def _cmc(ranks: NDArray[np.int64], gallery_size: int) -> NDArray[np.float64]:
    """ranks: of the mated probes."""
    limits = range(1, min(LONGEST_CMC, gallery_size) + 1)
    return np.array([(ranks <= limit).mean() for limit in limits]) if len(ranks) else np.empty(0)


def _breakdown(rank: NDArray[np.int64], trials: Trials) -> dict[str, dict[str, Figure]]:
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
    """-15° before +0°, and what is no angle after all angles."""
    return float(value.removesuffix("°")) if value.endswith("°") else float("inf"), value


def fold_accuracy(
    scores: NDArray[np.floating], same: NDArray[np.bool_], fold: NDArray[np.int64], resampling: Resampling
) -> Figure:
    """The share of pairs decided rightly, each fold at the threshold that decides most pairs of the others rightly.

    LFW's "view 2" (Huang et al. 2007), with `best_threshold`.
    """
    if len(set(fold.tolist())) < 2:
        return Figure(None, reason="one fold: no others to fit a threshold on")
    rightly = np.zeros(len(scores), bool)
    for held_out in np.unique(fold):
        others = fold != held_out
        threshold = best_threshold(scores[others], same[others])
        rightly[~others] = (scores[~others] >= threshold) == same[~others]
    return resampling.share(rightly)


def best_threshold(scores: NDArray[np.floating], same: NDArray[np.bool_]) -> float:
    """What decides most pairs rightly, if those at it or above are the same; the lowest, or infinity.

    Halfway between the two scores that it parts, so that another fold's pairs may lie a little further out.
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    rightly = np.concatenate([[0], np.cumsum(np.where(same[order], 1, -1))]) + (~same).sum()
    last_of_equals = np.concatenate([[True], falling[:-1] != falling[1:], [True]])[: len(rightly)]
    candidates = np.flatnonzero(last_of_equals)
    best = candidates[len(candidates) - 1 - int(np.argmax(rightly[candidates][::-1]))]
    if not best:
        return float("inf")
    return float(falling[best - 1 : best + 1].astype(np.float64).mean())  # the last score itself where none is below


def _complement(figure: Figure) -> Figure:
    if figure.value is None:
        return figure
    replicates = None if figure.replicates is None else 1.0 - figure.replicates
    return Figure(1.0 - figure.value, replicates, figure.samples)


def _at(kind: str, named: str, trade_off: TradeOff, threshold: float) -> AtThreshold:
    return AtThreshold(kind, named, threshold, *trade_off.at(threshold))


def _fitted_fpir(trade_off: TradeOff, tune: Searches | None, rate: float, tune_size: int, size: int) -> AtThreshold:
    """Each search of `tune` is non-mated without its mate. A gallery of another size has another FPIR."""
    named = f"fitted for FPIR {rate:g}"
    if tune is None or not len(tune.best) or tune_size < 2 or not size:
        return _unfitted("identification", named, "nobody to fit a threshold on")
    corrected = fpir_in_gallery(rate, size, tune_size - 1)
    threshold = threshold_at(tune.best, corrected)
    if threshold is None:
        return _unfitted(
            "identification", named, "of those who tune, " + too_few(len(tune.best), "searches", corrected)
        )
    return _at("identification", named, trade_off, threshold)


def _fitted_fmr(trade_off: TradeOff, tune: Searches | None, rate: float) -> AtThreshold:
    named = f"fitted for FMR {rate:g}"
    if tune is None or not len(tune.impostor):
        return _unfitted("verification", named, "nobody to fit a threshold on")
    threshold = threshold_at(tune.impostor, rate)
    if threshold is None:
        return _unfitted(
            "verification", named, "of those who tune, " + too_few(len(tune.impostor), "comparisons", rate)
        )
    return _at("verification", named, trade_off, threshold)


def _unfitted(kind: str, named: str, reason: str) -> AtThreshold:
    return AtThreshold(kind, named, None, Figure(None, reason=reason), Figure(None, reason=reason), reason)


def _histogram(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.histogram(np.clip(scores, -1, 1), BIN_EDGES)[0]
