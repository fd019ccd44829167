"""The metrics of ISO/IEC 19795-1 against slow loops and scikit-learn; the bootstrap against closed forms, a bootstrap
that repeats the scores themselves, and the coverage of simulated subjects."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve, top_k_accuracy_score

from earface.metrics import resampling as metrics
from earface.metrics.resampling import LEVEL, Estimate, Resampling, TradeOff, fpir_in_gallery, too_few
from earface.metrics.verification import FEWEST_FALSE_ACCEPTS, equal_error_rate, true_accept_rate
from pipeline.search import search

RATES = [0.1, 0.25]


@dataclass
class Trials:
    """Scores of 12 mated subjects and 8 others, unequally many of each, a score a trial."""

    positive: np.ndarray
    negative: np.ndarray
    subjects: list[str]

    @classmethod
    def random(cls, seed: int, decimals: int = 8, absent: float = 0.0, kind: type = np.float32) -> Trials:
        """absent: the share of mates that are not among the best R."""
        rng = np.random.default_rng(seed)
        of = [*rng.integers(0, 12, 60), *rng.integers(12, 20, 100)]
        level = rng.normal(0, 0.7, 20)[of]  # of a subject
        scores = (rng.normal(size=160) + level).round(decimals).astype(kind)
        positive = (scores[:60] + kind(1.5)).round(decimals)
        positive[rng.random(60) < absent] = -np.inf
        return cls(positive, scores[60:], [f"s{subject}" for subject in of])

    def trade_off(self, resampling: Resampling | None = None) -> TradeOff:
        resampling = resampling or Resampling(self.subjects, 50)
        count = len(self.positive)
        return TradeOff(
            self.positive, np.arange(count), self.negative, np.arange(count, len(self.subjects)), resampling, "searches"
        )

    def repeated(self, resampling: Resampling, replicate: int) -> tuple[np.ndarray, np.ndarray]:
        """Each score as often as a replicate holds its subject."""
        weights = dict(zip(np.unique(self.subjects), resampling.weights[replicate].astype(int), strict=True))
        times = [weights[subject] for subject in self.subjects]
        count = len(self.positive)
        return np.repeat(self.positive, times[:count]), np.repeat(self.negative, times[count:])


def each_once(subjects: list[str]) -> Resampling:
    resampling = Resampling(subjects, 2)
    resampling.weights[:] = 1
    return resampling


def missed(positive: np.ndarray, threshold: float) -> float:
    return sum(not (score >= threshold and score > -np.inf) for score in positive.tolist()) / len(positive)


def matched(negative: np.ndarray, threshold: float) -> float:
    return sum(score >= threshold for score in negative.tolist()) / len(negative)


def missed_at_rate(positive: np.ndarray, negative: np.ndarray, rate: float) -> float:
    """From the strictest threshold down, each just above a score, until too many match."""
    least = 1.0
    for score in sorted(set(negative.tolist()), reverse=True):
        threshold = np.nextafter(score, np.inf)
        if matched(negative, threshold) > rate:
            break
        least = missed(positive, threshold)
    return least


def slow_eer(positive: np.ndarray, negative: np.ndarray) -> float:
    """The lines through both errors at all thresholds, followed until they cross."""
    thresholds = [np.inf, *sorted({*positive.tolist(), *negative.tolist()}, reverse=True)]
    rates = [(matched(negative, threshold), missed(positive, threshold)) for threshold in thresholds]
    for (fp, fn), (next_fp, next_fn) in pairwise(rates):
        if next_fp >= next_fn:
            return fp + (fn - fp) / ((next_fp - fp) + (fn - next_fn)) * (next_fp - fp)
    raise AssertionError("the errors never meet")


# Shares


@pytest.mark.parametrize("chosen", [0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_share_and_its_replicates_are_those_of_a_loop_over_trials(seed: int, chosen: float) -> None:
    rng = np.random.default_rng(seed)
    subjects = [f"s{number}" for number in rng.integers(0, 9, 80)]
    events, trials = rng.random(80) < 0.6, rng.random(80) < chosen
    resampling = Resampling(subjects, 20, seed)
    estimate = resampling.share(events, None if chosen == 1 else trials)

    def share(weight: dict[str, float]) -> float:
        of = [(weight[subject], event) for subject, event, own in zip(subjects, events, trials, strict=True) if own]
        return sum(times * event for times, event in of) / sum(times for times, _ in of)

    names = sorted(set(subjects))
    assert estimate.value == pytest.approx(share(dict.fromkeys(names, 1.0)), abs=1e-12)
    expected = [share(dict(zip(names, weights, strict=True))) for weights in resampling.weights.tolist()]
    assert estimate.replicates == pytest.approx(expected, abs=1e-12)
    assert estimate.samples == trials.sum()


@pytest.mark.filterwarnings("error")
def test_a_replicate_without_any_subject_that_counts_is_left_out() -> None:
    resampling = Resampling([str(number) for number in range(30)], 200)
    estimate = resampling.share(np.arange(30) == 3, np.isin(np.arange(30), [3, 5]))
    first, second = resampling.weights[:, [23, 25]].T  # "3" and "5" among the sorted names
    known = first + second > 0
    assert 0 < known.sum() < 200
    assert np.isnan(estimate.replicates[~known]).all()
    assert estimate.replicates[known] == pytest.approx(first[known] / (first + second)[known])
    assert estimate.interval() == pytest.approx(tuple(np.quantile(estimate.replicates[known], [0.025, 0.975])))


@pytest.mark.parametrize("rank", [1, 3, 11])
def test_the_shares_of_a_cmc_are_scikit_learns_top_k_accuracy(rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randn(12, 6, generator=generator)
    mates = np.random.default_rng(0).integers(0, 12, 90)
    probes = gallery[mates] + 2 * torch.randn(90, 6, generator=generator)
    found = search(probes, mates, gallery)
    estimate = Resampling([str(own) for own in mates], 2).share(found.rank <= rank, found.rank > 0)
    scores = (probes @ gallery.T).numpy()
    assert estimate.value == pytest.approx(top_k_accuracy_score(mates, scores, k=rank, labels=range(12)), abs=1e-12)


def test_a_mate_with_the_same_score_as_another_is_not_at_rank_1() -> None:
    same = torch.ones(3, 4)
    found = search(same, np.arange(3), same)
    ranks = [Resampling(["a", "b", "c"]).share(found.rank <= rank).value for rank in (1, 2, 3)]
    assert ranks == [0, 0, 1]


# Errors at a threshold


@pytest.mark.parametrize("threshold", [-np.inf, -1.0, 0.0, 0.4, 0.5, 1.2, 99.0])
@pytest.mark.parametrize("decimals", [1, 8])  # 1: many scores are equal, also to the threshold
@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_errors_at_a_threshold_and_their_replicates_are_those_of_a_loop(
    absent: float, decimals: int, threshold: float
) -> None:
    trials = Trials.random(1, decimals, absent)
    resampling = Resampling(trials.subjects, 15)
    negatives, positives = trials.trade_off(resampling).at(threshold)
    assert negatives.value == pytest.approx(missed(trials.positive, threshold), abs=1e-12)
    assert positives.value == pytest.approx(matched(trials.negative, threshold), abs=1e-12)
    repeated = [trials.repeated(resampling, number) for number in range(15)]
    assert negatives.replicates == pytest.approx([missed(own, threshold) for own, _ in repeated], abs=1e-12)
    assert positives.replicates == pytest.approx([matched(own, threshold) for _, own in repeated], abs=1e-12)
    assert (negatives.samples, positives.samples) == (60, 100)


@pytest.mark.parametrize("decimals", [1, 8])
def test_errors_of_comparisons_are_scikit_learns_roc_curve(decimals: int) -> None:
    trials = Trials.random(2, decimals)
    scores = np.concatenate([trials.positive, trials.negative])
    false_match, true_match, thresholds = roc_curve(np.arange(160) < 60, scores, drop_intermediate=False)
    found = [[estimate.value for estimate in trials.trade_off().at(threshold)] for threshold in thresholds]
    assert np.array(found) == pytest.approx(np.stack([1 - true_match, false_match], axis=1), abs=1e-12)


def test_without_a_threshold_the_mates_that_are_not_among_the_best_are_missed() -> None:
    trials = Trials.random(0, absent=0.3)
    absent = np.isneginf(trials.positive)
    assert 0 < absent.mean() < 1
    assert trials.trade_off().at(-np.inf)[0].value == pytest.approx(absent.mean(), abs=1e-12)


# Errors at a rate


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("absent", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(2))
def test_false_negatives_at_a_rate_and_their_replicates_are_those_of_a_sweep(
    seed: int, absent: float, decimals: int, rate: float
) -> None:
    """The threshold is chosen anew from the scores that a replicate holds."""
    trials = Trials.random(seed, decimals, absent)
    resampling = Resampling(trials.subjects, 15, seed)
    estimate = trials.trade_off(resampling).false_negatives_at_rate(rate)
    assert estimate.value == pytest.approx(missed_at_rate(trials.positive, trials.negative, rate), abs=1e-12)
    expected = [missed_at_rate(*trials.repeated(resampling, number), rate) for number in range(15)]
    assert estimate.replicates == pytest.approx(expected, abs=1e-12)
    assert estimate.samples == 60


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("decimals", [1, 8])
def test_false_non_matches_at_a_rate_are_what_the_true_accept_rate_leaves(decimals: int, rate: float) -> None:
    rng = np.random.default_rng(0)
    genuine, impostor = (rng.normal(size=300) + 2).round(decimals), rng.normal(size=20_000).round(decimals)
    resampling = Resampling(["a"] * 20_000, 1)
    trade_off = TradeOff(genuine, np.arange(300), impostor, np.arange(20_000), resampling)
    accepted = true_accept_rate(genuine, impostor, rate)
    assert trade_off.false_negatives_at_rate(rate).value == pytest.approx(1 - accepted, abs=1e-12)


def test_replicates_of_many_scores_are_near_those_of_a_sweep() -> None:
    """More scores than thresholds of the curve."""
    rng = np.random.default_rng(0)
    of = np.sort(rng.integers(0, 10, 33_000))
    scores = rng.normal(size=33_000) + rng.normal(0, 0.3, 10)[of]
    own = rng.random(33_000) < 1 / 11
    resampling = Resampling([str(number) for number in of], 30)
    trade_off = TradeOff(scores[own] + 2, np.flatnonzero(own), scores[~own], np.flatnonzero(~own), resampling)
    estimate, equal = trade_off.false_negatives_at_rate(0.001), trade_off.equal_error_rate()
    assert estimate.replicates is not None
    assert equal.replicates is not None
    for number, weights in enumerate(resampling.weights.astype(int)):
        genuine, impostor = (np.repeat(scores[which], weights[of[which]]) for which in (own, ~own))
        accepted = true_accept_rate(genuine + 2, impostor, 0.001)
        assert estimate.replicates[number] == pytest.approx(1 - accepted, abs=0.003)
        assert equal.replicates[number] == pytest.approx(equal_error_rate(genuine + 2, impostor), abs=1e-3)


def test_a_replicate_full_of_the_highest_negatives_still_has_a_threshold_above_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the lowest rate of the curve's thresholds is that of several scores, as it is of millions."""
    monkeypatch.setattr(metrics, "LOWEST_RATE", 0.02)
    negative, positive = np.linspace(1, 0, 200), np.linspace(0.5, 1.4, 10)
    resampling = Resampling(["highest"] * 5 + ["lower"] * 195 + ["mated"] * 10, 1)
    resampling.weights[:] = [[1e6, 1, 1]]
    trade_off = TradeOff(positive, np.arange(200, 210), negative, np.arange(200), resampling)
    trade_off.several = True  # one mated subject is enough here
    assert trade_off.false_negatives_at_rate(0.1).replicates == pytest.approx([(positive <= 1).mean()])


