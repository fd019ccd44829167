"""Faces side by side with names and scores: what was asked, and whom the search proposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from data.atomic import atomic_write
from data.errors import InputError
from data.images import Pixels, resize_image
from facial_rec.contract import FaceContract
from facial_rec.inputs import Route
from pipeline.recognizer import HR, prepare
from training.image_quality import to_unit

if TYPE_CHECKING:
    from pipeline.identify import Identified

SIDE = 128  # pixels of a shown face
INCHES, DPI = 1.35, 110  # of a shown face and its caption
RIGHT, WRONG, MISSING = "#1a7f37", "#b42318", np.full((SIDE, SIDE, 3), 225, np.uint8)
LONGEST_NAME = 18

Reader = Callable[[Path], Pixels]


def as_pixels(face: torch.Tensor) -> Pixels:
    """(3, H, W) in [-1, 1] -> (H, W, 3) uint8."""
    return np.asarray((to_unit(face.float()).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def save_candidates(
    path: Path, found: Sequence[Identified], read: Reader, read_enrolled: Reader, route: Route, device: str
) -> None:
    """PNG: a row for each picture, as read and, if a route enlarges it, enlarged; then its candidates."""
    seen = 1 if route.name == HR else 2
    columns = seen + max(len(each.candidates) for each in found)
    with mpl.rc_context({"font.family": "sans-serif", "font.size": 7}):
        figure = Figure((columns * INCHES, len(found) * (INCHES + 0.25)), dpi=DPI, layout="constrained")
        axes = figure.subplots(len(found), columns, squeeze=False)
        for row, each in zip(axes, found, strict=True):
            for place in row:
                place.set_axis_off()
            face = read(each.path)
            row[0].imshow(_shown(face), interpolation="nearest")
            row[0].set_title(f"{_short(each.path.name)}\n→ {_short(each.decision)}", loc="left", weight="bold")
            if seen == 2:
                row[1].imshow(_enlarged(face, route, device))
                row[1].set_title(route.name, loc="left")
            for place, candidate in zip(row[seen:], each.candidates, strict=False):
                reached = candidate.score >= each.threshold
                place.imshow(_enrolled(candidate.picture, read_enrolled))
                title = f"{_short(candidate.identity)}\n{candidate.score:.3f}"
                place.set_title(title, loc="left", color=RIGHT if reached else "black")
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")


def _shown(face: Pixels) -> Pixels:
    """A small face with its pixels as they are, a large one shrunk."""
    if face.shape[0] >= SIDE:
        return resize_image(face, SIDE)
    zoom = SIDE // face.shape[0]
    return face.repeat(zoom, 0).repeat(zoom, 1)


@torch.no_grad()
def _enlarged(face: Pixels, route: Route, device: str) -> Pixels:
    return as_pixels(route.enlarge(prepare(face, route, FaceContract())[None].to(device))[0])


def _enrolled(picture: str, read: Reader) -> Pixels:
    try:
        return _shown(read(Path(picture)))
    except InputError:  # moved or removed since
        return MISSING


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
