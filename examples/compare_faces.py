"""How alike are these faces? With NumPy, OpenCV and ONNX Runtime alone.

    earface export edgeface --out exported_edgeface                             # once, where earface is installed
    python examples/compare_faces.py --model exported_edgeface/edgeface.onnx one.png other.png

The faces are aligned and square, as `earface faces prepare` writes them. The cosine is high where both are of one
person; which one is high enough depends on the pictures: fit it on some of yours.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

SIZE, CANVAS = 112, 128


class EdgeFace:
    """`edgeface(face)`: an embedding (512,) of length 1, of a square (H, W, 3) uint8 RGB."""

    def __init__(self, path: Path) -> None:
        self.network = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.centred = "-center-" in self.network.get_modelmeta().custom_metadata_map["contract"]

    def __call__(self, face: np.ndarray) -> np.ndarray:
        side, values = len(face), face / 127.5 - 1
        if side != SIZE:
            weights = bilinear(side, CANVAS if self.centred else SIZE)
            values = np.einsum("yh,hwc,xw->yxc", weights, values, weights) if len(weights) != side else values
            margin = (len(weights) - SIZE) // 2  # the template lies in the middle of a `center` canvas
            values = values[margin : margin + SIZE, margin : margin + SIZE]
        given = values.transpose(2, 0, 1)[None].astype(np.float32)
        return self.network.run(["embeddings"], {"faces": given})[0][0]


def bilinear(size: int, target: int) -> np.ndarray:
    """(target, size) weights of a resize with antialiasing, as Pillow's BILINEAR."""
    scale = size / target
    centres = (np.arange(target)[:, None] + 0.5) * scale
    weights = np.maximum(1 - np.abs(np.arange(size) + 0.5 - centres) / max(scale, 1.0), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def read(path: Path) -> np.ndarray:
    face = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if face is None or face.shape[0] != face.shape[1]:
        raise SystemExit(f"error: {path}: not a square picture; align it first")
    return cv2.cvtColor(face, cv2.COLOR_BGR2RGB)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="edgeface.onnx of earface export edgeface")
    parser.add_argument("faces", nargs="+", type=Path, help="the first is compared with the others")
    given = parser.parse_args()
    edgeface = EdgeFace(given.model)
    first, *others = (edgeface(read(path)) for path in given.faces)
    for path, embedding in zip(given.faces[1:], others, strict=True):
        print(f"{path}: {first @ embedding:.3f}")


if __name__ == "__main__":
    main()