# The equal error rate


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_the_equal_error_rate_and_its_replicates_are_those_of_a_sweep(seed: int, decimals: int) -> None:
    trials = Trials.random(seed, decimals)
    resampling = Resampling(trials.subjects, 15, seed)
    estimate = trials.trade_off(resampling).equal_error_rate()
    assert estimate.value == equal_error_rate(trials.positive, trials.negative)
    expected = [slow_eer(*trials.repeated(resampling, number)) for number in range(15)]
    assert estimate.replicates == pytest.approx(expected, abs=1e-9)
    assert estimate.samples == 60


def test_an_equal_error_rate_is_not_that_of_mates_without_a_score() -> None:
    with pytest.raises(ValueError, match="infinity"):
        Trials.random(0, absent=0.3).trade_off().equal_error_rate()


# What the bootstrap is


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_a_replicate_that_holds_every_subject_once_is_the_value(seed: int, decimals: int) -> None:
    trials = Trials.random(seed, decimals)
    resampling = each_once(trials.subjects)
    trade_off = trials.trade_off(resampling)
    events = np.random.default_rng(seed).random(160) < 0.3
    estimates = [resampling.share(events), *trade_off.at(0.5), trade_off.equal_error_rate()]
    estimates += [trade_off.false_negatives_at_rate(rate) for rate in RATES]
    for estimate in estimates:
        assert estimate.replicates == pytest.approx([estimate.value] * 2, abs=1e-12)


