"""What a report of the evaluation says, as plain values and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from earface.data.tables import write_csv
from pipeline.configuration_metrics import MEASURES, AtThreshold, ConfigurationResult
from pipeline.configurations import Condition, Grids, about_recognizer, about_upsampler
from pipeline.evaluation import ConditionResult, Difference
from pipeline.metrics import LEVEL, Figure
from pipeline.protocol import Protocol

CONVENTION = (
    "ISO/IEC 19795-1. The gallery is HR, one template a person; a score is the cosine. A score matches from the "
    "threshold on; of equal scores another person's ranks before the mate's. FNIR is of the first rank. FNIR at an "
    "FPIR and TAR at a FAR are measured where the same scores have that rate; fitted thresholds are other people's. "
    f"Intervals: middle {LEVEL:.0%} of replicates in which subjects are drawn again, the same in all rows."
)
INSUFFICIENT = "insufficient data"
JPEG_QUALITY = 92
PROBE_COLUMNS = (
    *("vlr_size", "degradation", "row", "file", "identity", "enrolled", "rank", "mated_score", "best_other"),
    *("best_other_score", "session", "camera", "illumination"),
)
SHOWN_DIFFERENCES = (  # later row, earlier row: the questions that the grid answers
    ("DSR + pretrained", "bicubic + pretrained"),
    ("bicubic + tuned", "bicubic + pretrained"),
    ("DSR + tuned", "bicubic + tuned"),
    ("DSR + tuned", "bicubic + pretrained"),
)


class Plot(NamedTuple):
    """The same drawing twice."""

    png: bytes
    svg: bytes


Plots = Mapping[Condition, Mapping[str, Plot]]


@dataclass(frozen=True)
class About:
    """What was evaluated, for the reader."""

    dataset: str
    protocol: Protocol
    threshold: float
    bootstrap: int
    options: Mapping[str, object]  # all that was given or is the default; plain values
    models: Mapping[str, Mapping[str, str]]  # name -> kind, digest, contract
    notes: Sequence[str]
    left_out: Sequence[str]  # pictures that could not be read or leaked, and why
    seconds: Mapping[str, float]

    def counts(self) -> dict[str, int]:
        score, tune = self.protocol.score, self.protocol.tune
        return {
            "people enrolled": len({row.identity for row in score.gallery}),
            "pictures enrolled": len(score.gallery),
            "mated probes": sum(score.mated),
            "non-mated probes": len(score.probes) - sum(score.mated),
            "people to fit thresholds": len({row.identity for row in tune.rows}),
            "pictures to fit thresholds": len(tune.rows),
            "pictures left out": len(self.left_out),
        } | ({} if self.protocol.pairs is None else {"pairs": len(self.protocol.pairs)})


def models_told(grids: Grids) -> dict[str, dict[str, str]]:
    """Of each model that takes part, by its name: kind, digest, contract."""
    told: dict[str, dict[str, str]] = {}
    for row in (row for own in grids.values() for row in own):
        own = row.recognizer
        told[own.name] = {"kind": about_recognizer(own), "digest": own.digest, "contract": own.contract.id}
        if row.upsampler.source:
            told[row.upsampler.source] = {
                "kind": about_upsampler(row.upsampler),
                "digest": row.upsampler.origin,
                "contract": "",
            }
    return told


def answer(result: ConditionResult) -> list[str]:
    """In words, what super-resolution and tuning change at rank 1, or in verification where nobody is searched for."""
    measure = "rank1" if any("rank1" in row.measured for row in result.rows) else "tar_at_far_0.001"
    told = []
    for difference in _shown_differences(result, measure):
        figure, interval = difference.figure, difference.figure.interval()
        if figure.value is None or interval is None:
            continue
        better, worse = interval[0] > 0, interval[1] < 0
        verdict = "is better than" if better else "is worse than" if worse else "is not told apart from"
        span = f"{interval[0] * 100:+.1f} to {interval[1] * 100:+.1f}"
        by = f"{figure.value * 100:+.1f} points of {MEASURES[measure][0]} (95 %: {span})"
        told.append(f"{result.condition}: {difference.of} {verdict} {difference.to}, {by}")
    return told


def _shown_differences(result: ConditionResult, measure: str) -> list[Difference]:
    found = {(each.of, each.to): each for each in result.differences if each.measure == measure}
    return [found[pair] for pair in SHOWN_DIFFERENCES if pair in found]


# -- numbers -----------------------------------------------------------------------------------------------------------


def as_plain(about: About, results: Sequence[ConditionResult], answers: Sequence[str]) -> dict[str, Any]:
    """The content of report.json."""
    return {
        "dataset": about.dataset,
        "protocol": about.protocol.rule,
        "counts": about.counts(),
        "threshold": about.threshold,
        "options": about.options,
        "bootstrap": {"replicates": about.bootstrap, "level": LEVEL, "resampled": "subjects of the probes"},
        "convention": CONVENTION,
        "models": about.models,
        "notes": list(about.notes),
        "left_out": list(about.left_out),
        "answers": list(answers),
        "conditions": [_plain_condition(result) for result in results],
        "seconds": {name: round(value, 2) for name, value in about.seconds.items()},
    }


def _plain_condition(result: ConditionResult) -> dict[str, Any]:
    return {
        "vlr_size": result.condition.vlr_size,
        "degradation": result.condition.degradation,
        "rows": [
            {
                "name": row.name,
                "upsampler": own.upsampler.name,
                "recognizer": own.recognizer.name,
                "measured": {name: _plain(figure) for name, figure in row.measured.items()},
                "thresholds": [_plain_threshold(each) for each in row.thresholds],
                "cmc": row.cmc.tolist(),
                "breakdown": {
                    kind: {value: _plain(figure) for value, figure in values.items()}
                    for kind, values in row.breakdown.items()
                },
            }
            for own, row in zip(result.grid, result.rows, strict=True)
        ],
        "differences": [
            {"of": each.of, "to": each.to, "measure": each.measure, **_plain(each.figure)}
            for each in result.differences
        ],
    }


def _plain(figure: Figure) -> dict[str, Any]:
    if figure.value is None:
        return {"value": None, "insufficient_data": figure.reason}
    low, high = figure.interval() or (None, None)
    return {"value": figure.value, "low": low, "high": high, "samples": figure.samples}


def _plain_threshold(each: AtThreshold) -> dict[str, Any]:
    negative, positive = ("fnir", "fpir") if each.kind == "identification" else ("fnmr", "fmr")
    told = {"kind": each.kind, "threshold": each.threshold, "from": each.named}
    return told | {negative: _plain(each.false_negative), positive: _plain(each.false_positive)}


def write_probes(path: Path, protocol: Protocol, results: Sequence[ConditionResult]) -> None:
    """CSV: one row a probe, condition and row of the grid."""
    names = list(dict.fromkeys(row.identity for row in protocol.score.gallery))
    rows = []
    for result, row in ((each, row) for each in results for row in each.rows):
        found = row.searches
        if found is None:
            continue
        for place, (probe, mated) in enumerate(zip(protocol.score.probes, protocol.score.mated, strict=True)):
            cells: dict[str, object] = {
                "vlr_size": result.condition.vlr_size,
                "degradation": result.condition.degradation,
                "row": row.name,
                "file": probe.name,
                "identity": probe.identity,
                "enrolled": int(mated),
                "session": probe.session,
                "camera": probe.camera,
                "illumination": probe.illumination,
            }
            if mated:
                cells |= {"rank": found.rank[place], "mated_score": f"{found.mated[place]:.5f}"}
            if np.isfinite(found.best[place]):  # else nobody else is enrolled
                cells |= {"best_other": names[found.best_row[place]], "best_other_score": f"{found.best[place]:.5f}"}
            rows.append([cells.get(column, "") for column in PROBE_COLUMNS])
    write_csv(path, PROBE_COLUMNS, rows)


def given(rows: Sequence[ConfigurationResult]) -> str:
    told = []
    for row in rows:
        at = {each.kind: each for each in row.thresholds if each.named == "given"}
        negative, positive = ("FNIR", "FPIR") if "identification" in at else ("FNMR", "FMR")
        chosen = at.get("identification") or at["verification"]
        told.append(f"{row.name} {negative} {_share(chosen.false_negative)} {positive} {_share(chosen.false_positive)}")
    return "; ".join(told)


def _share(figure: Figure) -> str:
    return "?" if figure.value is None else f"{figure.value:.1%}"


def cell(figure: Figure) -> str:
    if figure.value is None:
        return "insufficient"
    interval = figure.interval()
    return f"{figure.value:.1%}" + ("" if interval is None else f"\n{interval[0]:.1%} - {interval[1]:.1%}")
