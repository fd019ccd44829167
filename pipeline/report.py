"""What an evaluation writes: report.json, probes.csv, PNG plots, a self-contained report.html, TensorBoard events."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from earface.core.files import atomic_write, remove_results
from earface.core.notices import as_flags
from earface.data.names import printable
from earface.data.plots import as_bytes
from pipeline.configuration_metrics import METRICS
from pipeline.estimates import in_cell
from pipeline.evaluation import ConditionResult
from pipeline.options import EVENTS, REPORT, RESULTS
from pipeline.over_conditions import draw_over_conditions
from pipeline.plots import draw
from pipeline.recommendations import recommend
from pipeline.report_data import (
    INSUFFICIENT,
    About,
    Plot,
    Plots,
    answer,
    as_plain,
    errors_at_threshold,
    write_probes,
)
from pipeline.report_page import ReportPictures, write_report_page


def write_report(
    out: Path, about: About, results: Sequence[ConditionResult], pictures: ReportPictures | None
) -> list[str]:
    """Write everything, in place of an earlier evaluation; other files stay. Returns what it comes to, in words.

    pictures: of probes; None: failures are listed without.

    report.json is removed first and written last: where it exists, the results are complete and of one evaluation.
    """
    remove_results(out, RESULTS)
    plots = {result.condition: _in_both_formats(draw(result.results)) for result in results}
    over = _in_both_formats(draw_over_conditions(results))
    answers = [text for result in results for text in answer(result)]
    recommendations = recommend(results, about.options, out / REPORT)
    write_probes(out / "probes.csv", about.protocol, results)
    by_file = {f"{condition.slug}_{name}": plot for condition, own in plots.items() for name, plot in own.items()}
    for name, plot in (by_file | over).items():
        with atomic_write(out / "plots" / f"{name}.png") as temporary:
            temporary.write_bytes(plot.png)
    write_report_page(out / "report.html", about, results, plots, over, answers, recommendations, pictures)
    summary = [*map(str, recommendations)] or answers
    write_events(out / "tensorboard", results, plots, over, [*summary, *answers] if recommendations else answers)
    with atomic_write(out / REPORT) as temporary:
        plain = as_plain(about, results, answers, recommendations)
        temporary.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    return summary


def _in_both_formats(figures: Mapping[str, Figure]) -> dict[str, Plot]:
    return {name: Plot(as_bytes(figure, "png"), as_bytes(figure, "svg")) for name, figure in figures.items()}


def write_events(
    folder: Path,
    results: Sequence[ConditionResult],
    plots: Plots,
    over: Mapping[str, Plot],
    texts: Sequence[str],
) -> None:
    """TensorBoard: a scalar for each metric, condition and configuration, and the plots."""
    with SummaryWriter(str(folder), filename_suffix=EVENTS) as writer:
        for result in results:
            for each in result.results:
                for name, estimate in each.metrics.items():
                    if estimate.value is not None:
                        writer.add_scalar(f"{name}/{result.condition.slug}/{each.name}", estimate.value, 0)
        images = {f"{name}/{condition.slug}": plot for condition, own in plots.items() for name, plot in own.items()}
        for tag, plot in (images | dict(over)).items():
            pixels = np.asarray(Image.open(io.BytesIO(plot.png)).convert("RGB"))
            writer.add_image(tag, pixels, dataformats="HWC")
        writer.add_text("answer", printable("\n\n".join(texts)) or INSUFFICIENT)


def print_report(console: Console, about: About, results: Sequence[ConditionResult], summary: Sequence[str]) -> None:
    """The notes, a table for each condition, and what it comes to."""
    lines = [f"protocol: {about.protocol.rule}", *about.notes]
    if about.left_out:
        what = "pictures" if about.protocol.pairs is None else "pairs and pictures"
        lines.append(f"{what} left out: {len(about.left_out)}, such as {about.left_out[0]}")
    _print_lines(console, lines)
    for result in results:
        names = [name for name in METRICS if any(name in each.metrics for each in result.results)]
        table = Table(box=None, header_style="bold")
        table.add_column(str(result.condition), no_wrap=True)
        for name in names:
            table.add_column(METRICS[name][0])
        for each in result.results:
            table.add_row(each.name, *(in_cell(each.metrics[name]) for name in names))
        console.print(table)
        console.print(
            as_flags(f"at `threshold` {about.threshold:g}: {errors_at_threshold(result.results)}"), highlight=False
        )
        console.print()
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in about.seconds.items())
    _print_lines(console, [*summary, seconds])


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:  # names of people and files may look like markup
        console.print(line, highlight=False, soft_wrap=True, markup=False)