def test_a_replicate_holds_as_many_subjects_as_there_are_each_as_likely() -> None:
    weights = Resampling([*"abcdefgh", *"aaaaaaaa"], 4000).weights
    assert weights.shape == (4000, 8)
    assert (weights.sum(axis=1) == 8).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(8), abs=5 * (7 / 8 / 4000) ** 0.5)  # however many trials
    assert weights.var(axis=0) == pytest.approx(np.full(8, 7 / 8), rel=0.15)


def test_replicates_follow_the_seed_and_not_the_order_of_the_trials() -> None:
    rng = np.random.default_rng(0)
    subjects, events, order = rng.choice(list("abcdefg"), 50), rng.random(50) < 0.5, rng.permutation(50)
    one, shuffled, other = (
        Resampling(subjects[places].tolist(), 30, seed).share(events[places]).replicates.tolist()
        for places, seed in ((np.arange(50), 1), (order, 1), (np.arange(50), 2))
    )
    assert one == shuffled != other


def test_the_standard_error_of_a_mean_of_shares_is_the_closed_form() -> None:
    """Of equally many trials of each subject: that of a mean of independent subjects, sqrt(sum (x - m)^2) / S."""
    rng = np.random.default_rng(0)
    events = rng.random((25, 8)) < rng.beta(1, 1, (25, 1))
    shares = events.mean(axis=1)
    estimate = Resampling(np.repeat(np.arange(25), 8).astype(str).tolist(), 20_000).share(events.ravel())
    assert np.std(estimate.replicates) == pytest.approx(np.sqrt(np.square(shares - shares.mean()).sum()) / 25, rel=0.03)


