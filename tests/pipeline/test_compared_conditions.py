"""What compares the conditions of an evaluation: curves over them, faces shown under all, what quality rejects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from earface.data.face_rows import FaceRow
from earface.data.vlr_rule import Movement
from earface.metrics.error_reject import error_reject
from earface.metrics.resampling import Estimate, Resampling
from pipeline.configuration_metrics import ConfigurationResult
from pipeline.configurations import Condition
from pipeline.ear_configurations import EarCondition
from pipeline.evaluation import ConditionResult
from pipeline.over_conditions import axes_of, draw_over_conditions
from pipeline.protocol import Enrolment
from pipeline.rejected import rejected
from pipeline.search import Searches
from pipeline.stages import staged_faces

FNIR = "fnir_at_fpir_0.1"


def configuration(name: str, searches: Searches | None = None, **metrics: Estimate) -> ConfigurationResult:
    return ConfigurationResult(name, metrics, [], np.empty(0), None, None, {}, {}, searches)


def under(condition: Any, *results: ConfigurationResult) -> ConditionResult:
    return ConditionResult(condition, [], list(results), [], [])


def estimate(value: float) -> Estimate:
    return Estimate(value, value + 0.1 * np.linspace(-1, 1, 101), 50)


def found_under(condition: Condition, value: float, fnir: float | None = 0.5) -> ConditionResult:
    metrics = {"rank1": estimate(value), FNIR: Estimate(None, reason="few") if fnir is None else estimate(fnir)}
    hr = {"rank1": estimate(0.9), FNIR: estimate(0.2)}
    return under(condition, configuration("HR", **hr), configuration("DSR + pretrained", **metrics))


# Curves


def test_aligned_faces_are_compared_over_their_size_and_moved_ones_over_the_movement() -> None:
    aligned = [Condition(size, "bicubic") for size in ("32", "14x16", "24")]
    moved = [Condition("24", "bicubic", Movement("shift", amount)) for amount in (2.0, 0.5)]
    others = [Condition("16", "realistic"), Condition("16", "area", Movement("turn", 5.0)), EarCondition("stretch")]
    results = [found_under(each, 0.1 * place) for place, each in enumerate([*aligned, *moved, *others])]  # type: ignore[arg-type]
    size, shift = axes_of(results)
    assert (size.name, shift.name) == ("size_bicubic", "shift_24_bicubic")
    assert [(round(x, 1), y.value) for x, y in size.lines("rank1")["DSR + pretrained"]] == [
        (15.0, 0.1),
        (24.0, 0.2),
        (32.0, 0.0),
    ]
    assert [(x, y.value) for x, y in shift.lines("rank1")["DSR + pretrained"]] == [
        (0.0, 0.2),
        (0.5, pytest.approx(0.4)),
        (2.0, pytest.approx(0.3)),
    ]
    assert set(draw_over_conditions(results)) == {
        "over_size_bicubic_rank1",
        f"over_size_bicubic_{FNIR}",
        "over_shift_24_bicubic_rank1",
    }


def test_a_plot_has_the_values_with_their_intervals_and_hr_as_a_level() -> None:
    values = {"16": 0.4, "24": 0.7, "32": 0.8}
    results = [found_under(Condition(size, "bicubic"), value) for size, value in values.items()]
    (axes,) = draw_over_conditions(results)["over_size_bicubic_rank1"].axes
    (drawn,) = axes.containers
    line, _, (bars,) = drawn.lines  # type: ignore[attr-defined]
    assert line.get_ydata() == pytest.approx(list(values.values()))
    ends = [sorted(segment[:, 1]) for segment in bars.get_segments()]
    assert ends == [pytest.approx(estimate(value).interval()) for value in values.values()]
    level = next(each for each in axes.lines if each.get_label() == "HR")
    assert list(level.get_ydata()) == [0.9, 0.9]  # type: ignore[arg-type]


def test_where_there_are_insufficient_data_a_line_has_no_point_and_a_plot_is_missing() -> None:
    sizes = [Condition(size, "bicubic") for size in ("16", "24")]
    some = [found_under(sizes[0], 0.4, None), found_under(sizes[1], 0.6)]
    assert [x for x, _ in axes_of(some)[0].lines(FNIR)["DSR + pretrained"]] == [24.0]
    none = [under(size, configuration("HR", rank1=estimate(0.5), **{FNIR: Estimate(None)})) for size in sizes]
    assert set(draw_over_conditions(none)) == {"over_size_bicubic_rank1"}


# Faces under every condition


def searches(mated: Sequence[float], rank: Sequence[int]) -> Searches:
    nothing: NDArray[Any] = np.empty(0)
    scores = np.array(mated, np.float32)
    return Searches(np.array(rank), scores, scores - 0.1, np.zeros(len(rank), int), nothing, nothing, False)


def face(name: str, number: int) -> FaceRow:
    return FaceRow(Path(f"{name}_{number}.png"), f"{name}_{number}.png", name)


def test_the_faces_are_those_at_three_percentiles_under_the_hardest_condition() -> None:
    rng = np.random.default_rng(0)
    people = [f"p{number:02d}" for number in range(21)]
    probes = [face(name, 1) for name in people] + [face("stranger", 1)]
    enrolment = Enrolment([face(name, 0) for name in people], probes)
    mated = np.append(rng.permutation(21) / 21, np.nan)
    rank = [1] * 21 + [0]
    easy = configuration("DSR + pretrained", searches(np.append(rng.random(21), np.nan).tolist(), rank))
    hard = replace(easy, searches=searches(mated.tolist(), rank))
    results = [
        under(Condition("24", "bicubic"), replace(easy, metrics={"rank1": estimate(0.9)})),
        under(Condition("16", "bicubic"), replace(hard, metrics={"rank1": estimate(0.4)})),
    ]
    found = staged_faces(results, enrolment)
    rising = np.argsort(mated)  # NaN, of the stranger, is last
    assert [each.place for each in found] == [rising[2], rising[10], rising[18]]
    assert [each.quantile for each in found] == [0.1, 0.5, 0.9]
    assert all(each.probe == probes[each.place] for each in found)
    assert [each.enrolled.name for each in found] == [f"{each.probe.identity}_0.png" for each in found]


def test_few_probes_are_shown_once_each_and_strangers_alone_not_at_all() -> None:
    one = Enrolment([face("a", 0)], [face("stranger", 1), face("a", 1)])
    last = configuration("DSR + pretrained", searches([np.nan, 0.5], [0, 1]), rank1=estimate(1.0))
    assert [each.place for each in staged_faces([under(Condition("16", "bicubic"), last)], one)] == [1]
    assert staged_faces([under(EarCondition("stretch"), last)], one) == []
    nobody = replace(last, searches=searches([np.nan, np.nan], [0, 0]))
    assert staged_faces([under(Condition("16", "bicubic"), nobody)], one) == []


# Quality


def test_what_quality_rejects_is_what_a_loop_rejects() -> None:
    rng = np.random.default_rng(1)
    count, strangers = 200, 40
    wrong = rng.random(count) < 0.3
    rank = np.concatenate([np.where(wrong, 3, 1), np.zeros(strangers, int)])
    good, noise = rng.normal(size=count) - 2.0 * wrong, rng.normal(size=count)
    resampling = Resampling([f"p{place}" for place in range(count + strangers)], 100)
    measures = {"sharpness": noise, "mirror": good}
    curves = {
        name: {"rank1_error": error_reject(own, wrong, np.arange(count), resampling)} for name, own in measures.items()
    }
    of_all = {name: np.append(own, np.full(strangers, -9.0)) for name, own in measures.items()}  # strangers are worst
    last = replace(configuration("x", searches(np.zeros(len(rank)).tolist(), rank.tolist())), quality=of_all)
    found = rejected(replace(last, error_rejects=curves))
    assert found is not None
    assert (found.measure, found.predicts) == ("mirror", True)
    order = sorted(range(count), key=lambda place: good[place])
    assert found.lowest == order[:8]
    assert found.error == pytest.approx(wrong.mean())
    assert found.left == {share: pytest.approx(wrong[order[int(share * count) :]].mean()) for share in (0.1, 0.25, 0.5)}
    alone = rejected(replace(last, error_rejects={"sharpness": curves["sharpness"]}))
    assert alone is not None
    assert not alone.predicts
    few = error_reject(good, np.arange(count) < 9, np.arange(count), resampling)
    assert rejected(replace(last, error_rejects={"mirror": {"rank1_error": few}})) is None
    assert rejected(last) is None
