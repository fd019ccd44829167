"""Which configuration is recommended: every branch of the rule, on results made by hand."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earface.core.command_line import parse_options
from earface.metrics.operating_points import OperatingPoints
from earface.metrics.resampling import Estimate
from earface.nn.upsampler import NO_UPSAMPLER, Upsampler
from facial_rec.recognizer import load_recognizer
from pipeline.calibration_metrics import CalibrationResult, OperatingPoint
from pipeline.configuration_metrics import ConfigurationResult
from pipeline.configurations import CONFIGURATIONS, Condition, Configuration
from pipeline.ear_configurations import EarCondition
from pipeline.evaluation import ConditionResult
from pipeline.options import EnrollOptions, IdentifyOptions
from pipeline.picture_quality import PictureSets
from pipeline.recommendations import FNIR, Recommendation, recommend

HR, PLAINEST, TUNED, DSR, BOTH = CONFIGURATIONS
POOR = Condition("16", "realistic")
UNKNOWN = Estimate(None, reason="7 searches, fewer than 10")
Recommend = Callable[..., Recommendation]
Values = dict[str, tuple[float, float]]  # configuration -> its value, and how far it is resampled with the others'


def estimate(value: float, wobble: float, samples: int = 200) -> Estimate:
    """Of two of these the difference has as its 95 % interval the values' +- .95 times the wobbles' difference."""
    return Estimate(value, value + wobble * np.linspace(-1, 1, 101), samples)


def result(
    name: str, fnir: Estimate, rank1: Estimate, calibration: CalibrationResult | None = None
) -> ConfigurationResult:
    sets = [PictureSets(size, 9, estimate(share, 0.1), UNKNOWN, UNKNOWN) for size, share in ((1, 0.7), (2, 0.9))]
    metrics = {"rank1": rank1, FNIR: fnir}
    nothing = np.empty(0)
    return ConfigurationResult(name, metrics, [], nothing, None, None, {}, {}, None, calibration, picture_sets=sets)


def condition_result(
    results: list[ConfigurationResult], configurations: list[Configuration] | None = None
) -> ConditionResult:
    return ConditionResult(POOR, configurations or [], results, [], [])


@pytest.fixture(scope="module")
def configurations(edgeface: Path) -> list[Configuration]:
    recognizer = load_recognizer(str(edgeface), "center")
    bicubic, dsr = (
        Upsampler(name, lambda faces: faces, source=source) for name, source in (("bicubic", ""), ("dsr", "a b.ckpt"))
    )
    upsamplers = (NO_UPSAMPLER, bicubic, bicubic, dsr, dsr)
    return [Configuration(name, own, recognizer) for name, own in zip(CONFIGURATIONS, upsamplers, strict=True)]


@pytest.fixture
def recommended(configurations: list[Configuration], tmp_path: Path) -> Recommend:
    def of(results: list[ConfigurationResult], **options: str) -> Recommendation:
        (found,) = recommend([condition_result(results, configurations)], options, tmp_path / "report.json")
        return found

    return of


FNIRS: dict[str, tuple[Values, str, str]] = {  # the recommended one, and the best
    "plainest, equal to all": ({PLAINEST: (0.3, 0), TUNED: (0.3, 0), BOTH: (0.3, 0)}, PLAINEST, PLAINEST),
    "plainest, a little worse": ({PLAINEST: (0.3, 0.1), TUNED: (0.29, 0), BOTH: (0.25, 0)}, PLAINEST, BOTH),
    "fine-tuned, plainest worse": ({PLAINEST: (0.4, 0.1), TUNED: (0.3, 0.1), BOTH: (0.25, 0)}, TUNED, BOTH),
    "before DSR": ({PLAINEST: (0.5, 0), TUNED: (0.3, 0.1), DSR: (0.29, 0), BOTH: (0.28, 0)}, TUNED, BOTH),
    "DSR, two are worse": ({PLAINEST: (0.5, 0), TUNED: (0.4, 0), DSR: (0.29, 0.1), BOTH: (0.28, 0)}, DSR, BOTH),
    "both, all others worse": ({PLAINEST: (0.5, 0.1), TUNED: (0.4, 0.1), DSR: (0.4, 0.1), BOTH: (0.2, 0)}, BOTH, BOTH),
    "never HR": ({HR: (0.01, 0.001), PLAINEST: (0.5, 0.01), DSR: (0.3, 0.02)}, DSR, DSR),
    "the only one": ({HR: (0.01, 0.001), PLAINEST: (0.5, 0.01)}, PLAINEST, PLAINEST),
}


@pytest.mark.parametrize("case", FNIRS)
def test_the_plainest_that_is_not_significantly_worse_is_recommended(case: str, recommended: Recommend) -> None:
    values, wanted, best = FNIRS[case]
    # a wobble that all share cancels in differences, and a rank-1 that says the opposite decides nothing
    results = [
        result(name, estimate(value, wobble + 0.2), estimate(value, 0)) for name, (value, wobble) in values.items()
    ]
    found = recommended(results)
    assert (found.chosen.name, found.best, found.decided_by) == (wanted, best, FNIR)
    assert found.plainest.name == PLAINEST
    assert found.plain()["recommended"]["name"] == wanted
    assert f"use {wanted}" in str(found)


@pytest.mark.parametrize(("tuned", "wanted"), [(0.8, TUNED), (0.72, PLAINEST)])
def test_rank_1_decides_where_fnir_has_too_few_searches(tuned: float, wanted: str, recommended: Recommend) -> None:
    found = recommended([result(PLAINEST, UNKNOWN, estimate(0.7, 0.1)), result(TUNED, UNKNOWN, estimate(tuned, 0.05))])
    assert (found.chosen.name, found.decided_by) == (wanted, "rank1")
    assert "insufficient data" in str(found)
    assert "?" not in str(found)


@pytest.mark.parametrize(
    "rank1", [Estimate(None, reason="no such searches"), Estimate(0.5, None, 40), estimate(0.5, 0.1, samples=9)]
)
def test_nothing_is_recommended_where_not_even_rank_1_has_enough(rank1: Estimate, recommended: Recommend) -> None:
    found = recommended([result(PLAINEST, UNKNOWN, estimate(0.7, 0.1)), result(TUNED, UNKNOWN, rank1)])
    plain = found.plain()
    assert (found.chosen, found.commands, plain["recommended"]) == (None, (), None)
    assert "insufficient data" in str(found)
    assert plain["insufficient_data"]


def test_of_ears_and_of_pairs_nothing_is_recommended() -> None:
    searched = condition_result([result(PLAINEST, UNKNOWN, estimate(0.5, 0.1))])
    pairs = replace(searched, results=[replace(searched.results[0], metrics={"eer": estimate(0.1, 0.01)})])
    ears = replace(searched, condition=EarCondition("stretch"))
    assert recommend([pairs, ears], {}, Path("report.json")) == []


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [([0.95], "1"), ([0.5, 0.9, 0.8], "2"), ([0.5, 0.6, 0.7], "not within 4"), ([], "not measured")],
)
def test_the_pictures_until_nine_in_ten_are_found(shares: list[float], wanted: str, recommended: Recommend) -> None:
    sets = [PictureSets(2**power, 9, estimate(share, 0), UNKNOWN, UNKNOWN) for power, share in enumerate(shares)]
    found = recommended([replace(result(PLAINEST, UNKNOWN, estimate(0.5, 0.1)), picture_sets=sets)])
    assert found.pictures == wanted
    assert found.plain()["pictures_for_rank1_0.9"] == wanted


# Commands


def calibrated(count: int, people: int) -> CalibrationResult:
    """Of so many calibration searches among 51 people; the test's gallery has `people`."""
    points = OperatingPoints.fit(np.random.default_rng(0).normal(size=count), 50)
    known = people <= points.largest_gallery(0.1)
    threshold, reason = (points.threshold(0.1, people), "") if known else (None, "too few searches")
    operating = [OperatingPoint(0.1, 10, 0.1, UNKNOWN), OperatingPoint(0.1, people, threshold, UNKNOWN, reason)]
    return CalibrationResult(points, [*operating, OperatingPoint(0.01, people, None, UNKNOWN)], None, UNKNOWN, None)


