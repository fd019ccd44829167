"""Runs side by side: what differs in their settings and data, their metrics, and their curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from earface.core.errors import InputError
from earface.core.notices import warn, warnings_given
from earface.reports.curves import draw_curves
from earface.reports.metric_names import metric
from earface.reports.page_parts import data_uri, write_page
from earface.reports.run_folder import RunFolder, curve

PLACES = ("checkpoint_dir", "log_dir", "name", "resume")  # that differ between any two runs
UNKNOWN = "?"


@dataclass(frozen=True)
class Cell:
    """A metric of one run. better: than the first run's; None for the first, and where neither is better."""

    text: str
    difference: str = ""
    better: bool | None = None


@dataclass(frozen=True)
class Comparison:
    """names: of the runs, all different. Rows: a label, and a cell for each run."""

    names: list[str]
    settings: list[tuple[str, list[str]]]
    metrics: list[tuple[str, list[Cell]]]
    facts: list[tuple[str, list[str]]]
    curves: list[tuple[str, dict[str, list[tuple[float, float]]]]]
    kind: str


def compare(runs: Sequence[RunFolder]) -> Comparison:
    """Raises InputError for runs of different kinds, and where they have no metric in common; warns where they were
    validated on other data."""
    kinds = [f"{run.name} ({run.kind.title})" for run in runs]
    if len({run.kind for run in runs}) > 1:
        raise InputError(f"{', '.join(kinds)}: are runs of different kinds; compare those of one")
    bests = [run.best or {} for run in runs]
    shared = [name for name in bests[0] if name.startswith("val/") and all(name in best for best in bests)]
    if not shared:
        listed = ", ".join(str(run.path) for run in runs)
        raise InputError(f"{listed}: have no metric of validation in common: compare runs of one kind")
    first = tuple(f"val/{name}" for name in runs[0].kind.headline)
    ordered = [*(name for name in shared if name.startswith(first or ("-",))), *shared]
    columns = [name for name in dict.fromkeys(ordered) if "_pretrained_" not in name]
    _warn_of_other_data(runs)
    return Comparison(
        names=_names(runs),
        settings=_different_settings(runs),
        metrics=[(metric(name).title, _cells(name, [best[name] for best in bests])) for name in columns],
        facts=_facts(runs),
        curves=[
            (_title(name), {own: curve(run.rows, name) for own, run in zip(_names(runs), runs, strict=True)})
            for name in columns
        ],
        kind=runs[0].kind.title,
    )


def write_comparison(comparison: Comparison, out: Path) -> None:
    """One HTML file that needs no other."""
    curves = [(title, data_uri(draw_curves(title, lines), "svg+xml")) for title, lines in comparison.curves]
    write_page(
        out,
        "comparison.html.jinja",
        comparison=comparison,
        kind=comparison.kind,
        curves=curves,
        warnings=warnings_given(),
    )


def _title(name: str) -> str:
    shown = metric(name)
    return f"{shown.title} ({shown.unit})" if shown.unit and shown.unit != "%" else shown.title


def _names(runs: Sequence[RunFolder]) -> list[str]:
    """Each run's own name or, where two have the same, what of their folders differs."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    parts = [run.path.absolute().parts for run in runs]
    start = _alike(parts)
    end = _alike([each[start:][::-1] for each in parts])
    return ["/".join(each[start : len(each) - end]) or str(run.path) for each, run in zip(parts, runs, strict=True)]


def _alike(parts: Sequence[Sequence[str]]) -> int:
    """How many parts from the first on are the same in all."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False)))


def _different_settings(runs: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    """A setting that a run does not state was not there yet, or at its default as another run's record knows it."""
    defaults: dict[str, Any] = {}
    for run in runs:
        defaults |= run.record.get("defaults", {})
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in PLACES)
    rows = [(name, [str(run.settings.get(name, defaults.get(name, UNKNOWN))) for run in runs]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _cells(name: str, values: Sequence[float]) -> list[Cell]:
    shown, first = metric(name), values[0]
    cells = [Cell(shown.text(first))]
    for value in values[1:]:
        better = None if shown.higher is None or value == first else (value > first) == shown.higher
        cells.append(Cell(shown.text(value), shown.difference(value - first), better))
    return cells


def _facts(runs: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    """What each run was and took, as far as its record says; rows that no run has are left out."""
    rows: dict[str, list[str]] = {}
    rows["best epoch"] = [str(int(run.best["epoch"]) + 1) if run.best else UNKNOWN for run in runs]
    rows["state"] = [str(run.record.get("state", UNKNOWN)) for run in runs]
    rows["minutes"] = [f"{run.record['seconds'] / 60:.1f}" if run.record else UNKNOWN for run in runs]
    for part, key in (("machine", "device"), ("machine", "precision"), ("data", "digest")):
        title = "training data" if key == "digest" else key
        rows[title] = [str(run.record.get(part, {}).get(key, UNKNOWN)) for run in runs]
    return [(name, values) for name, values in rows.items() if set(values) != {UNKNOWN}]


def _warn_of_other_data(runs: Sequence[RunFolder]) -> None:
    known = {run.record.get("data", {}).get("digest_of_validation") for run in runs} - {None}
    if len(known) > 1:
        warn("the runs were validated on different pictures, so their metrics cannot be compared as such")
