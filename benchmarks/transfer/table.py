"""The tables of a transfer benchmark, and what is missing from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.transfer.options import Cell

Results = Mapping[Cell, Mapping[str, Any]]
METRICS = {  # of each task: its key, heading and decimals
    "landmarks": (("nme", "NME", 3), ("tragus", "tragus", 3)),
    "detection": (("ap50", "AP50", 3), ("ap", "AP", 3)),
}
MISSING = "-"


def markdown(cells: Sequence[Cell], results: Results) -> str:
    """cells: all of the table; results: the metrics of those that are finished."""
    parts = [trained_table(cells, results), identification_table(cells, results), depth_table(cells, results)]
    return "\n".join(part for part in [*parts, missing(cells, results)] if part)


def trained_table(cells: Sequence[Cell], results: Results) -> str:
    """A row for each start and rate of the encoder; the mean over seeds, and the deviation where there are several."""
    trained = [cell for cell in cells if cell.task in METRICS]
    columns = list(dict.fromkeys((cell.task, cell.shots) for cell in sorted(trained, key=_order)))
    names = {(cell.task, cell.shots): cell.column for cell in trained}
    heads = [f"{names[column]}: {heading}" for column in columns for _, heading, _ in METRICS[column[0]]]
    lines = []
    for start, rate in dict.fromkeys((cell.start, cell.rate) for cell in sorted(trained, key=_row(cells))):
        values = []
        for task, shots in columns:
            own = [c for c in trained if (c.task, c.shots, c.start, c.rate) == (task, shots, start, rate)]
            values += [
                _mean([results[c][key] for c in own if c in results], digits) for key, _, digits in METRICS[task]
            ]
        lines.append([start, MISSING if rate is None else "frozen" if rate == 0 else f"{rate:g}", *values])
    return _table(["start", "encoder's rate", *heads], lines)


def identification_table(cells: Sequence[Cell], results: Results) -> str:
    """Rank-1 in per cent, its deviation over the draws, and the depth that was chosen most often."""
    own = [cell for cell in cells if cell.task == "identification"]
    shots = sorted({cell.shots or 0 for cell in own})
    lines = []
    for start in dict.fromkeys(cell.start for cell in own):
        line = [start]
        for count in shots:
            found = [results[c] for c in own if (c.start, c.shots) == (start, count) and c in results]
            mean = float(np.mean([each["rank1"] for each in found])) if found else 0.0
            spread = float(np.mean([each["spread"] for each in found])) if found else 0.0
            line += [f"{mean:.1%} ({spread:.1%})" if found else MISSING, found[0]["depth"] if found else MISSING]
        lines.append([each.replace("%", " %") for each in line])
    heads = [head for count in shots for head in (f"identification:{count}: rank-1 (spread)", "depth")]
    return _table(["frozen features of", *heads], lines)


def depth_table(cells: Sequence[Cell], results: Results) -> str:
    """Rank-1 of every depth alone, with the most pictures of each person."""
    own = [cell for cell in cells if cell.task == "identification" and cell in results]
    most = [c for c in own if c.shots == max(each.shots or 0 for each in own) and len(results[c]["depths"]) > 1]
    depths = list(dict.fromkeys(depth for cell in most for depth in results[cell]["depths"]))
    starts = list(dict.fromkeys(cell.start for cell in most))
    lines = []
    for depth in depths:
        found = [[results[c]["depths"].get(depth) for c in most if c.start == start] for start in starts]
        lines.append([depth, *(_mean([100 * each for each in values if each is not None], 1) for values in found)])
    return _table([f"depth alone, {most[0].shots} pictures, rank-1 (%)", *starts], lines) if lines else ""


def missing(cells: Sequence[Cell], results: Results) -> str:
    """One line for each start with the columns that are not full; empty if none is."""
    lacking: dict[str, dict[str, int]] = {}
    for cell in cells:
        if cell not in results:
            of_start = lacking.setdefault(cell.start, {})
            of_start[cell.column] = of_start.get(cell.column, 0) + 1
    lines = []
    for start, columns in lacking.items():
        counts = (f"{column} ({count} to run)" for column, count in columns.items())
        lines.append(f"- {start}: {', '.join(counts)}")
    return "\n".join(["Missing:", "", *lines, ""]) if lines else ""


def _order(cell: Cell) -> tuple[bool, float]:
    return cell.task != "landmarks", cell.shots or float("inf")


def _row(cells: Sequence[Cell]) -> Any:
    starts = list(dict.fromkeys(cell.start for cell in cells))
    return lambda cell: (starts.index(cell.start), -(cell.rate or 0.0))


def _mean(values: Sequence[float], digits: int) -> str:
    if not values:
        return MISSING
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
