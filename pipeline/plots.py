"""The plots of an evaluation: CMC, DET curves, score histograms, rank-1 by camera angle and illumination."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from earface.data.plots import BLUE, FIRST, INK, ORANGE, SECOND, SKY, STYLE, VERMILION, Look
from earface.metrics.error_reject import REJECTED
from earface.metrics.resampling import Curve
from pipeline.configuration_metrics import BIN_EDGES, ConfigurationResult
from pipeline.quality import MEASURES

LOOKS = {
    "HR": Look(INK, "-", "o"),
    "bicubic + pretrained": Look(ORANGE, (0, (1, 1.2)), "v"),
    "bicubic + fine-tuned": Look(VERMILION, (0, (5, 2)), "^"),
    "DSR + pretrained": Look(SKY, (0, (4, 1.5, 1, 1.5)), "s"),
    "DSR + fine-tuned": Look(BLUE, (0, (9, 2)), "D"),
    "HOG": SECOND,
    "recogniser": FIRST,
}
QUALITY_LOOKS = (Look(BLUE, "-"), Look(VERMILION, (0, (5, 2))), Look(ORANGE, (0, (1, 1.2))), Look(SKY, (0, (9, 2))))
NON_MATED = Look("#8C8C8C", hatch="/////")
WIDTH, HEIGHT = 5.2, 4.0  # inches
LOWEST_ERROR = 1e-3  # of the axis
MOST_INTERVALS = 10  # values with intervals side by side; those of more stand in the table alone


def draw(results: Sequence[ConfigurationResult]) -> dict[str, Figure]:
    """Name -> plot, of everything that there are data for. results: one for each configuration."""
    figures = {}
    if any(len(each.cmc) for each in results):
        figures["cmc"] = figure_of(lambda axes: _cmc(axes, results))
    if verification := [(each.name, each.verification) for each in results if each.verification]:
        figures["det_verification"] = figure_of(lambda axes: _det(axes, verification, "FMR", "FNMR"))
    if identification := [(each.name, each.identification) for each in results if each.identification]:
        figures["det_identification"] = figure_of(lambda axes: _det(axes, identification, "FPIR", "FNIR"))
    figures["histograms"] = _histograms(results)
    if any(len(curves["rank1_error"].errors) for curves in results[-1].error_rejects.values()):
        figures["error_reject"] = figure_of(lambda axes: _error_reject(axes, results[-1]))
    if any(len(each.picture_sets) > 1 for each in results):
        figures["several_pictures"] = figure_of(lambda axes: _several_pictures(axes, results))
    for kind in results[0].breakdown:
        if len(results[0].breakdown[kind]) > 1:
            name = "by_" + re.sub(r"\W", "_", kind)[:60]  # of a column, anyone's
            figures[name] = figure_of(lambda axes, kind=kind: _breakdown(axes, results, kind))  # type: ignore[misc]
    return figures


def figure_of(fill: Callable[[Axes], None]) -> Figure:
    """One pair of axes, which `fill` draws in, with a legend below."""
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, HEIGHT), layout="constrained")
        fill(axes := figure.subplots())
        _legend_below(figure, axes)
        return figure


def _legend_below(figure: Figure, axes: Axes) -> None:
    """Outside the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3, fontsize="small")


