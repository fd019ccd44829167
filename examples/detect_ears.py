"""Where are the ears in these photographs? With NumPy, OpenCV and ONNX Runtime alone.

    earface export detector --out exported_detector                             # once, where earface is installed
    python examples/detect_ears.py --model exported_detector/detector.onnx --out marked photo.jpg

detector.onnx and detector_int8.onnx suppress boxes of the same ear themselves.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


class EarDetector:
    """`detector(photograph)`: boxes (N, 4) x1 y1 x2 y2 in pixels of it, and scores (N,), the best first."""

    def __init__(self, path: Path) -> None:
        self.network = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.image = json.loads(self.network.get_modelmeta().custom_metadata_map["image"])

    def __call__(self, photograph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """photograph: (H, W, 3) uint8 RGB."""
        sides, size = np.array(photograph.shape[1::-1]), self.image["size"]
        fitted = np.maximum(np.rint(sides * (size / sides.max())), 1).astype(int)
        low, scale = (size - fitted) // 2, fitted / sides
        method = cv2.INTER_AREA if fitted.prod() < sides.prod() else cv2.INTER_CUBIC
        square = np.full((size, size, 3), self.image["pad"], np.uint8)
        resized = cv2.resize(photograph, fitted.tolist(), interpolation=method)
        square[low[1] : low[1] + fitted[1], low[0] : low[0] + fitted[0]] = resized
        if self.image["channels"] == "grey":
            square = cv2.cvtColor(square, cv2.COLOR_RGB2GRAY)[..., None]
        values = (square.transpose(2, 0, 1)[None] / np.float32(127.5) - 1).astype(np.float32)
        boxes, scores = (each[0] for each in self.network.run(["boxes", "scores"], {"squares": values}))
        corners = ((boxes.reshape(-1, 2, 2) - low) / scale).clip(0, sides)
        kept = (scores > 0) & (np.diff(corners, axis=1)[:, 0] >= 1).all(axis=1)  # zeros fill the rest
        return corners.reshape(-1, 4)[kept], scores[kept]


def place(path: Path, paths: list[Path], out: Path) -> Path:
    """The PNG file of one of the paths, with its folder's name where its own is a number or another's, too."""
    alone = not path.stem.isdecimal() and [each.stem for each in paths].count(path.stem) == 1
    return out / f"{path.stem if alone else f'{path.absolute().parent.name}_{path.stem}'}.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="detector.onnx of earface export detector")
    parser.add_argument("--min-score", type=float, default=0.5)
    parser.add_argument("--out", type=Path, help="folder for the photographs with their boxes")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there already")
    parser.add_argument("photographs", nargs="+", type=Path)
    given = parser.parse_args()
    written = [place(path, given.photographs, given.out) for path in given.photographs] if given.out else []
    if twice := [each for each in written if written.count(each) > 1]:
        parser.exit(2, f"error: {twice[0]}: would be written twice; give its pictures in two calls\n")
    if there := [each for each in written if each.exists() and not given.overwrite]:
        parser.exit(2, f"error: {there[0]}: is there already; --overwrite replaces\n")
    detector = EarDetector(given.model)
    for number, path in enumerate(given.photographs):
        photograph = cv2.imread(str(path), cv2.IMREAD_COLOR)  # upright by its EXIF orientation
        if photograph is None:
            raise SystemExit(f"error: {path}: not a picture that can be read")
        boxes, scores = detector(cv2.cvtColor(photograph, cv2.COLOR_BGR2RGB))
        for box, score in zip(boxes, scores, strict=True):
            if score < given.min_score:
                break
            print(f"{path}: {' '.join(f'{side:.1f}' for side in box)} {score:.3f}")
            first, second = np.rint(box).astype(int).reshape(2, 2).tolist()
            cv2.rectangle(photograph, first, second, (0, 255, 0), 2)
        if written:
            given.out.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(written[number]), photograph)


if __name__ == "__main__":
    main()
