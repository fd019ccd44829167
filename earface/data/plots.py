"""The one style of plots: colours, sizes, and how they are saved."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from earface.core.files import atomic_write

STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "earface"}
DPI = 130
BLUE, ORANGE, GREY = "#2166ac", "#d6604d", "#b8b8b8"  # distinct without colour vision, too


def as_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as `png` or `svg`."""
    stream = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(stream, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return stream.getvalue()


def save_plot(path: Path, draw: Callable[[Axes], None]) -> None:
    """A PNG of what `draw` puts into one pair of axes, with a legend."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
