"""The metrics of a recogniser as JSON, as a CSV with a row per ear, and as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ear_teacher.recognition.evaluation import Recognition, TestEars
from ear_teacher.recognition.metrics import FAR
from earface.data.tables import write_csv

NAMES = {"l": "left", "r": "right"}


def results_of(ears: TestEars, own: Recognition, hog: Recognition, sides: Mapping[str, Recognition]) -> dict[str, Any]:
    return {
        "ears": len(ears),
        "people": len(set(ears.subjects)),
        "recognizer": own.plain(),
        "hog": hog.plain(),
        "by_side": {side: found.plain() for side, found in sides.items()},
    }


def write_per_ear(path: Path, ears: TestEars, found: Recognition) -> None:
    """Each ear, its nearest other, and whether that is of the same person."""
    rows = []
    for row, nearest in enumerate(found.nearest.tolist()):
        same = ears.subjects[row] == ears.subjects[nearest]
        similarity = f"{float(found.units[row] @ found.units[nearest]):.5f}"
        names = (ears.names[row], ears.subjects[row], ears.sides[row], ears.names[nearest], ears.subjects[nearest])
        rows.append([*names, similarity, int(same)])
    columns = ("path", "subject", "side", "nearest", "nearest_subject", "similarity", "same_person")
    write_csv(path, columns, rows)


def print_report(console: Console, results: Mapping[str, Mapping[str, Any]]) -> None:
    for path, found in results.items():
        table = Table(
            "", box=None, header_style="bold", title=f"{path}: {found['ears']} ears of {found['people']} people"
        )
        for column in ("rank-1", "EER", f"TAR at FAR {FAR:g}"):
            table.add_column(column, justify="right")
        methods = {"recogniser": found["recognizer"], "HOG": found["hog"]}
        methods |= {f"recogniser, {NAMES[side]}": own for side, own in found["by_side"].items()}
        for name, metrics in methods.items():
            table.add_row(name, *(shown(each) for each in metrics.values()))
        console.print(table)


def shown(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return "insufficient data"
    interval = metric["interval"]
    return f"{metric['value']:.1%}" + (f" ({interval[0]:.1%} to {interval[1]:.1%})" if interval else "")
