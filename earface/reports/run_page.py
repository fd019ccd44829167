"""A run as one page: what it reached beside its baselines, curves, pictures, data, settings, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.reports.curves import draw_curves
from earface.reports.metric_names import Metric, metric
from earface.reports.page_parts import data_uri, picture_uri, write_page
from earface.reports.run_folder import PAGE_FILE, RunFolder, by_step, curve

SHOWN_EPOCHS = 9  # pictures of a kind, spread over the run
PICTURE_BYTES = 4_000_000  # of a page's pictures as base64; the page stays below 5 MB


EMPTY: dict[str, Any] = {"warnings": [], "groups": [], "data": {}, "defaults": {}}  # of a run before there were records


NO_HEADLINE = ("_pretrained_", "_gain", "_y", "_loss")  # parts of names: baselines, and other forms of the same


class Headline(NamedTuple):
    """A metric of the best epoch beside the same one of each baseline: (name, value, difference, whether better)."""

    metric: Metric
    value: str
    baselines: list[tuple[str, str, str, bool | None]]


class Pictures(NamedTuple):
    """Of one kind: (epoch, data URI)."""

    title: str
    shown: list[tuple[int, str]]


def write_run_page(run: RunFolder, out: Path | None = None, pictures: bool = True) -> Path:
    """One file, by default report.html in the run's log folder. pictures: of the data and of what the model makes."""
    path = out or run.path / PAGE_FILE
    has_checkpoint = (run.checkpoints / "last.ckpt").is_file()
    write_page(
        path,
        "run_page.html.jinja",
        run=run,
        state=_state(run),
        facts=_facts(run),
        headlines=headlines(run),
        curves=_curves(run),
        pictures=_pictures(run) if pictures else [],
        record={**EMPTY, **run.record},
        reason=run.record.get("reason") if run.record.get("state") in ("paused", "failed", "diverged") else None,
        settings=_settings(run),
        commands=[command.format(**_places(run)) for command in run.kind.commands] if has_checkpoint else [],
        python=run.kind.python.format(run=str(run.checkpoints), tuned=str(run.checkpoints.parent / "tuned")),
        has_checkpoint=has_checkpoint,
    )
    return path


def headlines(run: RunFolder) -> list[Headline]:
    """What one looks at first, of the epoch with the lowest val/loss."""
    best = run.best or {}
    columns = [
        name
        for start in run.kind.headline
        for name in best
        if name == f"val/{start}" or name.startswith(f"val/{start}_")
        if not any(part in name for part in NO_HEADLINE)
    ]
    return [_headline(run, name, best[name]) for name in columns]


def _headline(run: RunFolder, column: str, value: float) -> Headline:
    shown = metric(column)
    baselines = []
    for name, metrics in baselines_of(run).items():
        if column in metrics:
            difference = value - metrics[column]
            better = None if shown.higher is None or not difference else (difference > 0) == shown.higher
            baselines.append((name, shown.text(metrics[column]), shown.difference(difference), better))
    return Headline(shown, shown.text(value), baselines)


def baselines_of(run: RunFolder) -> dict[str, dict[str, float]]:
    """Name -> its metrics on the same validation data: what the training measured, and what the rows imply."""
    found = {name: dict(metrics) for name, metrics in run.record.get("baselines", {}).items()}
    best = run.best or {}
    if "val/psnr_gain" in best:
        found["bicubic interpolation"] = {"val/psnr": best["val/psnr"] - best["val/psnr_gain"]}
    pretrained = {name.replace("_pretrained_", "_"): best[name] for name in best if "_pretrained_" in name}
    return found | ({"pretrained": pretrained} if pretrained else {})


