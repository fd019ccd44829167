"""The picture of README: `make picture`, or of a run that is there `python -m benchmarks.readme_picture RUN`.

RUN: what `make picture` writes. Synthetic ears of people that the VAE was not trained on, with the landmarks that
earface's landmarker places; the same ears in one form; and what the VAE decodes on straight lines between two of them.
To be shown at half its size, for screens of high density.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from ear_teacher.model import EarVAE
from earface.core.files import atomic_write
from earface.data.ear_contract import EarAligner
from earface.data.ear_networks import EarLandmarker
from earface.data.images import Pixels, read_image, resize_image
from earface.data.npy import read_teacher_npy
from earface.data.pixels import to_model_range, to_uint8

SIDE, GAP, CAPTION, COLUMNS = 128, 8, 40, 9  # pixels; the model's own
ZOOM = 6  # of the canvas that landmarks are drawn on
PAIRS = ((0, 4), (8, 2))  # of the ears shown
COLOURS = 256  # a palette takes half the bytes
FOUND = (0, 114, 178)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images/synthetic_ears.png"))
    given = parser.parse_args()
    landmarker = EarLandmarker()
    aligner, model = EarAligner("canonical", landmarker), EarVAE.load(given.run / "checkpoints" / "last.ckpt")
    pictures = [read_image(path) for path in one_of_each(given.run / "ears" / "val_teacher.npy")]
    ears = [aligner.image(picture, aligner.locate(picture), SIDE) for picture in pictures]
    found = [with_landmarks(picture, landmarker(picture).points) for picture in pictures]
    rows: list[tuple[str, Sequence[Pixels]]] = [
        ("Synthetic ears, and the landmarks that the landmarker finds", found),
        ("The same ears in one form: mirrored to right ears, upright, of one size", ears),
    ]
    for number, (first, second) in enumerate(PAIRS):
        title = "" if number else "What a VAE decodes between two ears, which stand at the ends"
        rows.append((title, [ears[first], *between(model, ears[first], ears[second]), ears[second]]))
    full = laid_out(rows)
    palette = full.quantize(COLOURS, kmeans=3)
    picture = full.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    with atomic_write(given.out) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    print(f"{given.out}: {picture.width}x{picture.height}, {given.out.stat().st_size:,} bytes")


def one_of_each(npy: Path) -> list[Path]:
    """A picture of COLUMNS people, evenly over the file."""
    data = read_teacher_npy(npy)
    assert data.image_paths is not None
    chosen = np.linspace(0, len(data.image_paths) - 1, COLUMNS).round().astype(int)
    return [Path(data.image_paths[row]) for row in chosen]


def with_landmarks(picture: Pixels, points: np.ndarray) -> Pixels:
    """(SIDE, SIDE, 3), drawn large and shrunk: smooth circles of less than a pixel's error."""
    canvas, scale = resize_image(picture, SIDE * ZOOM), SIDE * ZOOM / len(picture)
    for x, y in np.rint((points + 0.5) * scale - 0.5).astype(int).tolist():
        cv2.circle(canvas, (x, y), round(2.6 * ZOOM), (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, (x, y), round(1.7 * ZOOM), FOUND, -1, cv2.LINE_AA)
    return resize_image(canvas, SIDE)


@torch.no_grad()
def between(model: EarVAE, first: Pixels, second: Pixels) -> Pixels:
    """(COLUMNS - 2, SIDE, SIDE, 3): from the first ear's reconstruction to the second's."""
    ends = to_model_range(torch.from_numpy(np.stack([first, second])))
    return to_uint8(model.interpolate(ends[:1], ends[1:], COLUMNS - 2)[0]).numpy()


def laid_out(rows: Sequence[tuple[str, Sequence[Pixels]]]) -> Image.Image:
    heights = [SIDE + GAP + (CAPTION if title else 0) for title, _ in rows]
    canvas = Image.new("RGB", (COLUMNS * (SIDE + GAP) - GAP, sum(heights) - GAP), "white")
    draw, font, top = ImageDraw.Draw(canvas), ImageFont.truetype(findfont("DejaVu Sans"), 22), 0
    for (title, tiles), height in zip(rows, heights, strict=True):
        draw.text((0, top + 6), title, fill="#333333", font=font)
        for column, each in enumerate(tiles):
            canvas.paste(Image.fromarray(np.asarray(each)), (column * (SIDE + GAP), top + height - SIDE - GAP))
        top += height
    return canvas


if __name__ == "__main__":
    main()
