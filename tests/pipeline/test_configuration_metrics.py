"""The metrics of a configuration against slow loops over its scores. Embeddings are random; the search is the real one.

`Estimate`s, intervals and the search have tests of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from earface.metrics.resampling import Resampling
from pipeline.configuration_metrics import (
    ConfigurationResult,
    Trials,
    best_threshold,
    fold_accuracy,
    of_pairs,
    of_searches,
)
from pipeline.protocol import Pair
from pipeline.search import NOBODY, Searches, search
from tests.pipeline.small import slow_best_threshold, slow_equal_error_rate, slow_fold_accuracy, slow_limit

DIMENSIONS = 24
GIVEN = 0.35


def unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


@dataclass(frozen=True)
class Sample:
    """Templates and probes of people; the mate of a probe is its template's row, or NOBODY."""

    templates: Tensor
    probes: Tensor
    mates: NDArray[np.int64]

    @property
    def searches(self) -> Searches:
        return search(self.probes, self.mates, self.templates)

    @property
    def scores(self) -> list[list[float]]:
        return (self.probes @ self.templates.T).tolist()

    def split(self) -> tuple[list[float], list[float], list[int], list[float]]:
        """By loops: the mates' scores, all others' scores, the mates' ranks, and each probe's best other."""
        mated, impostor, ranks, best = [], [], [], []
        for own, mate in zip(self.scores, self.mates.tolist(), strict=True):
            others = [score for place, score in enumerate(own) if place != mate]
            impostor += others
            best.append(max(others))
            if mate != NOBODY:
                mated.append(own[mate])
                ranks.append(1 + sum(score >= own[mate] for score in others))
        return mated, impostor, ranks, best


def sample_of(people: int, probes_each: int, strangers: int, seed: int, noise: float = 0.35) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    centres = unit(torch.randn(people, DIMENSIONS, generator=generator))
    near = centres.repeat(probes_each, 1)
    near = unit(near + noise * torch.randn(near.shape, generator=generator))
    others = unit(torch.randn(strangers, DIMENSIONS, generator=generator))
    mates = np.concatenate([np.tile(np.arange(people), probes_each), np.full(strangers, NOBODY)])
    return Sample(centres, torch.cat([near, others]), mates)


def trials_of(sample: Sample, groups: Mapping[str, Sequence[str]] | None = None) -> Trials:
    subjects = [
        f"stranger {place}" if mate == NOBODY else str(mate) for place, mate in enumerate(sample.mates.tolist())
    ]
    return Trials(sample.mates != NOBODY, Resampling(subjects, 100), groups or {}, len(sample.templates))


def measure(
    sample: Sample, calibration: Sample | None, groups: Mapping[str, Sequence[str]] | None = None
) -> ConfigurationResult:
    fitting, size = (None, 0) if calibration is None else (calibration.searches, len(calibration.templates))
    return of_searches("name", sample.searches, trials_of(sample, groups), fitting, size, GIVEN)


@pytest.fixture(scope="module")
def probed() -> Sample:
    return sample_of(people=12, probes_each=10, strangers=150, seed=0)


@pytest.fixture(scope="module")
def calibration() -> Sample:
    return sample_of(people=30, probes_each=20, strangers=0, seed=1)


@pytest.fixture(scope="module")
def result(probed: Sample, calibration: Sample) -> ConfigurationResult:
    return measure(probed, calibration)


def share(events: Sequence[bool]) -> float:
    return sum(events) / len(events)


# Identification


def test_rank_and_cmc_are_those_of_a_loop(probed: Sample, result: ConfigurationResult) -> None:
    _, _, ranks, _ = probed.split()
    assert 0.2 < share([rank == 1 for rank in ranks]) < 0.95  # neither trivially right nor wrong
    for limit in (1, 5, 10):
        assert result.metrics[f"rank{limit}"].value == pytest.approx(share([rank <= limit for rank in ranks]))
        assert result.metrics[f"rank{limit}"].samples == len(ranks)
    assert result.cmc.tolist() == pytest.approx([share([rank <= limit for rank in ranks]) for limit in range(1, 13)])