def _curves(run: RunFolder) -> list[tuple[str, str]]:
    """(title, data URI) of each metric, training and validation in one; the headline's first."""
    columns = list(dict.fromkeys(name for row in run.rows for name in row))
    bases = [name.removeprefix("val/") for name in columns if name.startswith("val/")]
    bases = list(dict.fromkeys([*(each for each in bases if each.startswith(run.kind.headline or ("-",))), *bases]))
    best = run.best
    drawn = []
    for base in bases:
        if "pretrained_" in base:
            continue
        lines = {"training": curve(run.rows, f"train/{base}"), "validation": curve(run.rows, f"val/{base}")}
        for name, metrics in baselines_of(run).items():
            if f"val/{base}" in metrics and (points := lines["validation"]):
                lines[name] = [(epoch, metrics[f"val/{base}"]) for epoch in (points[0][0], points[-1][0])]
        lines = {name: points for name, points in lines.items() if points}
        shown = metric(base)
        title = f"{shown.title} ({shown.unit})" if shown.unit and shown.unit != "%" else shown.title
        drawn.append((title, lines))
    rates = {name.removeprefix("lr/"): by_step(run.rows, name) for name in columns if name.startswith("lr/")}
    drawn.append(("learning rate", _distinct(rates)))
    marked = best["epoch"] + 1 if best and "epoch" in best else None
    return [(title, data_uri(draw_curves(title, lines, marked), "svg+xml")) for title, lines in drawn if lines]


def _distinct(curves: Mapping[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """One of each, under the names of all that are the same."""
    names: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, points in curves.items():
        if points:
            names.setdefault(tuple(points), []).append(name)
    return {", ".join(own): list(points) for points, own in names.items()}


def _pictures(run: RunFolder) -> list[Pictures]:
    found: list[Pictures] = []
    left = PICTURE_BYTES
    kinds = run.pictures()
    for name, files in kinds.items():
        budget = left // (len(kinds) - len(found))
        shown = []
        for epoch, path in _spread(files):
            try:
                uri = picture_uri(path)
            except InputError as error:  # half-written when the run was killed
                warn(f"{error}; left out of the page")
                continue
            if len(uri) > budget:
                break
            budget -= len(uri)
            left -= len(uri)
            shown.append((epoch, uri))
        found.append(Pictures(name, sorted(shown)))
    return [each for each in found if each.shown]


def _spread(files: list[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """The last first, then the first, then some between."""
    count = min(SHOWN_EPOCHS, len(files))
    places = sorted({round(step * (len(files) - 1) / max(count - 1, 1)) for step in range(count)})
    return [files[place] for place in (places[-1:] + places[:1] + places[1:-1])[:count]]


def _state(run: RunFolder) -> str:
    if not run.record:
        return f"{_epochs(run)} epochs"
    return f"{run.record['state']}, {_epochs(run)} of {run.settings.get('epochs', '?')} epochs"


def _epochs(run: RunFolder) -> int:
    return int(max((row.get("epoch", -1) for row in run.rows if "val/loss" in row), default=-1)) + 1


def _facts(run: RunFolder) -> dict[str, str]:
    record = run.record
    facts = {"run": str(run.path), "checkpoints": str(run.checkpoints)}
    if best := run.best:
        facts["best epoch"] = f"{int(best['epoch']) + 1}, by its validation loss {best['val/loss']:.4f}"
    if record.get("started"):
        facts["started"] = datetime.fromisoformat(record["started"]).strftime("%Y-%m-%d %H:%M")
        facts["training took"] = str(timedelta(seconds=round(record["seconds"])))
    if speed := record.get("speed"):
        rates = sorted(each["images_per_second"] for each in speed)
        facts["speed"] = (
            f"{rates[len(rates) // 2]:,.0f} training pictures per second, without validation (median epoch)"
        )
    facts |= {name.replace("_", " "): str(text) for name, text in record.get("machine", {}).items() if text != ""}
    versions = record.get("versions", {})
    return facts | ({"versions": ", ".join(f"{name} {text}" for name, text in versions.items())} if versions else {})


def _settings(run: RunFolder) -> list[tuple[str, str, str | None]]:
    """(name, value, its default where that is another and known), what was chosen first."""
    defaults = run.record.get("defaults", {})
    rows: list[tuple[str, str, str | None]] = [
        (name, str(value), str(defaults[name]) if name in defaults and defaults[name] != value else None)
        for name, value in run.settings.items()
    ]
    return sorted(rows, key=lambda row: row[2] is None)


def _places(run: RunFolder) -> dict[str, str]:
    return {"run": shlex.quote(str(run.checkpoints)), "parent": shlex.quote(str(run.checkpoints.parent))}