def test_intervals_hold_the_rate_of_subjects_whose_trials_go_together() -> None:
    """1000 tests of 40 subjects with a rate of their own, .3 on average. As if trials were independent: too narrow."""
    rng = np.random.default_rng(0)
    resampling = Resampling(np.repeat(np.arange(40), 12).astype(str).tolist(), 2000)
    held, held_if_independent = 0, 0
    for _ in range(1000):
        estimate = resampling.share((rng.random((40, 12)) < rng.beta(0.6, 1.4, (40, 1))).ravel())
        low, high = estimate.interval()
        held += low <= 0.3 <= high
        error = 1.96 * (estimate.value * (1 - estimate.value) / 480) ** 0.5
        held_if_independent += abs(estimate.value - 0.3) <= error
    assert 0.91 < held / 1000 < 0.97  # a little under .95, as percentiles of 40 subjects are
    assert held_if_independent / 1000 < 0.75


def test_intervals_of_false_negatives_at_a_rate_hold_the_true_one() -> None:
    """200 tests with normal scores and normal subjects. At rate .1 of N(0, 1.25) false negatives are Phi(z - d)."""
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(40), 20)
    resampling, spread = Resampling(of.astype(str).tolist(), 200), 1.25**0.5
    mated, held = of < 20, 0
    for _ in range(200):
        scores = rng.normal(size=800) + rng.normal(0, 0.5, 40)[of]
        positive = scores[mated] + 1.2815515655 * spread  # of whom half are above the threshold of .1
        trade_off = TradeOff(positive, np.flatnonzero(mated), scores[~mated], np.flatnonzero(~mated), resampling)
        low, high = trade_off.false_negatives_at_rate(0.1).interval()
        held += low <= 0.5 <= high
    assert 0.88 < held / 200 < 0.99


