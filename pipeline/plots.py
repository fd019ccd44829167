"""The curves of an evaluation: CMC, trade-offs of both errors, score histograms, rank-1 by condition of the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from earface.metrics.plots import STYLE
from pipeline.configuration_metrics import BIN_EDGES, ConfigurationResult
from pipeline.metrics import Curve

# distinct without colour vision, too (Okabe & Ito 2008)
COLOURS = {
    "HR": "#333333",
    "bicubic + pretrained": "#E69F00",
    "bicubic + tuned": "#D55E00",
    "DSR + pretrained": "#56B4E9",
    "DSR + tuned": "#0072B2",
}
WIDTH, HEIGHT = 5.2, 4.0  # inches
LOWEST_ERROR = 1e-3  # of the drawn axis


def draw(rows: Sequence[ConfigurationResult]) -> dict[str, Figure]:
    """Name -> figure, of what there is to draw."""
    figures = {}
    if any(len(row.cmc) for row in rows):
        figures["cmc"] = _figure(lambda axes: _cmc(axes, rows))
    if verification := [(row.name, row.verification) for row in rows if row.verification]:
        figures["det_verification"] = _figure(lambda axes: _det(axes, verification, "FMR", "FNMR"))
    if identification := [(row.name, row.identification) for row in rows if row.identification]:
        figures["det_identification"] = _figure(lambda axes: _det(axes, identification, "FPIR", "FNIR"))
    figures["histograms"] = _histograms(rows)
    for kind in rows[0].breakdown:
        if len(rows[0].breakdown[kind]) > 1:
            name = f"by_{kind.replace(' ', '_')}"
            figures[name] = _figure(lambda axes, kind=kind: _breakdown(axes, rows, kind))  # type: ignore[misc]
    return figures


def _figure(fill: Callable[[Axes], None]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, HEIGHT), layout="constrained")
        fill(axes := figure.subplots())
        _legend_below(figure, axes)
        return figure


def _legend_below(figure: Figure, axes: Axes) -> None:
    """Where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3, fontsize="small")


def _cmc(axes: Axes, rows: Sequence[ConfigurationResult]) -> None:
    for row in rows:
        ranks = np.arange(1, len(row.cmc) + 1)
        axes.plot(ranks, row.cmc, color=COLOURS.get(row.name), label=row.name, marker="o", markersize=2.5)
    axes.set(xlabel="rank", ylabel="mated probes found", title="CMC, closed set")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_ylim(top=1.005)
    axes.grid(alpha=0.25)


def _det(axes: Axes, named: Sequence[tuple[str, Curve]], positive: str, negative: str) -> None:
    """Both axes logarithmic; the band is the middle 95 % of the replicates."""
    for name, curve in named:
        colour = COLOURS.get(name)
        shown = curve.false_positive > 0
        x, y = curve.false_positive[shown], curve.false_negative[shown]
        axes.plot(x, np.maximum(y, LOWEST_ERROR / 2), color=colour, label=name, linewidth=1.4)
        low, high = np.maximum(curve.band[:, shown], LOWEST_ERROR / 2)
        axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
    lowest = min(curve.false_positive[curve.false_positive > 0].min(initial=1.0) for _, curve in named)
    axes.set(xscale="log", yscale="log", xlim=(min(lowest, 0.5), 1), ylim=(LOWEST_ERROR / 2.2, 1.05))
    said = "one to one" if positive == "FMR" else "open set"
    axes.set(xlabel=positive, ylabel=negative, title=f"{negative} and {positive}, {said}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)


def _histograms(rows: Sequence[ConfigurationResult]) -> Figure:
    """A small panel a row: scores of mated and non-mated comparisons, each set's area 1."""
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, 0.95 * len(rows) + 0.7), layout="constrained")
        panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
        for axes, row in zip(panels, rows, strict=True):
            for kind, colour in (("non-mated", "#999999"), ("mated", COLOURS.get(row.name, "#0072B2"))):
                counts = row.histograms[kind]
                if counts.sum():
                    density = counts / counts.sum() / np.diff(BIN_EDGES)
                    axes.stairs(density, BIN_EDGES, fill=True, alpha=0.55, color=colour, label=kind)
            axes.set(yticks=[], xlim=(-0.4, 1.0))
            axes.set_title(row.name, loc="left", fontsize="small", pad=2)
        panels[-1].set_xlabel("cosine; grey: non-mated comparisons")
        return figure


def _breakdown(axes: Axes, rows: Sequence[ConfigurationResult], kind: str) -> None:
    values = list(rows[0].breakdown[kind])
    places = np.arange(len(values))
    for shift, row in enumerate(rows):
        figures = [row.breakdown[kind][value] for value in values]
        heights = np.array([np.nan if figure.value is None else figure.value for figure in figures])
        spans = np.array([figure.interval() or (np.nan, np.nan) for figure in figures]).T
        errors = np.clip(np.abs(np.stack([heights - spans[0], spans[1] - heights])), 0, None)
        offset = (shift - (len(rows) - 1) / 2) * 0.12
        marks = {"fmt": "o", "markersize": 3, "elinewidth": 0.8, "color": COLOURS.get(row.name)}
        axes.errorbar(places + offset, heights, np.nan_to_num(errors), label=row.name, **marks)  # type: ignore[arg-type]
    axes.set_xticks(places, values, rotation=0 if len(values) < 10 else 60)
    axes.set(xlabel=kind, ylabel="rank-1", title=f"rank-1 by {kind}")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_ylim(top=1.005)
    axes.grid(alpha=0.25, axis="y")
