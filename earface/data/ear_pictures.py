"""Prepared ears to look at: what was kept, what was rejected and why, and how they are distributed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from earface.core.errors import InputError
from earface.core.files import atomic_write
from earface.data.ear_contract import EarAligner
from earface.data.ear_inspection import InspectedEar, RejectedEar
from earface.data.ear_rows import EarRow
from earface.data.image_cache import crop_to_box
from earface.data.image_grid import FONT, tile, tile_images
from earface.data.images import Pixels, read_ahead, read_image, write_image
from earface.data.names import printable
from earface.data.plots import BLUE, GREY, ORANGE, as_bytes

SHOWN, COLUMNS = 64, 16  # ears kept
REJECTED, REJECTED_COLUMNS = 32, 8
TILE, CAPTION = 96, 30  # pixels: of kept ears; of a rejected one's two lines of text
WIDE = 176  # of a rejected one


def save_kept(
    path: Path, rows: Sequence[EarRow], found: Sequence[InspectedEar], aligner: EarAligner, size: int
) -> None:
    """SHOWN ears in their form, evenly over the set."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, SHOWN).round().astype(int)).tolist()
    pictures = read_ahead(lambda row: read_image(rows[row].path), chosen)
    shown = [aligner.image(picture, found[row].located, size) for row, picture in zip(chosen, pictures, strict=True)]
    write_image(path, tile_images([tile(each, TILE, TILE) for each in shown], COLUMNS))


def save_rejected(path: Path, rejects: Sequence[RejectedEar]) -> None:
    """Up to REJECTED, each with its reason; no picture if there are none."""
    if not rejects:
        path.unlink(missing_ok=True)
        return
    chosen = np.unique(np.linspace(0, len(rejects) - 1, REJECTED).round().astype(int))
    tiles = [_captioned(_picture(rejects[each].row), rejects[each].reason) for each in chosen.tolist()]
    write_image(path, tile_images(tiles, REJECTED_COLUMNS))


def save_histograms(path: Path, found: Sequence[InspectedEar], max_residual: float) -> None:
    """Residuals of canonical ears, heights in pixels, and sides."""
    fits = [ear.located.fit for ear in found if ear.located.fit is not None]
    figure = Figure(figsize=(9.6, 3.0), layout="constrained")
    residuals, heights, sides = figure.subplots(1, 3)
    if fits:
        residuals.hist([fit.residual for fit in fits], bins=np.linspace(0, max_residual, 41), color=BLUE)
        residuals.axvline(float(np.median([fit.residual for fit in fits])), color=ORANGE, label="median")
        residuals.legend(frameon=False)
        counts = Counter(fit.side for fit in fits)
        sides.bar(["left", "right"], [counts["l"], counts["r"]], color=[BLUE, ORANGE])
    else:
        for axes in (residuals, sides):
            axes.text(0.5, 0.5, "no landmarks", ha="center", color=GREY, transform=axes.transAxes)
            axes.set_xticks([])
            axes.set_yticks([])
    residuals.set_xlabel("residual, pixels of 128")
    sides.set_xlabel("side")
    heights.hist([ear.size[1] for ear in found], bins=40, color=BLUE)
    heights.set_xlabel("height in the picture, pixels")
    residuals.set_ylabel("ears")
    with atomic_write(path) as temporary:
        temporary.write_bytes(as_bytes(figure, "png"))


def _picture(row: EarRow) -> Pixels | None:
    try:
        picture = read_image(row.path)
        return picture if row.box is None else crop_to_box(picture, np.array(row.box, np.float32))
    except InputError:
        return None


def _captioned(picture: Pixels | None, reason: str) -> Pixels:
    """(TILE + CAPTION, WIDE, 3): the picture above its reason, which is cut off after two lines."""
    words, lines = printable(reason).split(), [""]
    for word in words:
        text = f"{lines[-1]} {word}".strip()
        if cv2.getTextSize(text, FONT[0], FONT[1] * 0.8, 1)[0][0] > WIDE - 8 and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = text
    caption = np.full((CAPTION, WIDE, 3), 255, np.uint8)
    for number, line in enumerate(lines[:2]):
        cv2.putText(caption, line, (4, 11 + 13 * number), FONT[0], FONT[1] * 0.8, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([tile(picture, TILE, WIDE), caption])