def _cmc(axes: Axes, results: Sequence[ConfigurationResult]) -> None:
    for each in results:
        ranks = np.arange(1, len(each.cmc) + 1)
        look = LOOKS.get(each.name, FIRST)
        every = max(1, len(ranks) // 10)  # marks
        axes.plot(ranks, each.cmc, label=each.name, marker=look.marker, markersize=4, markevery=every, **look.curve())
    axes.set(xlabel="rank", ylabel="mated probes identified", title="CMC, closed set")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_ylim(top=1.005)
    axes.grid(alpha=0.25)


def _det(axes: Axes, named: Sequence[tuple[str, Curve]], positive: str, negative: str) -> None:
    """Both axes logarithmic; the band is the middle 95 % of the replicates."""
    for name, curve in named:
        look = LOOKS.get(name, FIRST)
        shown = curve.false_positive > 0
        x, y = curve.false_positive[shown], curve.false_negative[shown]
        axes.plot(x, np.maximum(y, LOWEST_ERROR / 2), label=name, **look.curve())
        low, high = np.maximum(curve.band[:, shown], LOWEST_ERROR / 2)
        axes.fill_between(x, low, high, color=look.colour, alpha=0.13, linewidth=0)
    lowest = min(curve.false_positive[curve.false_positive > 0].min(initial=1.0) for _, curve in named)
    axes.set(xscale="log", yscale="log", xlim=(min(lowest, 0.5), 1), ylim=(LOWEST_ERROR / 2.2, 1.05))
    task = "verification" if positive == "FMR" else "open set"
    axes.set(xlabel=positive, ylabel=negative, title=f"{negative} against {positive}, {task}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)


def _error_reject(axes: Axes, result: ConfigurationResult) -> None:
    """Of one configuration, a curve for each measure; dotted: every error rejected first."""
    for (measure, curves), look in zip(result.error_rejects.items(), QUALITY_LOOKS, strict=False):
        axes.plot(REJECTED, curves["rank1_error"].errors, label=MEASURES[measure], **look.curve())
        start = curves["rank1_error"].errors[0]
    best = np.maximum(0.0, start - REJECTED) / (1.0 - REJECTED)
    axes.plot(REJECTED, best, color=NON_MATED.colour, linestyle=":", label="errors first")
    axes.set(
        xlabel="probes rejected", ylabel="rank-1 error of the others", title=f"Error against rejects, {result.name}"
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)


def _several_pictures(axes: Axes, results: Sequence[ConfigurationResult]) -> None:
    """Rank-1 by how many pictures a probe has; hollow: of the same people by one picture."""
    for each in results:
        look = LOOKS.get(each.name, FIRST)
        sizes = [own.pictures for own in each.picture_sets]
        shares = np.array(
            [[np.nan if e.value is None else e.value for e in (own.rank1, own.single)] for own in each.picture_sets]
        )
        axes.plot(sizes, shares[:, 0], label=each.name, marker=look.marker, markersize=5, **look.curve())
        axes.plot(sizes, shares[:, 1], look.marker, color=look.colour, markerfacecolor="none", markersize=5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.set(xlabel="pictures of a probe; hollow: one, of the same people", ylabel="rank-1", title="Several pictures")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_ylim(top=1.005)
    axes.grid(alpha=0.25)


def _histograms(results: Sequence[ConfigurationResult]) -> Figure:
    """A panel for each configuration: scores of mated and non-mated comparisons, each set normalised to area 1."""
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, 0.95 * len(results) + 0.7), layout="constrained")
        panels = figure.subplots(len(results), 1, sharex=True, squeeze=False)[:, 0]
        for axes, each in zip(panels, results, strict=True):
            for kind, look in (("non-mated", NON_MATED), ("mated", Look(LOOKS.get(each.name, FIRST).colour))):
                counts = each.histograms[kind]
                if counts.sum():
                    density = counts / counts.sum() / np.diff(BIN_EDGES)
                    axes.stairs(density, BIN_EDGES, fill=True, label=kind, **look.area())
            axes.set(yticks=[], xlim=(-0.4, 1.0))
            axes.set_title(each.name, loc="left", fontsize="small", pad=2)
        panels[-1].set_xlabel("cosine; hatched: non-mated comparisons")
        return figure


def _breakdown(axes: Axes, results: Sequence[ConfigurationResult], kind: str) -> None:
    values, title = list(results[0].breakdown[kind]), _literal(kind)
    places = np.arange(len(values))
    for shift, each in enumerate(results):
        shares = [each.breakdown[kind][value] for value in values]
        heights = np.array([np.nan if share.value is None else share.value for share in shares])
        spans = np.array([share.interval() or (np.nan, np.nan) for share in shares]).T
        errors = np.clip(np.abs(np.stack([heights - spans[0], spans[1] - heights])), 0, None)
        offset = (shift - (len(results) - 1) / 2) * 0.12
        look = LOOKS.get(each.name, FIRST)
        marks = {"fmt": look.marker, "markersize": 3.5, "elinewidth": 0.8, "color": look.colour}
        shown = np.nan_to_num(errors) if len(values) <= MOST_INTERVALS else None
        axes.errorbar(places + offset, heights, shown, label=each.name, **marks)  # type: ignore[arg-type]
    axes.set_xticks(places, list(map(_literal, values)), rotation=0 if len(values) < 10 else 60)
    axes.set(xlabel=title, ylabel="rank-1", title=f"rank-1 by {title}")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_ylim(top=1.005)
    axes.grid(alpha=0.25, axis="y")


def _literal(text: str) -> str:
    """Not mathematics to matplotlib."""
    return text.replace("$", r"\$")