@pytest.mark.parametrize("rate", [0.1, 0.01])
def test_fnir_at_an_fpir_is_that_of_a_loop(rate: float, probed: Sample, result: ConfigurationResult) -> None:
    mated, _, ranks, best = probed.split()
    strangers = [value for value, mate in zip(best, probed.mates, strict=True) if mate == NOBODY]
    limit = slow_limit(strangers, rate)
    result = result.metrics[f"fnir_at_fpir_{rate:g}"]
    if limit is None:
        assert result.value is None
        assert result.reason == "0.01 of 150 non-mated searches are 1, fewer than 10"
    else:
        found = [rank == 1 and value > limit for value, rank in zip(mated, ranks, strict=True)]
        assert result.value == pytest.approx(1 - share(found))


def test_the_given_threshold_has_the_errors_of_a_loop(probed: Sample, result: ConfigurationResult) -> None:
    mated, impostor, ranks, best = probed.split()
    strangers = [value for value, mate in zip(best, probed.mates, strict=True) if mate == NOBODY]
    one_to_many, one_to_one = result.thresholds[-2:]
    assert [(each.kind, each.origin, each.threshold) for each in (one_to_many, one_to_one)] == [
        ("identification", "given", GIVEN),
        ("verification", "given", GIVEN),
    ]
    hits = [rank == 1 and value >= GIVEN for value, rank in zip(mated, ranks, strict=True)]
    assert one_to_many.false_negative.value == pytest.approx(1 - share(hits))
    assert one_to_many.false_positive.value == pytest.approx(share([value >= GIVEN for value in strangers]))
    assert one_to_one.false_negative.value == pytest.approx(share([value < GIVEN for value in mated]))
    assert one_to_one.false_positive.value == pytest.approx(share([value >= GIVEN for value in impostor]))


def test_where_all_are_enrolled_each_search_counts_once_more_without_its_mate(calibration: Sample) -> None:
    mated, _, ranks, best = calibration.split()
    result = measure(calibration, None)
    limit = slow_limit(best, 0.1)
    assert limit is not None
    found = [rank == 1 and value > limit for value, rank in zip(mated, ranks, strict=True)]
    assert result.metrics["fnir_at_fpir_0.1"].value == pytest.approx(1 - share(found))
    assert result.thresholds[-2].false_positive.samples == len(calibration.probes)


