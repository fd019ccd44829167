"""Plots that compare conditions: metrics of every configuration over the size of the probes, or how far they moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from earface.data.plots import FIRST
from earface.metrics.resampling import Estimate
from pipeline.configuration_metrics import METRICS
from pipeline.configurations import CONFIGURATIONS, Condition
from pipeline.evaluation import ConditionResult
from pipeline.plots import LOOKS, figure_of
from pipeline.recommendations import DEGRADED, FNIR

HR = CONFIGURATIONS[0]  # the same under every condition
MOVED_BY = {
    "shift": "crop off by, pixels of the VLR face",
    "turn": "crop turned by, degrees",
    "zoom": "face larger or smaller by",
}
APART = 0.006  # of the axis, between the error bars of two configurations


class Point(NamedTuple):
    """A condition on the axis, and what is written there."""

    x: float
    label: str
    result: ConditionResult


@dataclass(frozen=True)
class Axis:
    """Conditions that differ in one thing."""

    name: str
    title: str
    label: str
    metrics: Sequence[str]
    points: list[Point]

    def lines(self, metric: str) -> dict[str, list[tuple[float, Estimate]]]:
        """Configuration -> its values from left to right, where there are enough data for them."""
        found: dict[str, list[tuple[float, Estimate]]] = {}
        for point in sorted(self.points, key=lambda point: point.x):
            for each in point.result.results:
                if metric in each.metrics and each.metrics[metric].value is not None:
                    found.setdefault(each.name, []).append((point.x, each.metrics[metric]))
        return found


def axes_of(results: Sequence[ConditionResult]) -> list[Axis]:
    """What conditions of faces differ in, where it has two values or more; nothing of ears.

    The sizes of aligned faces under each degradation; and at each size and degradation how far the crops are off by one
    kind of movement, from 0 on, which is aligned.
    """
    found: dict[str, Axis] = {}
    for result in results:
        condition = result.condition
        if not isinstance(condition, Condition):
            continue
        words = DEGRADED[condition.degradation].partition(":")[0]
        if (moved := condition.movement) is None:
            size = condition.vlr
            axis = Axis(f"size_{condition.degradation}", words, "side of the face, pixels", ("rank1", FNIR), [])
            point = Point(sqrt(size.width * size.height), str(size), result)
        else:
            name, label = f"{moved.kind}_{replace(condition, movement=None).slug}", MOVED_BY[moved.kind]
            axis = Axis(name, f"{condition.vlr_size} px, {words}", label, ("rank1",), [])
            point = Point(moved.amount, f"{moved.amount:g}", result)
        found.setdefault(axis.name, axis).points.append(point)
        if moved is not None and len(found[axis.name].points) == 1:
            aligned = (each for each in results if each.condition == replace(condition, movement=None))
            found[axis.name].points.extend(Point(0.0, "0", each) for each in aligned)
    return [axis for axis in found.values() if len(axis.points) > 1]


def draw_over_conditions(results: Sequence[ConditionResult]) -> dict[str, Figure]:
    """Name -> plot of one metric over one axis."""
    return {
        f"over_{axis.name}_{metric}": figure_of(partial(_draw, axis=axis, metric=metric, lines=lines))
        for axis in axes_of(results)
        for metric in axis.metrics
        if (lines := axis.lines(metric))
    }


def _draw(axes: Axes, axis: Axis, metric: str, lines: Mapping[str, Sequence[tuple[float, Estimate]]]) -> None:
    """A line with 95 % intervals for each configuration; HR is level, with its interval as a band."""
    title, higher = METRICS[metric]
    places = {point.x: point.label for point in axis.points}
    width = max(places) - min(places)
    for shift, (name, values) in enumerate(lines.items()):
        look = LOOKS.get(name, FIRST)
        heights = np.array([estimate.value for _, estimate in values])
        spans = np.array([estimate.interval() or (estimate.value, estimate.value) for _, estimate in values])
        if name == HR:
            axes.axhline(heights[0], label=name, **look.curve())
            axes.axhspan(*spans[0], color=look.colour, alpha=0.13, linewidth=0)
            continue
        x = np.array([place for place, _ in values]) + (shift - len(lines) / 2) * APART * width
        bars = np.clip([heights - spans[:, 0], spans[:, 1] - heights], 0, None)
        marks = look.curve(marker=look.marker, markersize=5, elinewidth=0.9, capsize=2.5)
        axes.errorbar(x, heights, bars, label=name, **marks)
    axes.set_xticks(list(places), list(places.values()))
    axes.set(xlabel=axis.label, ylabel=f"{title}, {'higher' if higher else 'lower'} is better")
    axes.set_title(f"{title}, {axis.title}")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_ylim(**({"top": 1.005} if higher else {"bottom": 0}))
    axes.grid(alpha=0.25, axis="y")
