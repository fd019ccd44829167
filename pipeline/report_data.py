"""The content of an evaluation's report, as plain values and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from earface.core.notices import lists_of_warnings, warnings_given
from earface.data.face_sizes import NONE
from earface.data.tables import write_csv
from earface.metrics.error_reject import REJECTED
from earface.metrics.resampling import LEVEL
from pipeline.calibration import Calibration
from pipeline.configuration_metrics import METRICS, AtThreshold, ConfigurationResult
from pipeline.estimates import in_short, plain_estimate
from pipeline.evaluation import AnyCondition, AnyConfiguration, ConditionResult, Difference
from pipeline.protocol import Protocol
from pipeline.recommendations import Recommendation

CONVENTION = (
    "ISO/IEC 19795-1. The gallery is HR, with one template per person; a score is a cosine. A score equal to the "
    "threshold matches; of equal scores another person's ranks before the mate's. FNIR is at rank 1. FNIR at an FPIR "
    "and TAR at a FAR are measured where the same scores have that rate; fitted thresholds come from the calibration "
    f"identities. Intervals: middle {LEVEL:.0%} of replicates that resample subjects, the same for all configurations."
)
EAR_CONVENTION = CONVENTION.replace("The gallery is HR, with one template per person; a score", "A score")
INSUFFICIENT = "insufficient data"
JPEG_QUALITY = 92
PROBE_COLUMNS = (
    *("row", "file", "identity", "enrolled", "rank", "mated_score", "best_other", "best_other_score"),
)  # between those of the condition and those of the protocol
SHOWN_DIFFERENCES = (  # a configuration, and the one that it is compared with
    ("DSR + pretrained", "bicubic + pretrained"),
    ("bicubic + fine-tuned", "bicubic + pretrained"),
    ("DSR + fine-tuned", "bicubic + fine-tuned"),
    ("DSR + fine-tuned", "bicubic + pretrained"),
    ("recogniser", "HOG"),
)


class Plot(NamedTuple):
    """One plot in two formats."""

    png: bytes
    svg: bytes


Plots = Mapping[AnyCondition, Mapping[str, Plot]]


@dataclass(frozen=True)
class Wording:
    """What a report says of faces or of ears."""

    modality: str
    title: str
    convention: str
    unanswered: str  # where no difference can be reported


FACES = Wording(
    "face",
    "Face identification at very low resolution",
    CONVENTION,
    "Nothing can be said about super-resolution or fine-tuning: that takes a super-resolver or a fine-tuned "
    "recogniser, and enough people for an interval.",
)
EARS = Wording(
    "ear",
    "Identification by ears",
    EAR_CONVENTION,
    "Nothing can be said about the recogniser beside HOG: give more people.",
)


@dataclass(frozen=True)
class About:
    """What was evaluated, for the reader."""

    dataset: str
    protocol: Protocol
    threshold: float
    bootstrap: int
    options: Mapping[str, object]  # all of them, as given or by default; plain values
    models: Mapping[str, Mapping[str, str]]  # name -> kind, digest, contract
    notes: Sequence[str]
    left_out: Sequence[str]  # pictures and pairs that are missing, cannot be read or leak, and why
    seconds: Mapping[str, float]
    wording: Wording = FACES
    facts: Mapping[str, str] = field(default_factory=dict)  # form, sides, template rule

    def counts(self) -> dict[str, int]:
        test, calibration = self.protocol.test, self.protocol.calibration
        return {
            "identities enrolled": len({row.identity for row in test.gallery}),
            "pictures enrolled": len(test.gallery),
            "mated probes": sum(test.mated),
            "non-mated probes": len(test.probes) - sum(test.mated),
            "calibration identities": len({row.identity for row in calibration.rows}),
            "calibration pictures": len(calibration.rows),
            "pictures left out": len(self.left_out) - len(self.protocol.left_out),
        } | (
            {}
            if self.protocol.pairs is None
            else {"pairs": len(self.protocol.pairs), "pairs left out": len(self.protocol.left_out)}
        )


def describe_models(configurations: Mapping[Any, Sequence[AnyConfiguration]]) -> dict[str, dict[str, str]]:
    """Name -> kind, digest and contract, of each model that takes part."""
    models: dict[str, dict[str, str]] = {}
    for each in (each for own in configurations.values() for each in own):
        models |= each.models()
    return models


def answer(result: ConditionResult) -> list[str]:
    """In words, how rank-1 differs between configurations, or of pairs TAR at FAR 1e-3."""
    metric = "rank1" if any("rank1" in each.metrics for each in result.results) else "tar_at_far_0.001"
    sentences = []
    for difference in shown_differences(result, metric):
        estimate, interval = difference.estimate, difference.estimate.interval()
        if estimate.value is None or interval is None:
            continue
        better, worse = interval[0] > 0, interval[1] < 0
        verdict = "is better than" if better else "is worse than" if worse else "does not differ significantly from"
        span = f"{interval[0] * 100:+.1f} to {interval[1] * 100:+.1f}"
        by = f"{estimate.value * 100:+.1f} points of {METRICS[metric][0]} (95 %: {span})"
        sentences.append(f"{result.condition}: {difference.of} {verdict} {difference.to}, {by}")
    return sentences


def shown_differences(result: ConditionResult, metric: str) -> list[Difference]:
    found = {(each.of, each.to): each for each in result.differences if each.metric == metric}
    return [found[pair] for pair in SHOWN_DIFFERENCES if pair in found]


# -- numbers -----------------------------------------------------------------------------------------------------------


def as_plain(
    about: About,
    results: Sequence[ConditionResult],
    answers: Sequence[str],
    recommendations: Sequence[Recommendation],
) -> dict[str, Any]:
    """The content of report.json."""
    return {
        "modality": about.wording.modality,
        "dataset": about.dataset,
        "protocol": about.protocol.rule,
        "counts": about.counts(),
        **about.facts,
        "threshold": about.threshold,
        "options": about.options,
        "bootstrap": {"replicates": about.bootstrap, "level": LEVEL, "resampled": "subjects of the probes"},
        "convention": about.wording.convention,
        "models": about.models,
        "notes": list(about.notes),
        "left_out": list(about.left_out),
        "warnings": warnings_given(),
        "listed": lists_of_warnings(),  # what a warning only counts
        "answers": list(answers),
        "recommendations": [each.plain() for each in recommendations],
        "conditions": [_plain_condition(result, about) for result in results],
        "seconds": {name: round(value, 2) for name, value in about.seconds.items()},
    }


def _plain_condition(result: ConditionResult, about: About) -> dict[str, Any]:
    return {
        **result.condition.plain(),
        "rows": [
            {
                "name": each.name,
                **own.plain(),
                "measured": {name: plain_estimate(estimate) for name, estimate in each.metrics.items()},
                "thresholds": [_plain_threshold(threshold) for threshold in each.thresholds],
                "cmc": each.cmc.tolist(),
                "breakdown": {
                    kind: {value: plain_estimate(estimate) for value, estimate in values.items()}
                    for kind, values in each.breakdown.items()
                },
                **_plain_calibration(own, each, result.condition, about),
                **_plain_quality(each),
            }
            for own, each in zip(result.configurations, result.results, strict=True)
        ],
        "differences": [
            {"of": each.of, "to": each.to, "measure": each.metric, **plain_estimate(each.estimate)}
            for each in result.differences
        ],
    }


def _plain_calibration(
    configuration: AnyConfiguration, result: ConfigurationResult, condition: AnyCondition, about: About
) -> dict[str, Any]:
    """What `read_calibration` reads, and how good it is on the test identities; nothing of pairs."""
    found = result.calibration
    if found is None:
        return {}
    scored = configuration.scored_by()
    low = scored["upsampler"] != NONE
    kept = Calibration(
        f"{result.name}, {condition}" if low else result.name,
        {**scored, "sides": about.protocol.sides, "fusion": str(about.options.get("fusion", "mean"))},
        condition.plain().get("vlr_size", "") if low else "",
        *(found.points, found.ratios, found.reason, found.ratios_reason),
        int(str(about.options.get("template_pictures", 1))),
    )
    points = [
        {
            "fpir": each.rate,
            "gallery": each.size,
            "threshold": each.threshold,
            "measured": plain_estimate(each.measured),
        }
        for each in found.operating
    ]
    costs = {"cllr": plain_estimate(found.cllr), "cllr_min": found.cllr_min}
    return {"calibration": {**kept.plain(), "operating_points": points, **costs}}


def _plain_quality(result: ConfigurationResult) -> dict[str, Any]:
    """Error-versus-reject curves, and what several pictures are worth; of each what was measured."""
    curves = {
        measure: {
            kind: {"area": plain_estimate(each.area)}
            | ({"ideal": each.ideal, "errors": each.errors.tolist()} if len(each.errors) else {})
            for kind, each in own.items()
        }
        for measure, own in result.error_rejects.items()
    }
    sets = [
        {"pictures": each.pictures, "people": each.people}
        | {name: plain_estimate(getattr(each, name)) for name in ("rank1", "single", "gain")}
        for each in result.picture_sets
    ]
    rejects = {"rejected": REJECTED.tolist(), "measures": curves}
    return ({"error_reject": rejects} if curves else {}) | ({"several_pictures": sets} if sets else {})


def _plain_threshold(each: AtThreshold) -> dict[str, Any]:
    negative, positive = ("fnir", "fpir") if each.kind == "identification" else ("fnmr", "fmr")
    plain = {"kind": each.kind, "threshold": each.threshold, "from": each.origin}
    return plain | {negative: plain_estimate(each.false_negative), positive: plain_estimate(each.false_positive)}


def write_probes(path: Path, protocol: Protocol, results: Sequence[ConditionResult]) -> None:
    """CSV: one row for each probe, condition and configuration."""
    names = list(dict.fromkeys(row.identity for row in protocol.test.gallery))
    rows, details = [], protocol.details()
    conditions = results[0].condition.plain()
    columns = [*conditions, *PROBE_COLUMNS]
    columns += [name for name in details if name not in columns]
    for result, each in ((condition, own) for condition in results for own in condition.results):
        found = each.searches
        if found is None:
            continue
        for place, (probe, mated) in enumerate(zip(protocol.test.probes, protocol.test.mated, strict=True)):
            cells: dict[str, object] = {
                **{name: values[place] for name, values in details.items()},
                **result.condition.plain(),
                "row": each.name,
                "file": probe.name,
                "identity": probe.identity,
                "enrolled": int(mated),
            }
            if mated:
                cells |= {"rank": found.rank[place], "mated_score": f"{found.mated[place]:.5f}"}
            if np.isfinite(found.best[place]):  # else nobody else is enrolled
                cells |= {"best_other": names[found.best_row[place]], "best_other_score": f"{found.best[place]:.5f}"}
            rows.append([cells.get(column, "") for column in columns])
    write_csv(path, columns, rows)


def errors_at_threshold(results: Sequence[ConfigurationResult]) -> str:
    """Both error rates of each configuration at the user's threshold, in one line."""
    parts = []
    for each in results:
        at = {threshold.kind: threshold for threshold in each.thresholds if threshold.origin == "given"}
        negative, positive = ("FNIR", "FPIR") if "identification" in at else ("FNMR", "FMR")
        given = at.get("identification") or at["verification"]
        parts.append(
            f"{each.name} {negative} {in_short(given.false_negative)} {positive} {in_short(given.false_positive)}"
        )
    return "; ".join(parts)
