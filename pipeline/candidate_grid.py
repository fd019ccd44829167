"""Pictures beside the candidates that a search found for them, with names and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from earface.core.errors import InputError
from earface.core.files import atomic_write
from earface.data.face_sizes import NONE
from earface.data.images import Pixels, resize_image
from earface.data.names import printable
from earface.data.pixels import to_uint8
from earface.data.plots import fitting
from earface.nn.upsampler import UPSAMPLER_NAMES, Upsampler
from facial_rec.contract import FaceContract
from pipeline.embedding import Reader, prepare
from pipeline.options import CANDIDATES_GRID, MOST_CANDIDATES

if TYPE_CHECKING:
    from pipeline.identified import Identified

LONGEST = 1600  # pixels of a grid's sides at most
SIDE, CELL, CAPTION = 128, 144, 34  # of a shown face, of it with its margin, of the text above it
DPI = 100
EARS = {"l": ", left", "r": ", right", "": ""}  # after a score
REACHED, BELOW = {"color": "#1a7f37", "weight": "bold"}, {"color": "#333333"}  # the threshold
MISSING = np.full((SIDE, SIDE, 3), 225, np.uint8)


def save_candidates(
    out: Path, found: Sequence[Identified], read: Reader, read_enrolled: Reader, upsampler: Upsampler, device: str
) -> list[str]:
    """PNG files in the folder `out`, as many as `found` needs, of at most LONGEST pixels each way; returns their names.

    A row for each picture, as read and, if an upsampler enlarges it, enlarged; then its candidates.
    found: at least one. read, read_enrolled: what finds the face or the ear, in the pictures and in those enrolled.
    """
    seen = 1 if upsampler.name == NONE else 2
    columns = seen + min(MOST_CANDIDATES, max(len(each.candidates) for each in found))
    cell = min(CELL, LONGEST // columns)
    rows = LONGEST // (cell + CAPTION)
    enrolled = cache(partial(_enrolled, read=read_enrolled))  # the same people are candidates again and again
    names = []
    for number, start in enumerate(range(0, len(found), rows), 1):
        names.append(CANDIDATES_GRID if number == 1 else CANDIDATES_GRID.replace(".", f"_{number}."))
        part = found[start : start + rows]
        grid = _grid(part, columns, cell, read, enrolled, upsampler, device)
        with atomic_write(out / names[-1]) as temporary:
            grid.savefig(temporary, format="png")
    return names


def _grid(
    found: Sequence[Identified],
    columns: int,
    cell: int,
    read: Reader,
    enrolled: Callable[[str], Pixels | None],
    upsampler: Upsampler,
    device: str,
) -> Figure:
    seen = 1 if upsampler.name == NONE else 2
    with mpl.rc_context({"font.family": "sans-serif", "font.size": 7.5}):
        width, height = columns * cell, len(found) * (cell + CAPTION)
        figure, margin = Figure((width / DPI, height / DPI), dpi=DPI), (cell - SIDE) // 2
        for place, each in enumerate(found):
            top = place * (cell + CAPTION) + CAPTION + margin
            row = [_place(figure, margin + column * cell, top) for column in range(columns)]
            face = read(each.shown or each.path)
            row[0].imshow(_shown(face), interpolation="nearest")
            _title(row[0], each.path.name, f"→ {each.decision}")
            if seen == 2:
                row[1].imshow(_enlarged(face, upsampler, device))
                _title(row[1], UPSAMPLER_NAMES[upsampler.name])
            for axes, candidate in zip(row[seen:], each.candidates, strict=False):
                picture = enrolled(candidate.picture)
                axes.imshow(MISSING if picture is None else picture)
                if picture is None:
                    axes.text(0.5, 0.5, "cannot be\nread now", ha="center", va="center", transform=axes.transAxes)
                reached = candidate.score >= each.threshold
                score = f"{candidate.score:.3f}{EARS[candidate.side]}"
                _title(axes, candidate.identity, score, **(REACHED if reached else BELOW))
        return figure


def _place(figure: Figure, left: int, top: int) -> Axes:
    """Empty axes for one face, pixel by pixel; a layout engine would take seconds to measure them all."""
    width, height = figure.get_size_inches() * DPI
    axes = figure.add_axes((left / width, 1 - (top + SIDE) / height, SIDE / width, SIDE / height))
    axes.set_axis_off()
    return axes


def _title(place: Axes, *lines: str, **looks: Any) -> None:
    """Above a face, and no wider."""
    title = place.set_title("", loc="left", y=1.0, parse_math=False, **looks)  # a name may hold dollar signs
    title.set_text("\n".join(fitting(printable(line), title.get_fontproperties(), SIDE, DPI) for line in lines))


def _shown(face: Pixels) -> Pixels:
    """A small face enlarged by whole pixels, a large one shrunk."""
    if face.shape[0] >= SIDE:
        return resize_image(face, SIDE)
    zoom = SIDE // face.shape[0]
    return face.repeat(zoom, 0).repeat(zoom, 1)


@torch.no_grad()
def _enlarged(face: Pixels, upsampler: Upsampler, device: str) -> Pixels:
    return to_uint8(upsampler.enlarge(prepare(face, upsampler, FaceContract())[None].to(device))[0]).cpu().numpy()


def _enrolled(picture: str, read: Reader) -> Pixels | None:
    try:
        return _shown(read(Path(picture)))
    except InputError:  # moved or removed since
        return None
