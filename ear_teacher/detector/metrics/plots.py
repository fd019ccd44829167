"""The plots of an evaluation: precision and recall, the distribution of landmark errors, and the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from ear_teacher.detector.metrics.average_precision import MATCH_IOU, RECALLS, BoxResult, CocoMetrics, Operation
from earface.data.plots import BLUE, GREY, ORANGE, save_plot

SCORE_BINS = np.linspace(0.0, 1.0, 41)


def save_precision_recall(path: Path, coco: CocoMetrics, operation: Operation) -> None:
    """COCO's interpolated precision at each recall, by IoU, and where the score threshold puts the detector."""

    def draw(axes: Axes) -> None:
        for (iou, precision), color in zip(coco.precisions.items(), (GREY, BLUE, ORANGE), strict=True):
            axes.plot(RECALLS, precision, color=color, label=f"IoU {iou:g}: AP {precision.mean():.3f}")
        if operation.precision is not None and operation.recall is not None:
            name = f"score {operation.threshold:g}, IoU {MATCH_IOU:g}"
            axes.plot(operation.recall, operation.precision, "o", color="black", label=name)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0.0, 1.01), ylim=(0.0, 1.01))

    save_plot(path, draw)


def save_scores(path: Path, results: Sequence[BoxResult], threshold: float) -> None:
    """The scores of the detections that match an ear at IoU .5, and of the others."""
    found = np.concatenate([result.ears >= 0 for result in results])
    scores = np.concatenate([result.scores.numpy() for result in results])

    def draw(axes: Axes) -> None:
        axes.set_ylim(0.7, 1.5 * max(10, np.histogram(scores, SCORE_BINS)[0].max()))
        axes.set(xlabel="score", ylabel="detections (log)", xlim=(0.0, 1.0), yscale="log")
        for chosen, color, name in ((~found, ORANGE, "false alarm"), (found, BLUE, "ear")):
            heights = np.histogram(scores[chosen], SCORE_BINS)[0]
            label = f"{name}: {int(chosen.sum())} detections"
            axes.stairs(heights, SCORE_BINS, fill=True, alpha=0.6, color=color, label=label)
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1.0)

    save_plot(path, draw)


def save_cumulative_errors(
    path: Path, errors: Mapping[str, NDArray[np.float64]], limit: float, normaliser: str
) -> None:
    """The cumulative distribution of the mean errors of ears; errors: name in the legend -> (N,).

    Infinity is an ear that was not found: its curve ends below 100 %.
    """

    def draw(axes: Axes) -> None:
        for (name, values), color in zip(errors.items(), (BLUE, ORANGE), strict=False):
            steps = np.unique(np.append(values[np.isfinite(values)], [0.0, 2.5 * limit]))
            shares = np.searchsorted(np.sort(values), steps, side="right") / max(len(values), 1)
            axes.step(steps, shares, where="post", color=color, label=f"{name}: {len(values)} ears")
        axes.axvline(limit, color="black", linestyle="--", linewidth=1.0, label=f"limit {limit:g}")
        axes.set(xlabel=f"mean error of an ear / {normaliser} diagonal", ylabel="ears")
        axes.set(xlim=(0.0, 2.5 * limit), ylim=(0.0, 1.01))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))

    save_plot(path, draw)