@pytest.mark.parametrize("correlated", [True, False])
def test_the_difference_of_two_rows_has_the_error_of_paired_shares(correlated: bool) -> None:
    """The closed form on the differences of each subject; what both rows get wrong cancels."""
    rng = np.random.default_rng(0)
    first = rng.random((40, 10)) < rng.beta(0.5, 0.5, (40, 1))
    second = first ^ (rng.random((40, 10)) < 0.03) if correlated else rng.permutation(first)
    resampling = Resampling(np.repeat(np.arange(40), 10).astype(str).tolist(), 20_000)
    one, other = (resampling.share(events.ravel()) for events in (first, second))
    difference = one - other
    paired = first.mean(axis=1) - second.mean(axis=1)
    assert difference.value == pytest.approx(paired.mean(), abs=1e-12)
    error = np.sqrt(np.square(paired - paired.mean()).sum()) / 40
    assert np.std(difference.replicates) == pytest.approx(error, rel=0.03)
    widths = [high - low for low, high in (estimate.interval() for estimate in (difference, one, other))]
    apart = np.hypot(*widths[1:])  # of two rows that were measured with different people
    assert widths[0] < 0.25 * apart if correlated else widths[0] > 0.8 * apart


# Intervals


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_an_interval_is_the_middle_of_the_replicates(level: float) -> None:
    replicates = np.random.default_rng(0).permutation(np.linspace(0, 1, 1001))
    assert Estimate(0.4, replicates).interval(level) == pytest.approx((0.5 - level / 2, 0.5 + level / 2), abs=1e-9)


@pytest.mark.parametrize(("lost", "known"), [(49, True), (50, False), (100, False)])
def test_an_interval_takes_more_than_half_of_the_replicates(lost: int, known: bool) -> None:
    """A replicate without any subject that counts is NaN."""
    replicates = np.linspace(0, 1, 100)
    replicates[:lost] = np.nan
    assert (Estimate(0.4, replicates).interval() is not None) == known


@pytest.mark.parametrize("replicates", [np.empty(0), np.zeros(100), None])
def test_replicates_that_never_differ_give_no_interval(replicates: np.ndarray | None) -> None:
    """No errors of ten people: up to three in ten may make them. An interval of no width would say that none does."""
    assert Estimate(0.0, replicates).interval() is None


def test_one_subject_has_values_and_no_intervals() -> None:
    trials = Trials.random(0)
    for subjects in (["a"] * 160, ["a"] * 60 + ["b"] * 100):
        resampling = Resampling(subjects, 30)
        trade_off = trials.trade_off(resampling)
        estimates = [resampling.share(trials.subjects == np.array("s3"), np.arange(160) < 60), *trade_off.at(0.5)]
        estimates += [trade_off.false_negatives_at_rate(0.1), trade_off.equal_error_rate()]
        assert [(estimate.replicates, estimate.interval()) for estimate in estimates] == [(None, None)] * 5
        assert all(0 < estimate.value < 1 for estimate in estimates)
        assert np.isnan(trade_off.curve().band).all()


def test_without_replicates_there_are_values_and_no_intervals() -> None:
    trials = Trials.random(0)
    trade_off = trials.trade_off(Resampling(trials.subjects, 0))
    estimate = trade_off.false_negatives_at_rate(0.1)
    assert estimate.value == missed_at_rate(trials.positive, trials.negative, 0.1)
    assert estimate.interval() is None
    assert np.isnan(trade_off.curve().band).all()


