"""Ears and weights in the least room: `python -m benchmarks.gpu.pack --ears FOLDER --weights FOLDER --out .gpu`."""

from __future__ import annotations

import csv
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.options import option
from earface.data.images import read_image

QUALITIES = (95, 93, 91, 89, 87, 85, 82, 79, 76, 70, 60)  # of JPEG, the first that fits
HALVED = ("edgeface_xxs_q.pt", "edgeface_xs_q.pt", "efficientnet-lite0-57934424.pth")


@dataclass(frozen=True)
class PackOptions:
    """Pack ear crops, re-encoded, and weights in half precision, for a machine without a network."""

    ears: str = option("ears_earvn", "a folder with index.csv (file, subject)")
    weights: str = option("weights", "where EdgeFace's and EfficientNet-Lite's files are")
    out: str = option(".gpu", "where ears.zip and weights/ go")
    train: int = option(12_023, "ears to train on, in the subjects' order", low=1)
    val: int = option(1_000, "ears of later subjects to validate on", low=1)
    side: int = option(128, "pixels of the longer side at most", low=16)
    mebibytes: float = option(33.0, "size of ears.zip at most", above=0)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(PackOptions, argv, prog="python -m benchmarks.gpu.pack")
    out = Path(options.out)
    (out / "weights").mkdir(parents=True, exist_ok=True)
    for name in HALVED:
        halve(Path(options.weights) / name, out / "weights" / name)
    pack_ears(options, out / "ears.zip")
    return 0


def halve(source: Path, target: Path) -> None:
    """Floating-point tensors as float16; quantised ones as they are."""
    state = torch.load(source, map_location="cpu", weights_only=True)
    plain = all(isinstance(value, torch.Tensor) and not value.is_quantized for value in state.values())
    if plain:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
        torch.save(state, target)
    else:
        target.write_bytes(source.read_bytes())


def pack_ears(options: PackOptions, target: Path) -> None:
    root = Path(options.ears)
    with (root / "index.csv").open(newline="") as stream:
        rows = sorted((row["subject"], row["file"]) for row in csv.DictReader(stream))
    later = [row for row in rows[options.train :] if row[0] != rows[options.train - 1][0]]
    if not later:
        raise InputError(f"--train {options.train}: {root} has {len(rows)} ears, so no other subject is left")
    chosen = np.unique(np.linspace(0, len(later) - 1, options.val).round().astype(int))
    parts = {"train": rows[: options.train], "val": [later[place] for place in chosen]}
    pictures = [
        (role, subject, shrunk(root / file, options.side)) for role, each in parts.items() for subject, file in each
    ]
    for quality in QUALITIES:
        encoded = [cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, quality))[1] for *_, picture in pictures]
        if sum(map(len, encoded)) + 200 * len(encoded) <= options.mebibytes * 2**20:
            break
    else:
        raise InputError(f"--mebibytes {options.mebibytes}: too little at JPEG quality {QUALITIES[-1]}")
    with zipfile.ZipFile(target, "w") as archive:
        lines = ["file,subject,role"]
        for number, ((role, subject, _), content) in enumerate(zip(pictures, encoded, strict=True)):
            name = f"{number:05d}.jpg"
            archive.writestr(name, content.tobytes())
            lines.append(f"{name},{subject},{role}")
        archive.writestr("index.csv", "\n".join(lines) + "\n")
    counts = ", ".join(f"{len(each)} {role}" for role, each in parts.items())
    print(f"{target}: {counts}, JPEG quality {quality}, {target.stat().st_size / 2**20:.1f} MiB")


def shrunk(path: Path, side: int) -> np.ndarray:
    """(h, w, 3) BGR, its proportions kept, the longer side `side` at most."""
    image = read_image(path)[..., ::-1]
    factor = side / max(image.shape[:2])
    if factor >= 1:
        return image
    width, height = (max(1, round(length * factor)) for length in (image.shape[1], image.shape[0]))
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    sys.exit(main())
