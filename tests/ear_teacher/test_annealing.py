import math
import warnings

import pytest

from ear_teacher.annealing import KLAnnealing, cosine_ramp, cyclic_ramp
from earface.core.errors import InputError

STRATEGIES = ["threshold", "epoch", "linear", "monotonic", "cyclic", "none"]


def curve(annealing, points):
    return [annealing.weight_at(point) for point in points]


def test_epoch_rises_straight_over_its_epochs_within_an_epoch_too():
    annealing = KLAnnealing("epoch", weight=0.02, total_epochs=60, epochs=10)
    # weight * progress / 10, from 10 on the weight itself
    assert curve(annealing, [0, 2.5, 5, 9.75, 10, 60]) == pytest.approx([0, 0.005, 0.01, 0.0195, 0.02, 0.02])


def test_linear_and_monotonic_take_the_whole_run():
    points = [0, 20, 40, 60, 80, 100]
    linear = KLAnnealing("linear", weight=1.0, total_epochs=80, epochs=10)
    assert curve(linear, points) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    monotonic = KLAnnealing("monotonic", weight=1.0, total_epochs=80, epochs=10)
    # (1 - cos(pi x)) / 2 at a quarter, a half, three quarters: (1 - sqrt(1/2)) / 2, 1/2, (1 + sqrt(1/2)) / 2
    root = math.sqrt(0.5)
    assert curve(monotonic, points) == pytest.approx([0, (1 - root) / 2, 0.5, (1 + root) / 2, 1, 1])


def test_cyclic_is_the_reference_guides_example():
    annealing = KLAnnealing("cyclic", weight=0.00025, total_epochs=200, cycles=4, ratio=0.5)
    # Cycles of 50 epochs: up over 25, level over 25, then from 0 again; the run ends level.
    expected = {
        0: 0,
        12.5: 0.5,
        25: 1,
        40: 1,
        49.9: 1,
        50: 0,
        62.5: 0.5,
        75: 1,
        99: 1,
        100: 0,
        187.5: 1,
        200: 1,
        210: 1,
    }
    assert curve(annealing, expected) == pytest.approx([0.00025 * factor for factor in expected.values()])


@pytest.mark.parametrize(("ratio", "factor"), [(0.0, 1.0), (0.25, 1.0), (1.0, 0.4)])
def test_cyclic_ratio_is_the_rising_part_of_a_cycle(ratio, factor):
    assert cyclic_ramp(0.2, cycles=2, ratio=ratio) == pytest.approx(factor)  # .2 of the run is .4 of its first half


def test_start_and_end_are_multipliers_of_the_weight():
    annealing = KLAnnealing("epoch", weight=10.0, total_epochs=20, epochs=10, start=0.1, end=0.8)
    # 10 * (.1 + .7 * progress / 10)
    assert curve(annealing, [0, 5, 10, 15]) == pytest.approx([1.0, 4.5, 8.0, 8.0])
    assert annealing.final_weight == pytest.approx(8.0)


def test_a_ramp_may_fall():
    annealing = KLAnnealing("epoch", weight=1.0, total_epochs=20, epochs=10, start=2.0, end=1.0)
    assert curve(annealing, [0, 5, 10]) == pytest.approx([2.0, 1.5, 1.0])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_zero_epochs_fix_the_weight_at_its_end(strategy):
    annealing = KLAnnealing(strategy, weight=0.5, total_epochs=10, epochs=0, start=0.1, end=0.8)
    assert curve(annealing, [0, 0.1, 7, 10]) == [0.4] * 4
    assert not annealing.is_warming_up(0)
    assert annealing.observe_validation(0, 50.0) is None


def test_none_fixes_the_weight_at_its_end():
    annealing = KLAnnealing("none", weight=0.5, total_epochs=10, end=0.8)
    assert curve(annealing, [0, 5]) == [0.4, 0.4]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_ramp_ends_at_the_final_weight(strategy):
    annealing = KLAnnealing(strategy, weight=0.3, total_epochs=60, end=0.9, latest_epoch=20)
    assert annealing.weight_at(60) == pytest.approx(annealing.final_weight)
    assert not annealing.is_warming_up(60)


def test_threshold_starts_in_the_epoch_after_the_psnr_was_reached_and_only_once():
    annealing = KLAnnealing("threshold", weight=0.01, total_epochs=60, epochs=10, threshold_psnr=24.0)
    assert curve(annealing, [0, 30, 59]) == [0, 0, 0]
    assert annealing.observe_validation(0, 23.99) is None
    assert annealing.observe_validation(1, math.nan) is None
    line = annealing.observe_validation(2, 24.0)
    assert line is not None
    assert "epoch 3" in line
    assert curve(annealing, [3, 3.5, 8, 13, 40]) == pytest.approx([0, 0.0005, 0.005, 0.01, 0.01])
    assert annealing.observe_validation(7, 30.0) is None
    assert annealing.weight_at(8) == pytest.approx(0.005)


