"""The pictures of eigenears: a grid per component, a grid of all, traversals, interpolations and two plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from ear_teacher.eigenears.appearance import LUMA, PARTS
from ear_teacher.eigenears.image_grid import (
    DARK,
    GAP,
    LIGHT,
    SIDE,
    Floats,
    ImageGrid,
    colours,
    save_figure,
    signed,
    strip_width,
)
from earface.data.plots import BLUE, GREY, ORANGE, PURPLE, SERIES, Look

LOOKS = {
    name: Look(colour, hatch=hatch)
    for name, colour, hatch in zip(PARTS, (ORANGE, PURPLE, GREY, BLUE), ("", "////", "....", ""), strict=True)
}
MARGIN = 16
NAMES = 118  # width of the names of rows
CELLS = 4  # components side by side in the grid


@dataclass(frozen=True)
class ComponentPictures:
    """The pictures of one component, (S, C, H, W) in [0, 1], one for each of S positions."""

    number: int
    title: str
    name: str  # what moves
    remark: str
    positions: Floats  # (S,) in standard deviations, symmetric about 0
    from_mean: Tensor  # decoded from the mean ear
    from_ear: Tensor  # decoded from one real ear, the same for all components
    nearest: Tensor  # input ears whose score is near each position
    nearest_scores: Floats  # (S,) theirs, from the mean ear's
    parts: Mapping[str, float]  # shares of PARTS

    @property
    def change(self) -> Floats:
        """(S, H, W) difference in luma from the middle position, decoded from the mean ear."""
        luma: Floats = np.tensordot(colours(self.from_mean), LUMA, axes=1)
        middle: Floats = (luma[0] + luma[-1]) / 2 if len(luma) % 2 == 0 else luma[len(luma) // 2]
        return luma - middle


def sigmas(position: float) -> str:
    """'+1.5 sd', or 'mean' at 0."""
    return "mean" if abs(position) < 1e-9 else f"{position:+.3g} sd".replace("-", "\N{MINUS SIGN}")


def save_component(path: Path, shown: ComponentPictures) -> None:
    """Traversals from the mean ear and from one input ear, the change, input ears with such scores, the composition."""
    rows = {
        "from the\nmean ear": colours(shown.from_mean),
        "change in\nbrightness": signed(shown.change),
        "from one\ninput ear": colours(shown.from_ear),
        "input ears\nwith such\na score": colours(shown.nearest),
    }
    width = NAMES + strip_width(len(shown.positions)) + MARGIN
    top = 106
    grid = ImageGrid(width, top + len(rows) * (SIDE + GAP) + 118)
    grid.text(MARGIN, 24, shown.title, 12)
    grid.text(width - MARGIN, 24, shown.remark, 9, LIGHT, ha="right")
    grid.text(MARGIN, 52, f"what moves, in shares of the ear's height: {shown.name}", 9)
    for place, position in enumerate(shown.positions):
        center = NAMES + place * (SIDE + GAP) + SIDE / 2
        grid.text(center, top - 18, sigmas(position), 9, ha="center")
    for number, (name, pictures) in enumerate(rows.items()):
        row_top = top + number * (SIDE + GAP)
        grid.text(NAMES - 12, row_top + SIDE / 2, name, 8.5, ha="right")
        grid.row(NAMES, row_top, pictures)
    below = top + len(rows) * (SIDE + GAP)
    for place, score in enumerate(shown.nearest_scores):
        center = NAMES + place * (SIDE + GAP) + SIDE / 2
        words = f"{score:+.1f}".replace("-", "\N{MINUS SIGN}") if abs(score) >= 0.05 else "0.0"
        grid.text(center, below + 4, words, 7.5, LIGHT, ha="center")
    grid.text(NAMES - 12, below + 48, "made of", 8.5, ha="right")
    _bar(grid, NAMES, below + 34, strip_width(len(shown.positions)), 28, shown.parts, shares=True)
    _legend(grid, NAMES, below + 88)
    grid.save(path)


def save_grid(path: Path, components: Sequence[ComponentPictures], heading: str) -> None:
    """Both ends of every component, their difference, and its composition, in one grid."""
    across = min(CELLS, len(components))
    cell_width, cell_height = strip_width(3) + 3 * MARGIN, SIDE + 142
    down = -(-len(components) // across)
    grid = ImageGrid(across * cell_width + MARGIN, 62 + down * cell_height + 44)
    grid.text(MARGIN + 8, 26, heading, 13)
    for place, shown in enumerate(components):
        left, top = MARGIN + 8 + place % across * cell_width, 56 + place // across * cell_height
        grid.text(left, top + 12, shown.title, 9.5)
        names = (sigmas(shown.positions[0]), sigmas(shown.positions[-1]), "change")
        for column, name in enumerate(names):
            grid.text(left + column * (SIDE + GAP) + SIDE / 2, top + 36, name, 7.5, LIGHT, ha="center")
        ends = colours(shown.from_mean[[0, -1]])
        grid.row(left, top + 48, np.concatenate([ends, signed(shown.change[-1:] - shown.change[:1])]))
        _bar(grid, left, top + 48 + SIDE + 8, strip_width(3), 10, shown.parts, shares=False)
        for line, words in enumerate((*shown.name.split("; "), shown.remark)):
            grid.text(left, top + 48 + SIDE + 32 + 18 * line, words, 7.5, LIGHT if words == shown.remark else DARK)
    _legend(grid, MARGIN + 8, 62 + down * cell_height + 18)
    grid.save(path)


def save_rows(path: Path, columns: Sequence[str], rows: Mapping[str, Tensor], heading: str) -> None:
    """rows: name -> (S, C, H, W) in [0, 1]; columns: their names."""
    grid = ImageGrid(NAMES + strip_width(len(columns)) + MARGIN, 84 + len(rows) * (SIDE + GAP) + MARGIN)
    grid.text(MARGIN, 24, heading, 12)
    for place, name in enumerate(columns):
        grid.text(NAMES + place * (SIDE + GAP) + SIDE / 2, 66, name, 9, ha="center")
    for number, (name, images) in enumerate(rows.items()):
        top = 84 + number * (SIDE + GAP)
        grid.text(NAMES - 12, top + SIDE / 2, name, 8.5, ha="right")
        grid.row(NAMES, top, colours(images))
    grid.save(path)


def _bar(
    grid: ImageGrid, left: float, top: float, width: float, height: float, parts: Mapping[str, float], shares: bool
) -> None:
    """A bar split by the shares of PARTS."""
    axes = grid.axes(left, top, width, height)
    start = 0.0
    for name in PARTS:
        axes.barh(0, parts[name], left=start, height=1.0, **_filled(LOOKS[name]))
        if shares and parts[name] >= 0.04:
            place, behind = start + parts[name] / 2, {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            look: dict[str, Any] = {"fontsize": 8.5, "color": DARK, "bbox": behind}
            axes.text(place, 0, f"{parts[name]:.0%}", ha="center", va="center_baseline", **look)
        start += parts[name]
    axes.set(xlim=(0, 1), ylim=(-0.5, 0.5))


def _filled(look: Look) -> dict[str, Any]:
    return {"color": look.colour, "edgecolor": "white", "linewidth": 0, "hatch": look.hatch}


def _legend(grid: ImageGrid, left: float, top: float) -> None:
    for number, name in enumerate(PARTS):
        place = left + number * 150
        grid.axes(place, top - 7, 22, 14).set_axis_on()
        axes = grid.figure.axes[-1]
        axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(-0.5, 0.5))
        axes.barh(0, 1, height=1.0, **_filled(LOOKS[name]))
        axes.spines[:].set_visible(False)
        grid.text(place + 32, top, name, 8.5)


def save_explained_variance(
    path: Path, variance: Floats, parts: Mapping[str, Floats], cumulative: Mapping[str, Floats], name: str
) -> None:
    """Bars of each component's share, split by its composition, beside cumulative shares of several methods.

    variance: (K,), parts: (K,) each, cumulative: name in the legend -> (K,), the first most prominent.
    """
    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    numbers = np.arange(1, len(variance) + 1)
    bottom = np.zeros(len(variance))
    for part in PARTS:
        heights = variance * parts[part]
        left.bar(numbers, heights, 0.8, bottom=bottom, label=part, **_filled(LOOKS[part]))
        bottom += heights
    left.set(xlabel="component", ylabel=name)
    left.legend(frameon=False)
    first = min(5, len(variance))
    left.set_title(f"the first {first}: {variance[:first].sum():.1%}", loc="left", fontsize="medium")
    for (label, shares), look in zip(cumulative.items(), SERIES, strict=False):
        along = np.arange(1, len(shares) + 1)
        right.plot(along, np.cumsum(shares), marker=look.marker, markersize=4, label=label, **look.curve())
    right.set(xlabel="components, together", ylabel="share of the variance", ylim=(0, 1.02))
    right.legend(frameon=False, loc="best", fontsize="small")
    for axes in (left, right):
        axes.set_xlim(0.4, len(variance) + 0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    save_figure(path, figure)


def save_factors(path: Path, explained: Mapping[str, Floats]) -> None:
    """Heat map: group of factors -> share (K,) of each component's variance; below 0 is shown as 0."""
    table = np.array(list(explained.values())).T.clip(0.0, 1.0)
    figure = Figure(figsize=(2.2 + 0.8 * table.shape[1], 1.3 + 0.34 * len(table)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(table, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for (row, column), share in np.ndenumerate(table):
        if share >= 0.005:
            ink = "white" if share > 0.55 else DARK
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=8.5, color=ink)
    axes.set_xticks(range(table.shape[1]), list(explained), fontsize=9)
    axes.set_yticks(range(len(table)), [f"PC {row + 1}" for row in range(len(table))], fontsize=9)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_title("share of each component explained by the factors of the synthetic ears", loc="left", pad=12)
    bar = figure.colorbar(image, ax=axes, label="cross-validated R\N{SUPERSCRIPT TWO}", shrink=0.8)
    bar.outline.set_visible(False)
    save_figure(path, figure)
