"""The one style of plots: colours, lines, marks and hatches, sizes, and how they are saved."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from earface.core.files import atomic_write

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "legend.handlelength": 3.2,  # long enough for a pattern of dashes
    "svg.hashsalt": "earface",
}
DPI = 150
INK, BLUE, ORANGE, GREY = "#333333", "#0072B2", "#E69F00", "#B8B8B8"  # Okabe & Ito 2008: safe for the colour-blind
SKY, VERMILION, PURPLE = "#56B4E9", "#D55E00", "#CC79A7"


class Look(NamedTuple):
    """How one of several curves or areas is drawn: no two share a line, so that a grey print tells them apart."""

    colour: str
    line: Any = "-"
    marker: str = "o"
    hatch: str = ""  # of its areas

    def curve(self, **more: Any) -> dict[str, Any]:
        """Of `Axes.plot` and its like."""
        return {"color": self.colour, "linestyle": self.line, "linewidth": 1.5, **more}

    def area(self, **more: Any) -> dict[str, Any]:
        """Of areas, which may overlap: hatched ones are hollow and lie above the filled ones."""
        face = "none" if self.hatch else (self.colour, 0.5)
        looks = {"facecolor": face, "edgecolor": self.colour, "linewidth": 0.8, "hatch": self.hatch}
        return {**looks, "zorder": 3 if self.hatch else 2, **more}


FIRST, SECOND, THIRD = Look(BLUE), Look(ORANGE, (0, (5, 2)), "s", "////"), Look("#8C8C8C", (0, (1, 1.2)), "^", "....")
SERIES = (FIRST, SECOND, THIRD)  # where the curves have no look of their own


def as_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as `png` or `svg`."""
    stream = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(stream, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return stream.getvalue()


def save_plot(path: Path, draw: Callable[[Axes], None]) -> None:
    """A PNG of what `draw` puts into one pair of axes, with a legend."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        draw(axes := figure.add_subplot())
        axes.legend()
    with atomic_write(path) as temporary:
        temporary.write_bytes(as_bytes(figure, "png"))


def text_width(text: str, font: FontProperties, dpi: float) -> float:
    """In pixels, of one line that is no formula."""
    return float(_renderer(dpi).get_text_width_height_descent(text, font, False)[0])


@cache
def _renderer(dpi: float) -> Any:
    untyped: Any = RendererAgg
    return untyped(1, 1, dpi)


def fitting(text: str, font: FontProperties, width: float, dpi: float) -> str:
    """A line, without its middle where it is wider than `width` pixels: names of one set often differ at the end."""
    shown, kept = text, len(text)
    while kept > 1 and text_width(shown, font, dpi) > width:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return shown