def test_threshold_starts_at_the_latest_epoch_with_one_warning():
    annealing = KLAnnealing("threshold", weight=1.0, total_epochs=60, epochs=10, latest_epoch=5)
    for epoch in range(4):
        assert annealing.observe_validation(epoch, 10.0) is None
    with pytest.warns(UserWarning, match=r"epoch 5 .*10\.00 dB has not reached 24 dB"):
        assert annealing.observe_validation(4, 10.0) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert annealing.observe_validation(5, 10.0) is None
    assert curve(annealing, [5, 10, 15]) == pytest.approx([0, 0.5, 1])


def test_the_latest_epoch_holds_where_validation_is_rare_or_comes_late():
    annealing = KLAnnealing("threshold", weight=1.0, total_epochs=60, epochs=10, latest_epoch=5)
    assert annealing.weight_at(10) == pytest.approx(0.5)
    with pytest.warns(UserWarning, match="epoch 5"):
        annealing.observe_validation(9, 30.0)  # reached by then, but the ramp has begun
    assert annealing.weight_at(10) == pytest.approx(0.5)


def test_psnr_reached_in_the_last_possible_epoch_is_no_warning():
    annealing = KLAnnealing("threshold", weight=1.0, total_epochs=60, latest_epoch=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert annealing.observe_validation(4, 24.5) is not None
    assert annealing.start_epoch == 5


@pytest.mark.parametrize("reached", [False, True])
def test_a_threshold_resumes_from_plain_numbers(reached):
    before = KLAnnealing("threshold", weight=1.0, total_epochs=60)
    if reached:
        before.observe_validation(6, 25.0)
    state = before.state_dict()
    assert all(type(value) is int for value in state.values())
    after = KLAnnealing("threshold", weight=1.0, total_epochs=60)
    after.load_state_dict(state)
    assert curve(after, [7, 12, 30]) == curve(before, [7, 12, 30])
    assert (after.observe_validation(7, 25.0) is None) == reached


def test_other_strategies_do_not_look_at_the_psnr():
    annealing = KLAnnealing("epoch", weight=1.0, total_epochs=60, latest_epoch=0)
    assert annealing.observe_validation(0, 50.0) is None
    assert annealing.state_dict() == {"start_epoch": -1}


@pytest.mark.parametrize(
    ("strategy", "last_warm", "first_cold"),
    # cyclic: 60 epochs in 4 cycles, half of each rising: 7.5. linear and monotonic end with the run.
    [("epoch", 9.9, 10), ("linear", 59.9, 60), ("monotonic", 59.5, 60), ("cyclic", 7.4, 7.5)],
)
def test_warming_up_until_the_first_ramp_is_over(strategy, last_warm, first_cold):
    annealing = KLAnnealing(strategy, weight=1.0, total_epochs=60)
    assert annealing.is_warming_up(0)
    assert annealing.is_warming_up(last_warm)
    assert not annealing.is_warming_up(first_cold)


def test_later_cycles_are_no_warm_up():
    annealing = KLAnnealing("cyclic", weight=1.0, total_epochs=60)
    assert annealing.weight_at(17) < 1
    assert not annealing.is_warming_up(17)


def test_a_threshold_warms_up_until_its_ramp_is_over():
    annealing = KLAnnealing("threshold", weight=1.0, total_epochs=60, epochs=10)
    assert annealing.is_warming_up(59)
    annealing.observe_validation(2, 25.0)
    assert annealing.is_warming_up(12.9)
    assert not annealing.is_warming_up(13)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("strategy", "cosine", "`kl_anneal_strategy` 'cosine': choose one of threshold, epoch, linear"),
        ("weight", -1.0, "`kl_weight` -1.0: must be at least 0"),
        ("weight", math.nan, "`kl_weight` nan"),
        ("start", -0.1, "`kl_anneal_start` -0.1: must be at least 0"),
        ("end", math.inf, "`kl_anneal_end` inf"),
        ("epochs", -1, "`kl_anneal_epochs` -1: must be at least 0"),
        ("cycles", 0, "`kl_anneal_cycles` 0: must be at least 1"),
        ("ratio", 1.5, "`kl_anneal_ratio` 1.5: must be above 0 and at most 1"),
        ("threshold_psnr", -3.0, "`kl_anneal_threshold_psnr` -3.0: must be at least 0"),
        ("latest_epoch", -1, "`kl_anneal_latest_epoch` -1: must be at least 0"),
        ("total_epochs", 0, "`epochs` 0: must be at least 1"),
    ],
)
def test_values_out_of_range_name_option_and_range(field, value, message):
    arguments = {"strategy": "epoch", "weight": 1.0, "total_epochs": 60, field: value}
    with pytest.raises(InputError) as caught:
        KLAnnealing(**arguments)
    assert message in str(caught.value)


def test_cosine_ramp_is_flat_at_both_ends():
    assert cosine_ramp(0.01) < 0.001
    assert cosine_ramp(0.99) > 0.999
    assert cosine_ramp(-1) == 0
    assert cosine_ramp(2) == 1
