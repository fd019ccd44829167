"""Which configuration to use for which probes, and what to type: the plainest that is not significantly worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earface.core.tool_options import typed
from earface.metrics.resampling import Estimate
from earface.metrics.verification import FEWEST_FALSE_ACCEPTS
from pipeline.configuration_metrics import METRICS, ConfigurationResult
from pipeline.configurations import CONFIGURATIONS, Condition, Configuration
from pipeline.estimates import in_short, in_words, plain_estimate
from pipeline.evaluation import ConditionResult
from pipeline.options import FPIRS

PLAINEST_FIRST = CONFIGURATIONS[1:]  # by what must be run
RATE = FPIRS[0]
FNIR = f"fnir_at_fpir_{RATE:g}"
DECIDING = (FNIR, "rank1")  # the first that there are enough data for
ENOUGH = 0.9  # rank-1
RULE = (
    "The plainest configuration that is not significantly worse than the best one: of "
    f"{', '.join(PLAINEST_FIRST)}, ordered by what must be run, the first whose {METRICS[FNIR][0]} is not higher than "
    "the lowest of all by a paired 95 % interval that excludes 0. Where there are insufficient data for that, rank-1 "
    "decides. What these pictures are too few to tell apart counts as equal."
)
DEGRADED = {
    "bicubic": "clean",
    "area": "clean, averaged over pixels",
    "realistic": "as a poor camera takes it: blur, noise, JPEG",
    "mixed": "some clean, some as a poor camera takes them",
    "files": "the set's own small pictures",
}
MOVED = {
    "shift": "crop off by {0:g} px",
    "turn": "crop turned by {0:g}°",
    "zoom": "face {0:.3g} larger or smaller",
}


@dataclass(frozen=True)
class Recommendation:
    """For the probes of one condition."""

    condition: Condition
    plainest: ConfigurationResult  # of those evaluated
    chosen: ConfigurationResult | None
    best: str = ""  # the configuration that has the best value
    decided_by: str = ""  # the metric, one of DECIDING
    reason: str = ""  # why none is chosen
    commands: tuple[str, ...] = ()  # that enrol and identify by it, with the threshold for RATE
    gallery: int = 0  # the most people among whom that threshold is known
    uncalibrated: str = ""  # why there are no commands

    @property
    def probes(self) -> str:
        """What the probes are like, in plain words."""
        moved, words = self.condition.movement, f"{self.condition.vlr_size} px, {DEGRADED[self.condition.degradation]}"
        return words if moved is None else f"{words}; {MOVED[moved.kind].format(moved.amount)}"

    @property
    def pictures(self) -> str:
        """By how many pictures of a person rank-1 reaches ENOUGH."""
        sets = self.chosen.picture_sets if self.chosen is not None else ()
        if not sets:
            return "not measured"
        reached = (each.pictures for each in sets if each.rank1.value is not None and each.rank1.value >= ENOUGH)
        return str(next(reached, f"not within {sets[-1].pictures}"))

    def __str__(self) -> str:
        if self.chosen is None:
            return f"{self.condition}: no recommendation, insufficient data: {self.reason}"
        own, other = self.chosen.metrics, self.plainest.metrics
        text = f"{self.condition}: use {self.chosen.name}: rank-1 {in_words(own['rank1'])}, "
        text += f"{METRICS[FNIR][0]} {in_words(own[FNIR])}"
        if self.chosen is not self.plainest:
            known = [in_short(other[metric]) for metric in ("rank1", FNIR) if other[metric].value is not None]
            text += f"; {self.plainest.name} has {' and '.join(known)}"
        return f"{text}; pictures of a person for a rank-1 of {ENOUGH:.0%}: {self.pictures}"

    def plain(self) -> dict[str, Any]:
        """For report.json."""

        def measured(result: ConfigurationResult) -> dict[str, Any]:
            return {"name": result.name, **{name: plain_estimate(result.metrics[name]) for name in ("rank1", FNIR)}}

        found = {**self.condition.plain(), "probes": self.probes, "plainest": measured(self.plainest)}
        if self.chosen is None:
            return {**found, "recommended": None, "insufficient_data": self.reason}
        return {
            **found,
            "recommended": measured(self.chosen),
            "decided_by": self.decided_by,
            "best": self.best,
            f"pictures_for_rank1_{ENOUGH:g}": self.pictures,
            "commands": list(self.commands),
            **({"largest_gallery": self.gallery} if self.commands else {"no_commands": self.uncalibrated}),
        }


def recommend(results: Sequence[ConditionResult], options: Mapping[str, object], report: Path) -> list[Recommendation]:
    """One for each condition of faces that were searched for; none of ears, nor of pairs.

    options: of the evaluation; report: its report.json.
    """
    return [
        _recommended(result.condition, result, options, report)
        for result in results
        if isinstance(result.condition, Condition) and "rank1" in result.results[0].metrics
    ]


def _recommended(
    condition: Condition, result: ConditionResult, options: Mapping[str, object], report: Path
) -> Recommendation:
    candidates = [each for name in PLAINEST_FIRST for each in result.results if each.name == name]
    for metric in DECIDING:
        if all(_enough(each.metrics[metric]) for each in candidates):
            chosen, best = _plainest(candidates, metric)
            configuration = next(each for each in result.configurations if each.name == chosen.name)
            assert isinstance(configuration, Configuration)
            commands, gallery, lacking = _commands(configuration, condition, chosen, options, report)
            return Recommendation(
                *(condition, candidates[0], chosen, best.name, metric, "", commands, gallery, lacking)
            )
    return Recommendation(condition, candidates[0], None, reason=_lacking(candidates))


def _enough(estimate: Estimate) -> bool:
    return estimate.value is not None and estimate.replicates is not None and estimate.samples >= FEWEST_FALSE_ACCEPTS


def _lacking(candidates: Sequence[ConfigurationResult]) -> str:
    """Why not even rank-1 decides."""
    found = candidates[0].metrics["rank1"]
    return found.reason or f"{found.samples} mated probes, or all of one person"


def _plainest(
    candidates: Sequence[ConfigurationResult], metric: str
) -> tuple[ConfigurationResult, ConfigurationResult]:
    """The recommended one, and the best. candidates: the plainest first."""
    sign = 1.0 if METRICS[metric][1] else -1.0
    best = max(candidates, key=lambda each: sign * (each.metrics[metric].value or 0.0))  # of equal ones the plainest

    def worse(each: ConfigurationResult) -> bool:
        interval = (each.metrics[metric] - best.metrics[metric]).interval()
        return interval is not None and (interval[1] < 0 if sign > 0 else interval[0] > 0)

    return next(each for each in candidates if not worse(each)), best


def _commands(
    configuration: Configuration,
    condition: Condition,
    result: ConfigurationResult,
    options: Mapping[str, object],
    report: Path,
) -> tuple[tuple[str, ...], int, str]:
    """What to type, and in how large a gallery its threshold is known; or why there is none."""
    found = result.calibration
    if found is None or found.points is None:
        return (), 0, "" if found is None else found.reason
    own = [point for point in found.operating if point.rate == RATE][-1]  # in the test's own gallery
    gallery = found.points.largest_gallery(RATE)
    if own.threshold is None:
        return (), gallery, own.reason
    recognizer, upsampler = configuration.recognizer, configuration.upsampler
    fusion, crop = str(options.get("fusion", "mean")), recognizer.contract.crop
    enroll = {"input": "photographs/", "out": "gallery.npz", "recognizer": recognizer.name}
    enroll |= {} if crop == "arcface" else {"crop": crop}
    enroll |= {} if fusion == "mean" else {"fusion": fusion}
    enroll |= {"calibration": str(report), "configuration": f"{result.name}, {condition}"}
    identify = {"gallery": "gallery.npz", "input": "small_faces/", "aligned": True, "upsampler": upsampler.name}
    identify |= {"dsr_checkpoint": upsampler.source} if upsampler.source else {}
    identify |= {"operating_point": f"fpir={RATE:g}"}
    return (typed("enroll", **enroll), typed("identify", **identify)), gallery, ""