# Insufficient data


@pytest.mark.parametrize("subjects", [[], ["a", "b"]])
def test_the_share_of_no_trials_is_not_told(subjects: list[str]) -> None:
    none = np.zeros(len(subjects), bool)
    estimate = Resampling(subjects).share(none, none)
    assert (estimate.value, estimate.interval(), estimate.reason) == (None, None, "no such searches")


@pytest.mark.parametrize(
    ("mated", "others", "reason"),
    [(0, 5, "no mated searches"), (5, 0, "no non-mated searches"), (0, 0, "no mated and no non-mated searches")],
)
def test_figures_of_no_scores_are_not_told(mated: int, others: int, reason: str) -> None:
    trials = Trials(np.zeros(mated), np.zeros(others), [str(number) for number in range(mated + others)])
    trade_off = trials.trade_off()
    for estimate in (trade_off.false_negatives_at_rate(0.1), trade_off.equal_error_rate()):
        assert (estimate.value, estimate.interval(), estimate.reason) == (None, None, reason)
    for estimate, count in zip(trade_off.at(0.0), (mated, others), strict=True):
        assert (estimate.value is None, estimate.reason) == (count == 0, "" if count else reason)
    assert trade_off.curve() is None


def test_a_rate_that_too_few_scores_decide_is_not_told() -> None:
    trials = Trials.random(0)
    trade_off = trials.trade_off()
    assert trade_off.false_negatives_at_rate(0.1).value is not None  # 10 of 100
    estimate = trade_off.false_negatives_at_rate(0.0999)
    assert (estimate.value, estimate.interval()) == (None, None)
    assert estimate.reason == "0.0999 of 100 non-mated searches are 9, fewer than 10"
    assert FEWEST_FALSE_ACCEPTS == 10


def test_the_reason_never_names_as_many_as_are_wanted() -> None:
    assert too_few(9_999, "comparisons", 0.001) == "0.001 of 9,999 non-mated comparisons are 9, fewer than 10"


def test_a_difference_from_a_figure_that_is_not_told_has_its_reason() -> None:
    known, other = Estimate(0.5, np.array([0.4, 0.6])), Estimate(None, reason="no such searches")
    for estimate in (known - other, other - known):
        assert (estimate.value, estimate.interval(), estimate.reason) == (None, None, "no such searches")
    alone = known - Estimate(0.2)
    assert (alone.value, alone.interval()) == (pytest.approx(0.3), None)


@pytest.mark.parametrize("rate", [0.0, 1.0, 1.5, -0.1, np.nan])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Trials.random(0).trade_off().false_negatives_at_rate(rate)


@pytest.mark.parametrize(("kind", "value"), [(0, np.nan), (0, np.inf), (1, np.nan), (1, np.inf), (1, -np.inf)])
def test_scores_that_are_no_numbers_are_refused(kind: int, value: float) -> None:
    """NaN would count as the highest: a mate that is always found."""
    trials = Trials.random(0)
    (trials.positive, trials.negative)[kind][3] = value
    with pytest.raises(ValueError, match="finite"):
        trials.trade_off()


# Equal scores, kinds of number


def test_of_one_score_for_all_everybody_matches_or_nobody() -> None:
    trials = Trials(np.full(60, 0.5), np.full(100, 0.5), Trials.random(0).subjects)
    trade_off = trials.trade_off()
    assert trade_off.equal_error_rate().value == pytest.approx(0.5)
    assert trade_off.false_negatives_at_rate(0.25).value == 1.0
    assert [estimate.value for estimate in trade_off.at(0.5)] == [0.0, 1.0]
    curve = trade_off.curve()
    assert (curve.false_positive.tolist(), curve.false_negative.tolist()) == ([1.0, 0.0], [0.0, 1.0])


