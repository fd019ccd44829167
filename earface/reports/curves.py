"""Curves of metrics over epochs, as pictures for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from earface.data.plots import STYLE, as_bytes

WIDTH, HEIGHT = 4.4, 2.9  # inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")  # Okabe & Ito 2008
OWN = {"training": ("#8a94a0", "--"), "validation": ("#0072B2", "-")}  # the same in every picture
DASHES = ("-", "--", "-.", ":")  # so that they differ in grey, too
FEW = 30  # points that get a mark each

Curve = Sequence[tuple[float, float]]


def draw_curves(title: str, curves: Mapping[str, Curve], marked: float | None = None) -> bytes:
    """An SVG. curves: name -> (epochs, value). marked: an epoch to point out."""
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        if marked is not None:
            axes.axvline(marked, color="#b8b8b8", linewidth=1, zorder=0)
        for place, (name, points) in enumerate(curves.items()):
            colour, dashes = OWN.get(name, (COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]))
            axes.plot(
                *zip(*points, strict=True),
                label=name,
                color=colour,
                linestyle=dashes,
                linewidth=1.6,
                marker="o" if len(points) <= FEW else None,
                markersize=3,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel("epoch")
        axes.grid(axis="y", color="#e6e9ed", linewidth=0.8)
        axes.set_axisbelow(True)
        if len(curves) > 1 or next(iter(curves)) != title:
            axes.legend(frameon=False, fontsize="small")
        return as_bytes(figure, "svg")
