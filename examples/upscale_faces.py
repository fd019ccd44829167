"""Small aligned faces to 128 x 128, with NumPy, OpenCV and ONNX Runtime alone.

    earface export dsr --out exported_dsr                                       # once, where earface is installed
    python examples/upscale_faces.py --model exported_dsr/dsr.onnx --out upscaled face.png

A face of another size than the model takes is resized to it as the model's own training faces were.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


class DSR:
    """`dsr(face)`: (128, 128, 3) uint8 RGB of (H, W, 3) uint8 RGB."""

    def __init__(self, path: Path) -> None:
        self.network = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.image = json.loads(self.network.get_modelmeta().custom_metadata_map["image"])

    def __call__(self, face: np.ndarray) -> np.ndarray:
        grid = self.image["width"], self.image["height"]
        low, high = self.image.get("sizes", (0, 0))  # of a model that takes a range of them
        width, height = (min(max(side, low), high) for side in face.shape[1::-1]) if high else grid
        if face.shape[:2] != (height, width):
            across, down = bicubic(face.shape[1], width), bicubic(face.shape[0], height)
            face = np.einsum("yh,hwc,xw->yxc", down, face / 127.5 - 1, across)
            face = ((face.clip(-1, 1) + 1) * 127.5).round()
        values = (face / 127.5 - 1).astype(np.float32)
        given = np.full((1, 3, grid[1], grid[0]), np.nan, np.float32)  # beyond a face of a range's smaller sizes
        given[0, :, :height, :width] = values.transpose(2, 0, 1)
        (faces,) = self.network.run(["sr"], {"vlr": given})
        return ((faces[0] + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)


def bicubic(size: int, target: int) -> np.ndarray:
    """(target, size) weights of a resize with antialiasing (a = -.5), as Pillow's BICUBIC."""
    scale = size / target
    centres, wide = (np.arange(target)[:, None] + 0.5) * scale, max(scale, 1.0)
    away = np.abs(np.arange(size) + 0.5 - centres) / wide
    near, far = 1.5 * away**3 - 2.5 * away**2 + 1, -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    weights = np.where(away < 1, near, np.where(away < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def place(path: Path, paths: list[Path], out: Path) -> Path:
    """The PNG file of one of the paths, with its folder's name where its own is a number or another's, too."""
    alone = not path.stem.isdecimal() and [each.stem for each in paths].count(path.stem) == 1
    return out / f"{path.stem if alone else f'{path.absolute().parent.name}_{path.stem}'}.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="dsr.onnx of earface export dsr")
    parser.add_argument("--out", type=Path, required=True, help="folder for the PNG files")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there already")
    parser.add_argument("faces", nargs="+", type=Path)
    given = parser.parse_args()
    written = [place(path, given.faces, given.out) for path in given.faces]
    if twice := [each for each in written if written.count(each) > 1]:
        parser.exit(2, f"error: {twice[0]}: would be written twice; give its pictures in two calls\n")
    if there := [each for each in written if each.exists() and not given.overwrite]:
        parser.exit(2, f"error: {there[0]}: is there already; --overwrite replaces\n")
    dsr = DSR(given.model)
    given.out.mkdir(parents=True, exist_ok=True)
    for path, file in zip(given.faces, written, strict=True):
        face = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if face is None:
            raise SystemExit(f"error: {path}: not a picture that can be read")
        upscaled = dsr(cv2.cvtColor(face, cv2.COLOR_BGR2RGB))
        cv2.imwrite(str(file), cv2.cvtColor(upscaled, cv2.COLOR_RGB2BGR))
        print(f"{path} -> {file}")


if __name__ == "__main__":
    main()
