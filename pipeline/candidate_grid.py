"""Pictures beside the candidates that a search found for them, with names and scores."""

from __future__ import annotations

from collections.abc import Sequence
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
from earface.nn.upsampler import UPSAMPLER_NAMES, Upsampler
from facial_rec.contract import FaceContract
from pipeline.embedding import Reader, prepare
from pipeline.options import MOST_CANDIDATES

if TYPE_CHECKING:
    from pipeline.gallery import Identified

SIDE = 128  # pixels of a shown face
EARS = {"l": ", left", "r": ", right", "": ""}  # after a score
INCHES, CAPTION, DPI = 1.35, 0.32, 110  # height of a face with its margin, and of the text above it
FACE = 0.9 * INCHES
REACHED, BELOW = "#1a7f37", "black"  # the threshold
MISSING = np.full((SIDE, SIDE, 3), 225, np.uint8)
LONGEST_NAME, BOLD = 18, 15  # letters above a face


def save_candidates(
    path: Path, found: Sequence[Identified], read: Reader, read_enrolled: Reader, upsampler: Upsampler, device: str
) -> None:
    """PNG: a row for each picture, as read and, if an upsampler enlarges it, enlarged; then its candidates.

    found: at least one. read, read_enrolled: what finds the face or the ear, in the pictures and in those enrolled.
    """
    seen = 1 if upsampler.name == NONE else 2
    columns = seen + min(MOST_CANDIDATES, max(len(each.candidates) for each in found))
    with mpl.rc_context({"font.family": "sans-serif", "font.size": 7}):
        size = columns * INCHES, len(found) * (INCHES + CAPTION)
        figure, margin = Figure(size, dpi=DPI), (INCHES - FACE) / 2
        axes = figure.subplots(len(found), columns, squeeze=False)
        figure.subplots_adjust(  # a layout engine would take seconds to measure every axis
            left=margin / size[0],
            right=1 - margin / size[0],
            bottom=margin / size[1],
            top=1 - (margin + CAPTION) / size[1],
            wspace=INCHES / FACE - 1,
            hspace=(INCHES + CAPTION) / FACE - 1,
        )
        for row, each in zip(axes, found, strict=True):
            for place in row:
                place.set_axis_off()
            face = read(each.path)
            row[0].imshow(_shown(face), interpolation="nearest")
            _title(row[0], f"{_short(each.path.name, BOLD)}\n→ {_short(each.decision, BOLD - 2)}", weight="bold")
            if seen == 2:
                row[1].imshow(_enlarged(face, upsampler, device))
                _title(row[1], UPSAMPLER_NAMES[upsampler.name])
            for place, candidate in zip(row[seen:], each.candidates, strict=False):
                enrolled = _enrolled(candidate.picture, read_enrolled)
                place.imshow(MISSING if enrolled is None else enrolled)
                if enrolled is None:
                    place.text(0.5, 0.5, "cannot be\nread now", ha="center", va="center", transform=place.transAxes)
                colour = REACHED if candidate.score >= each.threshold else BELOW
                _title(
                    place, f"{_short(candidate.identity)}\n{candidate.score:.3f}{EARS[candidate.side]}", color=colour
                )
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")


def _title(place: Axes, text: str, **looks: Any) -> None:
    place.set_title(text, loc="left", y=1.0, parse_math=False, **looks)  # a name may hold dollar signs


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


def _short(name: str, longest: int = LONGEST_NAME) -> str:
    """Without its middle: pictures of one person often differ at the end of their names."""
    name, kept = printable(name), longest // 2
    return name if len(name) <= longest else f"{name[: longest - kept - 1]}…{name[-kept:]}"