def test_the_commands_are_of_the_recommended_configuration(
    recommended: Recommend, tmp_path: Path, edgeface: Path
) -> None:
    results = [result(PLAINEST, estimate(0.5, 0.1), estimate(0.5, 0.1))]
    results += [result(DSR, estimate(0.1, 0.05), estimate(0.9, 0.1), calibrated(400, 100))]
    found = recommended(results, fusion="norm")
    (enroll, *given), (identify, *asked) = (shlex.split(command)[1:] for command in found.commands)
    assert (enroll, identify) == ("enroll", "identify")
    enrolling = parse_options(EnrollOptions, given, prog="earface enroll")
    assert enrolling.calibration == str(tmp_path / "report.json")
    assert enrolling.configuration == "DSR + pretrained, 16 px, realistic"
    assert (enrolling.recognizer, enrolling.crop, enrolling.fusion) == (str(edgeface), "center", "norm")
    identifying = parse_options(IdentifyOptions, asked, prog="earface identify")
    assert (identifying.upsampler, identifying.dsr_checkpoint) == ("dsr", "a b.ckpt")
    assert (identifying.operating_point, identifying.aligned) == ("fpir=0.1", True)
    assert found.gallery == 208  # 1 - .9 ** (50 / 208) of 400 searches are 10.01, and among 209 9.96


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [
        (calibrated(400, 209), "too few searches"),
        (CalibrationResult(None, [], None, UNKNOWN, None, "no calibration identities"), "no calibration identities"),
    ],
)
def test_without_an_operating_point_there_is_no_command(
    calibration: CalibrationResult, reason: str, recommended: Recommend
) -> None:
    found = recommended([result(PLAINEST, estimate(0.5, 0.1), estimate(0.5, 0.1), calibration)])
    assert found.chosen.name == PLAINEST
    assert (found.commands, found.uncalibrated) == ((), reason)
    assert found.plain()["no_commands"] == reason
