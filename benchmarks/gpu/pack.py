"""Ears and weights in the least room: `python -m benchmarks.gpu.pack --ears FOLDER... --weights FOLDER --out .gpu`."""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from earface.core.command_line import parse_options
from earface.core.errors import InputError, entry_point
from earface.core.options import option
from earface.data.ear_alignment import FRAME_WIDTH
from earface.data.images import read_image
from earface.data.npy import read_teacher_npy

QUALITIES = (95, 93, 91, 89, 87, 85, 82, 79, 76, 70, 60)  # of JPEG, the first that fits
ROLES = ("train", "val")
FACE_WEIGHTS = ("edgeface_xxs_q.pt", "edgeface_xs_q.pt")


@dataclass(frozen=True)
class PackOptions:
    """Pack ears in their form, re-encoded, and weights in half precision, for a machine without a network."""

    ears: tuple[str, ...] = option(("data/preprocessed",), "folders that earface ears prepare wrote")
    weights: str = option("weights", "where EdgeFace's files are")
    out: str = option(".gpu", "where ears.zip and weights/ go")
    mebibytes: float = option(41.0, "size of ears.zip at most", above=0)


@dataclass(frozen=True)
class Ear:
    """One row of index.csv in ears.zip."""

    folder: str
    role: str
    subject: str
    side: str
    contract: str
    path: Path


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    options = parse_options(PackOptions, argv, prog="python -m benchmarks.gpu.pack")
    out = Path(options.out)
    (out / "weights").mkdir(parents=True, exist_ok=True)
    for name in FACE_WEIGHTS:
        halve(Path(options.weights) / name, out / "weights" / name)
    pack_ears([ear for folder in options.ears for ear in ears_of(Path(folder))], options.mebibytes, out / "ears.zip")
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


def ears_of(folder: Path) -> list[Ear]:
    """Of both teacher files of a prepared folder. Raises InputError where people have no names."""
    found = []
    for role in ROLES:
        path = folder / f"{role}_teacher.npy"
        data = read_teacher_npy(path)
        if data.image_paths is None or data.subjects is None:
            raise InputError(f"{path}: lists no image files with subjects")
        sides = data.sides or [""] * len(data)
        rows = zip(data.subjects, sides, data.image_paths, strict=True)
        found += [Ear(folder.name, role, subject, side, data.contract, file) for subject, side, file in rows]
    return found


def pack_ears(ears: Sequence[Ear], mebibytes: float, target: Path) -> None:
    pictures = [packed(ear) for ear in ears]
    for quality in QUALITIES:
        encoded = [cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, quality))[1] for picture in pictures]
        if sum(map(len, encoded)) + 200 * len(encoded) <= mebibytes * 2**20:
            break
    else:
        raise InputError(f"--mebibytes {mebibytes}: too little at JPEG quality {QUALITIES[-1]}")
    with zipfile.ZipFile(target, "w") as archive, io.StringIO() as text:
        table = csv.writer(text)
        table.writerow(("file", "folder", "role", "subject", "side", "contract"))
        for number, (ear, content) in enumerate(zip(ears, encoded, strict=True)):
            name = f"{number:05d}.jpg"
            archive.writestr(name, content.tobytes())
            table.writerow((name, ear.folder, ear.role, ear.subject, ear.side, ear.contract))
        archive.writestr("index.csv", text.getvalue())
    print(f"{target}: {len(ears)} ears, JPEG quality {quality}, {target.stat().st_size / 2**20:.1f} MiB")


def packed(ear: Ear) -> NDArray[np.uint8]:
    """BGR; an ear that its form has widened as narrow as it was, for whoever reads it widens it."""
    image = cv2.cvtColor(read_image(ear.path), cv2.COLOR_RGB2BGR)
    if not ear.contract.startswith("canonical"):
        return image
    return cv2.resize(image, (round(image.shape[1] * FRAME_WIDTH), image.shape[0]), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    sys.exit(main())
