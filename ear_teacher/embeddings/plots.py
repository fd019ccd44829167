"""Pictures of embeddings: a query and its neighbours, an image grid of clusters, TensorBoard's projector."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot: always the Agg canvas, no global state
from matplotlib.font_manager import FontProperties
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ear_teacher.embeddings.table import Embeddings
from earface.core.errors import InputError
from earface.core.files import atomic_write, remove_results
from earface.data.image_grid import save_image_grid, tile
from earface.data.images import Pixels
from earface.data.names import printable
from earface.data.plots import BLUE, DPI, GREY, ORANGE, fitting, text_width

TILE = 224  # height in pixels of a neighbour
COLUMNS = 6
CAPTION, NOTE = 7.5, 8  # sizes of the text below an ear, and below all
TAG, SPRITE = "ears", "sprite.png"  # its folder, and TensorBoard's file of all thumbnails
MAX_SHOWN = 36  # neighbours on one picture
CLUSTER_TILE, CLUSTER_COLUMNS = 96, 12
SPRITE_SIDE, MAX_THUMBNAIL, MIN_THUMBNAIL = 8192, 64, 16  # TensorBoard takes one square picture of all thumbnails


@dataclass(frozen=True)
class Shown:
    """An ear to show. subject: empty if unknown; picture: None if its file no longer exists."""

    picture: Pixels | None
    name: str
    subject: str


def common_width(pictures: Sequence[Pixels | None], height: int) -> int:
    """Of tiles that most of the pictures fill at full height: photographed ears are narrow, synthetic ones square."""
    shares = [picture.shape[1] / picture.shape[0] for picture in pictures if picture is not None] or [1.0]
    return round(height * float(np.clip(np.quantile(shares, 0.9), 0.5, 1.0)))


def save_neighbors(path: Path, query: Shown, neighbors: Sequence[tuple[Shown, float]], measure: str) -> None:
    """The query and its neighbours (with their cosines), most similar first, MAX_SHOWN of them at most.

    measure: how they are compared, for the line below them.
    Where both subjects are known the frame is blue for the query's own subject and orange for another.
    """
    shown = neighbors[:MAX_SHOWN]
    columns = min(COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    width = common_width([query.picture, *(neighbor.picture for neighbor, _ in shown)], TILE)
    legend = "; frames: blue same subject, orange another" if query.subject else ""
    across = (columns + 1) * (0.25 + 1.9 * width / TILE)
    lines = math.ceil(text_width(f"{measure}{legend}", FontProperties(size=NOTE), DPI) / (0.9 * across * DPI))
    figure = Figure(figsize=(across, 0.4 + 2.65 * rows + 0.16 * (lines - 1)))
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    grid = figure.add_gridspec(rows, columns + 1)
    _draw(figure.add_subplot(grid[0, 0]), query, width, "query", "black")
    for rank, (neighbor, similarity) in enumerate(shown, 1):
        color = GREY
        if query.subject and neighbor.subject:
            color = BLUE if query.subject == neighbor.subject else ORANGE
        axes = figure.add_subplot(grid[(rank - 1) // columns, 1 + (rank - 1) % columns])
        _draw(axes, neighbor, width, f"{rank}.  {similarity:.2f}", color)
    figure.supxlabel(f"{measure}{legend}", x=0.01, ha="left", fontsize=NOTE, color="#444444", wrap=True)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def _draw(axes: Axes, ear: Shown, width: int, title: str, color: str) -> None:
    axes.imshow(tile(ear.picture, TILE, width))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=color, linewidth=2.5)
    axes.set_title(title, fontsize=11, fontweight="bold" if title == "query" else "normal")
    lines = [f"subject {ear.subject}"] * bool(ear.subject) + ["/".join(Path(ear.name).parts[-2:])]
    room, font = (0.15 + 1.9 * width / TILE) * DPI, FontProperties(size=CAPTION)  # of its column
    axes.set_xlabel(
        "\n".join(fitting(printable(line), font, room, DPI) for line in lines), fontsize=CAPTION, parse_math=False
    )
    if ear.picture is None:
        axes.text(width / 2, TILE / 2, "picture not found", ha="center", fontsize=8, color="#666666")


def save_clusters(path: Path, rows: Sequence[tuple[str, Sequence[Pixels | None]]]) -> None:
    """One row per cluster: its label and up to CLUSTER_COLUMNS of its ears."""
    width = common_width([picture for _, pictures in rows for picture in pictures], CLUSTER_TILE)
    save_image_grid(
        path, {label: to_tensor([tile(p, CLUSTER_TILE, width) for p in pictures]) for label, pictures in rows}
    )


def to_tensor(tiles: Sequence[Pixels]) -> Tensor:
    """(N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float() / 255.0


def thumbnail_side(count: int) -> int:
    """Such that TensorBoard can show the square of all thumbnails. Raises InputError for too many ears."""
    side = min(MAX_THUMBNAIL, SPRITE_SIDE // math.ceil(math.sqrt(count)))
    if side < MIN_THUMBNAIL:
        most = (SPRITE_SIDE // MIN_THUMBNAIL) ** 2
        raise InputError(f"`projector`: {count:,} ears are more than the {most:,} that TensorBoard can show")
    return side


def write_projector(folder: Path, table: Embeddings, pictures: Sequence[Pixels | None]) -> None:
    """For `tensorboard --logdir folder`, under Projector: embeddings, names, subjects, clusters, thumbnails.

    pictures: of the rows, or none at all: then thumbnails of an earlier call are deleted.
    """
    columns: dict[str, Sequence[object]] = {"path": table.paths}
    if table.subjects is not None:
        columns["subject"] = table.subjects
    if table.cluster is not None:
        columns["cluster"] = table.cluster.tolist()
    side = thumbnail_side(len(table))
    rows = [[_one_cell(value) for value in row] for row in zip(*columns.values(), strict=True)]
    remove_results(folder, [f"*/{TAG}/{SPRITE}"])
    with SummaryWriter(str(folder)) as writer, contextlib.redirect_stdout(io.StringIO()):  # warns of what it replaces
        writer.add_embedding(
            torch.from_numpy(table.embeddings),
            metadata=rows if len(columns) > 1 else [row[0] for row in rows],
            metadata_header=list(columns) if len(columns) > 1 else None,
            label_img=to_tensor([tile(picture, side, side) for picture in pictures]) if pictures else None,
            tag=TAG,
        )


def _one_cell(value: object) -> str:
    return printable(" ".join(str(value).split()) or "unknown")  # a tab or a line break would shift the table
