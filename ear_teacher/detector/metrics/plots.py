"""The plots of an evaluation: precision and recall, the distribution of landmark errors, and the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from ear_teacher.detector.metrics.average_precision import MATCH_IOU, RECALLS, BoxResult, CocoMetrics, Operation
from earface.data.plots import FIRST, INK, SECOND, SERIES, save_plot

SCORE_BINS = np.linspace(0.0, 1.0, 41)


def save_precision_recall(path: Path, coco: CocoMetrics, operation: Operation) -> None:
    """COCO's interpolated precision at each recall, by IoU, and where the score threshold puts the detector."""

    def draw(axes: Axes) -> None:
        for (iou, precision), look in zip(coco.precisions.items(), SERIES, strict=True):
            axes.plot(RECALLS, precision, label=f"IoU {iou:g}: AP {precision.mean():.3f}", **look.curve())
        if operation.precision is not None and operation.recall is not None:
            name = f"score {operation.threshold:g}, IoU {MATCH_IOU:g}"
            axes.plot(operation.recall, operation.precision, "o", color=INK, label=name)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0.0, 1.01), ylim=(0.0, 1.01))

    save_plot(path, draw)


def save_scores(path: Path, results: Sequence[BoxResult], threshold: float) -> None:
    """The scores of the detections that match an ear at IoU .5, and of the others."""
    found = np.concatenate([result.ears >= 0 for result in results])
    scores = np.concatenate([result.scores.numpy() for result in results])

    def draw(axes: Axes) -> None:
        axes.set_ylim(0.7, 1.5 * max(10, np.histogram(scores, SCORE_BINS)[0].max()))
        axes.set(xlabel="score", ylabel="detections (log)", xlim=(0.0, 1.0), yscale="log")
        for chosen, look, name in ((~found, SECOND, "false alarm"), (found, FIRST, "ear")):
            heights = np.histogram(scores[chosen], SCORE_BINS)[0]
            label = f"{name}: {int(chosen.sum())} detections"
            axes.stairs(heights, SCORE_BINS, fill=True, label=label, **look.area())
        axes.axvline(threshold, color=INK, linestyle=":", linewidth=1.2, label=f"score {threshold:g}")

    save_plot(path, draw)


def save_cumulative_errors(
    path: Path, errors: Mapping[str, NDArray[np.float64]], limit: float, normaliser: str
) -> None:
    """The cumulative distribution of the mean errors of ears; errors: name in the legend -> (N,).

    Infinity is an ear that was not found: its curve ends below 100 %.
    """

    def draw(axes: Axes) -> None:
        for (name, values), look in zip(errors.items(), SERIES, strict=False):
            steps = np.unique(np.append(values[np.isfinite(values)], [0.0, 2.5 * limit]))
            shares = np.searchsorted(np.sort(values), steps, side="right") / max(len(values), 1)
            axes.step(steps, shares, where="post", label=f"{name}: {len(values)} ears", **look.curve())
        axes.axvline(limit, color=INK, linestyle=":", linewidth=1.2, label=f"limit {limit:g}")
        axes.set(xlabel=f"mean error of an ear / {normaliser} diagonal", ylabel="ears")
        axes.set(xlim=(0.0, 2.5 * limit), ylim=(0.0, 1.01))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))

    save_plot(path, draw)