def test_an_equal_score_of_another_is_no_hit() -> None:
    """The probe is as near to a stranger's template as to its own."""
    templates = unit(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    sample = Sample(templates, unit(torch.tensor([[1.0, 1.0], [1.0, 0.2]])), np.array([0, 0]))
    result = measure(sample, None)
    assert result.metrics["rank1"].value == 0.5
    assert result.thresholds[-2].false_negative.value == 0.5
    assert result.thresholds[-1].false_negative.value == 0.0  # verification has no rank


# Verification


@pytest.mark.parametrize("rate", [1e-3, 1e-4])
def test_tar_at_a_far_is_that_of_a_loop(rate: float, calibration: Sample) -> None:
    mated, impostor, _, _ = calibration.split()
    assert len(impostor) == 600 * 29
    limit = slow_limit(impostor, rate)
    result = measure(calibration, None).metrics[f"tar_at_far_{rate:g}"]
    if limit is None:
        assert result.value is None
        assert "0.0001 of 17,400 non-mated comparisons are 1, fewer than 10" in result.reason
    else:
        assert result.value == pytest.approx(share([value > limit for value in mated]))


def test_the_eer_is_where_the_loop_s_lines_cross(probed: Sample, result: ConfigurationResult) -> None:
    mated, impostor, _, _ = probed.split()
    assert result.metrics["eer"].value == pytest.approx(slow_equal_error_rate(mated, impostor))


# Thresholds fitted on the calibration identities


def test_fitted_thresholds_are_a_loop_s_over_the_calibration_identities(
    probed: Sample, calibration: Sample, result: ConfigurationResult
) -> None:
    _, impostor, _, best = calibration.split()
    in_their_gallery = 1 - (1 - 0.1) ** ((30 - 1) / 12)  # calibration probes have 29 others, test probes 12
    wanted = {
        "fitted for FPIR 0.1": slow_limit(best, in_their_gallery),
        "fitted for FMR 0.001": slow_limit(impostor, 1e-3),
    }
    mated, others, ranks, top = probed.split()
    strangers = [value for value, mate in zip(top, probed.mates, strict=True) if mate == NOBODY]
    found = {each.origin: each for each in result.thresholds}
    for origin, limit in wanted.items():
        each = found[origin]
        assert limit is not None
        assert each.threshold == np.nextafter(np.float32(limit), np.float32(np.inf))
        if each.kind == "identification":
            hits = [rank == 1 and value > limit for value, rank in zip(mated, ranks, strict=True)]
            errors = 1 - share(hits), share([value > limit for value in strangers])
        else:
            errors = share([value <= limit for value in mated]), share([value > limit for value in others])
        assert (each.false_negative.value, each.false_positive.value) == pytest.approx(errors), origin


def test_a_threshold_fitted_in_a_small_gallery_keeps_its_fpir_in_a_large_one() -> None:
    """Directions at random: comparisons are as independent as the correction takes them to be."""
    few, many = sample_of(20, 200, 0, seed=2, noise=1.0), sample_of(200, 1, 2000, seed=3, noise=1.0)
    fitted = measure(many, few).thresholds[0]
    assert fitted.origin == "fitted for FPIR 0.1"
    assert fitted.false_positive.value == pytest.approx(0.1, abs=0.03)
    uncorrected = slow_limit(few.split()[3], 0.1)
    assert uncorrected is not None
    strangers = many.searches.best[many.mates == NOBODY]
    assert (strangers > uncorrected).mean() > 0.4  # without the correction


def test_only_calibration_identities_move_a_fitted_threshold(
    probed: Sample, calibration: Sample, result: ConfigurationResult
) -> None:
    def thresholds(result: ConfigurationResult) -> list[float | None]:
        return [each.threshold for each in result.thresholds if each.origin != "given"]

    assert thresholds(measure(sample_of(12, 10, 150, seed=5), calibration)) == thresholds(result)
    moved = thresholds(measure(probed, sample_of(30, 20, 0, seed=6)))
    assert [a == b for a, b in zip(moved, thresholds(result), strict=True)] == [False, False, False, True]
    assert moved[3] is None  # for FMR 0.0001 they are too few either way


@pytest.mark.parametrize(
    ("people", "reason"),
    [(0, "no calibration identities"), (1, "no calibration identities"), (4, "of the calibration identities, ")],
)
def test_too_few_calibration_identities_fit_no_threshold_and_the_reason_is_reported(
    people: int, reason: str, probed: Sample
) -> None:
    result = measure(probed, sample_of(people, 2, 0, seed=7) if people else None)
    fitted = [each for each in result.thresholds if each.origin != "given"]
    assert [each.origin for each in fitted] == [
        *("fitted for FPIR 0.1", "fitted for FPIR 0.01"),
        *("fitted for FMR 0.001", "fitted for FMR 0.0001"),
    ]
    for each in fitted:
        assert each.threshold is each.false_negative.value is each.false_positive.value is None
        assert each.reason.startswith(reason)
        assert each.reason == each.false_negative.reason == each.false_positive.reason


# By condition of the picture


def test_rank_1_by_group_is_that_of_a_loop_in_the_order_of_the_angles(probed: Sample) -> None:
    angles = [("+15°", "-15°", "0°", "", "081")[place % 5] for place in range(len(probed.probes))]
    flashes = [f"{place % 3:02d}" for place in range(len(probed.probes))]
    result = measure(probed, None, {"camera angle": angles, "illumination": flashes, "session": [""] * len(angles)})
    assert list(result.breakdown) == ["camera angle", "illumination"]  # nobody's session is known
    assert list(result.breakdown["camera angle"]) == ["-15°", "0°", "+15°", "081"]
    assert list(result.breakdown["illumination"]) == ["00", "01", "02"]
    _, _, ranks, _ = probed.split()  # the mated probes come first
    for kind, values in (("camera angle", angles), ("illumination", flashes)):
        for value, estimate in result.breakdown[kind].items():
            own = [rank == 1 for rank, each in zip(ranks, values, strict=False) if each == value]
            assert (estimate.value, estimate.samples) == (pytest.approx(share(own)), len(own)), (kind, value)


# Histograms and curves


def test_histograms_count_every_comparison_once(probed: Sample, result: ConfigurationResult) -> None:
    mated, impostor, _, _ = probed.split()
    edges = [-1 + 0.02 * place for place in range(101)]
    for name, scores in (("mated", mated), ("non-mated", impostor)):
        counts = result.histograms[name]
        assert counts.sum() == len(scores)
        for place in range(100):
            inside = sum(edges[place] <= score < edges[place + 1] for score in scores)
            assert abs(int(counts[place]) - inside) <= 1  # a score may lie on an edge but for rounding


# Pairs


@pytest.mark.parametrize("seed", range(20))
def test_the_best_threshold_is_a_brute_force_search_s_with_ties(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 30))
    scores = generator.integers(-3, 4, count) / 4  # many are equal
    same = generator.random(count) < generator.random()
    assert best_threshold(scores.astype(np.float32), same) == slow_best_threshold(scores.tolist(), same.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_fold_accuracy_is_that_of_a_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, same = generator.integers(-5, 6, 60) / 8, generator.random(60) < 0.5
    fold = np.repeat(np.arange(4), 15)
    result = fold_accuracy(scores.astype(np.float32), same, fold, Resampling([str(p) for p in range(60)], 100))
    assert result.value == pytest.approx(slow_fold_accuracy(scores.tolist(), same.tolist(), fold.tolist()))


def test_one_fold_leaves_no_others_to_fit_on() -> None:
    result = fold_accuracy(np.array([0.1, 0.9]), np.array([False, True]), np.array([0, 0]), Resampling(["a", "b"], 100))
    assert (result.value, result.reason) == (None, "one fold: no other to fit a threshold on")


def test_metrics_of_pairs_are_those_of_a_loop(probed: Sample) -> None:
    generator = np.random.default_rng(8)
    places = [tuple(map(int, generator.integers(0, limit, 1))) for limit in (12, 120) * 400]
    pairs = [
        Pair(a, b, bool(probed.mates[b] == a), place // 100)
        for place, ((a,), (b,)) in enumerate(zip(places[::2], places[1::2], strict=True))
    ]
    pairs += [Pair(int(probed.mates[b]), b, True, b % 4) for b in range(120)]
    result = of_pairs(
        "name", probed.templates, probed.probes, pairs, Resampling(list(map(str, range(520))), 100), GIVEN
    )
    scores = [float(probed.templates[pair.first] @ probed.probes[pair.second]) for pair in pairs]
    mated = [value for value, pair in zip(scores, pairs, strict=True) if pair.same]
    others = [value for value, pair in zip(scores, pairs, strict=True) if not pair.same]
    (given,) = result.thresholds
    assert (given.kind, given.threshold) == ("verification", GIVEN)
    assert given.false_negative.value == pytest.approx(share([value < GIVEN for value in mated]))
    assert given.false_positive.value == pytest.approx(share([value >= GIVEN for value in others]))
    assert set(result.metrics) == {"tar_at_far_0.001", "tar_at_far_0.0001", "eer", "fold_accuracy"}
    assert result.metrics["tar_at_far_0.001"].value is None  # some 370 impostors
    wanted = slow_fold_accuracy(scores, [pair.same for pair in pairs], [pair.fold for pair in pairs])
    assert result.metrics["fold_accuracy"].value == pytest.approx(wanted, abs=1 / len(pairs))
    assert result.searches is result.identification is None
    assert len(result.cmc) == 0


def test_non_mated_probes_alone_give_no_mated_metric(probed: Sample) -> None:
    strangers = replace(probed, probes=probed.probes[120:], mates=probed.mates[120:])
    result = measure(strangers, None)
    assert result.metrics["rank1"].value is None
    assert result.metrics["eer"].reason == "no mated comparisons"
    assert result.thresholds[-2].false_positive.value is not None  # at the given threshold