@pytest.mark.parametrize("kinds", [(np.float32, np.float64), (np.float64, np.float32)])
def test_scores_of_both_kinds_are_compared_without_rounding(kinds: tuple[type, type]) -> None:
    """float32(0.7) is less than 0.7, float32(0.1) is more than 0.1."""
    for score in (0.1, 0.7):
        negative = np.concatenate([np.full(90, -1), np.full(11, score)]).astype(kinds[1])
        positive = np.full(5, score, kinds[0])
        trials = Trials(positive, negative, [str(number) for number in range(106)])
        expected = float(float(positive[0]) <= float(negative[-1]))
        estimate = trials.trade_off(each_once(trials.subjects)).false_negatives_at_rate(0.1)
        assert estimate.value == expected
        assert estimate.replicates == pytest.approx([expected] * 2)


# Curves


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_a_curve_runs_over_all_rates_and_is_monotone(absent: float, decimals: int) -> None:
    curve = Trials.random(0, decimals, absent).trade_off().curve()
    assert (np.diff(curve.thresholds) > 0).all()
    assert (np.diff(curve.false_positive) <= 0).all()
    assert (np.diff(curve.false_negative) >= 0).all()
    assert (curve.false_positive[0], curve.false_positive[-1]) == (1.0, 0.0)


@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_a_curve_holds_the_errors_at_its_thresholds(absent: float) -> None:
    trials = Trials.random(0, 1, absent)
    curve = trials.trade_off().curve()
    assert curve.false_negative == pytest.approx([missed(trials.positive, one) for one in curve.thresholds], abs=1e-12)
    assert curve.false_positive == pytest.approx([matched(trials.negative, one) for one in curve.thresholds], abs=1e-12)


def test_a_curve_is_drawn_as_finely_at_rare_false_positives_as_at_common_ones() -> None:
    trials = Trials(np.full(2, 2.0), np.random.default_rng(0).random(50_000), ["mated"] * 2 + ["other"] * 50_000)
    rates = trials.trade_off(Resampling(trials.subjects, 1)).curve().false_positive
    points, _ = np.histogram(rates, 10.0 ** np.arange(-3, 1))
    assert (points > 60).all()


def test_the_band_of_a_curve_is_the_interval_at_its_rates_and_lies_around_it() -> None:
    trials = Trials.random(0)
    trade_off = trials.trade_off(Resampling(trials.subjects, 400))
    curve = trade_off.curve()
    first = np.unique(curve.false_positive, return_index=True)[1]  # the lowest threshold of each rate
    low, high = curve.band[:, first]
    assert (low <= curve.false_negative[first]).all()
    assert (curve.false_negative[first] <= high).all()
    for rate in RATES:
        (place,) = np.flatnonzero(curve.false_positive[first] == rate)
        assert trade_off.false_negatives_at_rate(rate).interval(LEVEL) == pytest.approx((low[place], high[place]))


@pytest.mark.parametrize(("nobody", "known"), [(1, True), (2, False)])
def test_a_band_takes_more_than_half_of_the_replicates(nobody: int, known: bool) -> None:
    trials = Trials.random(0)
    resampling = Resampling(trials.subjects, 4)
    resampling.weights[:nobody] = 0
    assert np.isfinite(trials.trade_off(resampling).curve().band).all() == known


# FPIR in galleries of other sizes


def test_the_fpir_in_another_gallery_is_that_of_simulated_searches() -> None:
    """The best of N independent scores, at the threshold that one in fifty reaches in a gallery of 100."""
    scores = np.random.default_rng(0).random((20_000, 400), dtype=np.float32)
    threshold = np.quantile(scores[:, :100].max(axis=1), 0.98)
    for size in (25, 100, 400):
        measured = (scores[:, :size].max(axis=1) >= threshold).mean()
        assert fpir_in_gallery(0.02, 100, size) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("rate", [0.0, 1e-12, 0.02, 1.0])
def test_the_fpir_in_a_gallery_of_one_is_that_of_a_comparison(rate: float) -> None:
    assert fpir_in_gallery(rate, 1, 3) == pytest.approx(1 - (1 - rate) ** 3, rel=1e-3, abs=1e-15)
    assert fpir_in_gallery(fpir_in_gallery(rate, 7, 900), 900, 7) == pytest.approx(rate, rel=1e-9, abs=0)
