"""What an evaluation leaves: report.json, probes.csv, PNG curves, a self-contained report.html, TensorBoard events."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from earface.core.files import atomic_write
from earface.data.face_alignment import FACE_SIZE
from earface.data.images import Pixels, read_image
from pipeline.candidate_grid import ROUTE_NAMES, as_pixels
from pipeline.configuration_metrics import MEASURES, AtThreshold, RowResult
from pipeline.configurations import Condition, Faces, Grids, about_recognizer, about_route
from pipeline.embedding import HR
from pipeline.evaluation import COMPARED, ConditionResult, Difference, Failure
from pipeline.metrics import LEVEL, Figure
from pipeline.plots import as_bytes, draw
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
    ("DSR + stock", "interpolation + stock"),
    ("interpolation + tuned", "interpolation + stock"),
    ("DSR + tuned", "interpolation + tuned"),
    ("DSR + tuned", "interpolation + stock"),
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
        if row.route.source:
            told[row.route.source] = {"kind": about_route(row.route), "digest": row.route.origin, "contract": ""}
    return told


def write_report(out: Path, about: About, results: Sequence[ConditionResult], faces: Faces) -> list[str]:
    """All that an evaluation leaves, in the place of an earlier one. Returns the answers.

    report.json goes first and comes last: where it is, everything is there and of one evaluation.
    """
    (out / "report.json").unlink(missing_ok=True)
    for stale in [*(out / "plots").glob("*.png"), *(out / "tensorboard").glob("events.out.tfevents.*")]:
        stale.unlink()
    plots = {
        result.condition: {
            name: Plot(as_bytes(figure, "png"), as_bytes(figure, "svg")) for name, figure in draw(result.rows).items()
        }
        for result in results
    }
    answers = [text for result in results for text in answer(result)]
    write_probes(out / "probes.csv", about.protocol, results)
    for condition, own in plots.items():
        for name, plot in own.items():
            with atomic_write(out / "plots" / f"{condition.slug}_{name}.png") as temporary:
                temporary.write_bytes(plot.png)
    write_page(out / "report.html", about, results, plots, answers, faces)
    write_events(out / "tensorboard", results, plots, answers)
    with atomic_write(out / "report.json") as temporary:
        temporary.write_text(json.dumps(as_plain(about, results, answers), indent=1) + "\n", encoding="utf-8")
    return answers


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
                "route": own.route.name,
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
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.DictWriter(stream, PROBE_COLUMNS)
        writer.writeheader()
        for result, row in ((each, row) for each in results for row in each.rows):
            found = row.searches
            if found is None:
                continue
            for place, (probe, mated) in enumerate(zip(protocol.score.probes, protocol.score.mated, strict=True)):
                told: dict[str, object] = {
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
                    told |= {"rank": found.rank[place], "mated_score": f"{found.mated[place]:.5f}"}
                if np.isfinite(found.best[place]):  # else nobody else is enrolled
                    told |= {"best_other": names[found.best_row[place]], "best_other_score": f"{found.best[place]:.5f}"}
                writer.writerow(told)


def write_events(folder: Path, results: Sequence[ConditionResult], plots: Plots, answers: Sequence[str]) -> None:
    """TensorBoard: a scalar each measure, condition and row, and the curves."""
    with SummaryWriter(str(folder)) as writer:
        for result in results:
            for row in result.rows:
                for name, figure in row.measured.items():
                    if figure.value is not None:
                        writer.add_scalar(f"{name}/{result.condition.slug}/{row.name}", figure.value, 0)
            for name, plot in plots[result.condition].items():
                pixels = np.asarray(Image.open(io.BytesIO(plot.png)).convert("RGB"))
                writer.add_image(f"{name}/{result.condition.slug}", pixels, dataformats="HWC")
        writer.add_text("answer", "\n\n".join(answers) or INSUFFICIENT)


def print_report(console: Console, about: About, results: Sequence[ConditionResult], answers: Sequence[str]) -> None:
    """The notes, the grid of every condition, and the answers."""
    lines = list(about.notes)
    if about.left_out:
        lines.append(f"pictures left out: {len(about.left_out)}, such as {about.left_out[0]}")
    _print_lines(console, lines)
    for result in results:
        names = [name for name in MEASURES if any(name in row.measured for row in result.rows)]
        table = Table(str(result.condition), *(MEASURES[name][0] for name in names), box=None, header_style="bold")
        for row in result.rows:
            table.add_row(row.name, *(_cell(row.measured[name]) for name in names))
        console.print(table)
        console.print(f"at --threshold {about.threshold:g}: {_given(result.rows)}", highlight=False)
        console.print()
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in about.seconds.items())
    _print_lines(console, [*answers, seconds])


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:  # names of people and files may look like markup
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _given(rows: Sequence[RowResult]) -> str:
    told = []
    for row in rows:
        at = {each.kind: each for each in row.thresholds if each.named == "given"}
        negative, positive = ("FNIR", "FPIR") if "identification" in at else ("FNMR", "FMR")
        chosen = at.get("identification") or at["verification"]
        told.append(f"{row.name} {negative} {_share(chosen.false_negative)} {positive} {_share(chosen.false_positive)}")
    return "; ".join(told)


def _share(figure: Figure) -> str:
    return "?" if figure.value is None else f"{figure.value:.1%}"


def _cell(figure: Figure) -> str:
    if figure.value is None:
        return "insufficient"
    interval = figure.interval()
    return f"{figure.value:.1%}" + ("" if interval is None else f"\n{interval[0]:.1%} - {interval[1]:.1%}")


# -- the page ----------------------------------------------------------------------------------------------------------


def write_page(
    path: Path, about: About, results: Sequence[ConditionResult], plots: Plots, answers: Sequence[str], faces: Faces
) -> None:
    """HTML that needs no other file. faces: as the probes of the failures are read again."""
    drawn = {
        condition: {name: _data_uri(plot.svg, "svg+xml") for name, plot in own.items()}
        for condition, own in plots.items()
    }
    shown = {
        result.condition: [_failure_shown(failure, result, faces) for failure in result.failures] for result in results
    }
    html = _environment().get_template("report.html.jinja").render(
        about=about, results=results, plots=drawn, failures=shown, answers=answers, measures=MEASURES,
        convention=CONVENTION, differences=_shown_differences,
        row_names=list(dict.fromkeys(row.name for result in results for row in result.rows)),
    )  # fmt: skip
    with atomic_write(path) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(percent=lambda value: f"{value:.1%}", points=lambda value: f"{value * 100:+.1f}")
    environment.filters["rate"] = lambda value: f"{value:.1%}" if value >= 0.001 else f"{value * 100:.2g}%"
    environment.globals.update(INSUFFICIENT=INSUFFICIENT, COMPARED=COMPARED)
    return environment


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _picture(pixels: Pixels) -> str:
    """PNG of a VLR face, whose pixels are shown one by one; of others JPEG, a fifth of the bytes."""
    kind = "png" if max(pixels.shape[:2]) < FACE_SIZE else "jpeg"
    options = [] if kind == "png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return _data_uri(cv2.imencode(f".{kind}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1].tobytes(), kind)


@torch.no_grad()
def _failure_shown(failure: Failure, result: ConditionResult, faces: Faces) -> dict[str, Any]:
    """The probe as each route shows it, and the two people it was compared with."""
    batch = next(iter(faces.batches([failure.probe], result.condition)))
    vlr = faces.ready(batch, result.condition)["vlr"]
    routes = {row.route.name: row.route for row in result.grid if row.route.name != HR}
    pictures = {f"probe, {result.condition.vlr_size} px": as_pixels(vlr[0])}
    pictures |= {ROUTE_NAMES[name]: as_pixels(route.enlarge(vlr)[0]) for name, route in routes.items()}
    pictures["HR"] = read_image(failure.probe.path)
    pictures[f"taken for {failure.wrong.identity}"] = read_image(failure.wrong.path)
    pictures[f"is {failure.right.identity}"] = read_image(failure.right.path)
    return {"failure": failure, "pictures": {name: _picture(pixels) for name, pixels in pictures.items()}}
