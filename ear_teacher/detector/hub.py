"""The folder of a saved ear detector: its image contract, suppression rules, model card and format."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ear_teacher.detector.box_detector import CANDIDATES, MAX_DETECTIONS, Suppression
from ear_teacher.detector.config import EarDetectorConfig
from ear_teacher.detector.landmarker import MARGIN
from earface.core.errors import InputError
from earface.core.files import CONFIG
from earface.data.affine import PAD
from earface.nn.pretrained_folder import PROVENANCE, PretrainedFormat

RESIZE = (
    "letterbox: the whole photograph times size / its longer side, each side rounded, OpenCV INTER_AREA where it "
    "shrinks, INTER_CUBIC where it grows; in the middle of a square of pad, what is odd of it on the right and below"
)
CROP = (
    "the square around the middle of a box, its side the box's longer side times 1 + margin, cut from the photograph, "
    "resized as above; pad where it leaves the photograph"
)
LICENCE = (
    "earface's code: MIT; the weights: for whoever trained them to say, within the terms of the photographs and of the "
    "encoder that they began with"
)
TAGS = ["ear-biometrics", "object-detection"]

MODEL_CARD = """---
{{ card_data }}
---

Finds ears in photographs and, if it was trained with landmarks, places these on each. `config.json` has every number:

- `image`: how a photograph becomes the square image, how an ear becomes a crop, and their value range. Boxes are
  measured from the top left corner of the square, landmarks from the centre of the crop's first pixel.
- `provenance.detections`: the `candidates` boxes of highest score, without those below `score_threshold`; from the best
  on, a box is dropped if a better one overlaps it by an IoU above `iou`, or if more than `containment` of the smaller
  of the two lies inside the other; at most `max_detections` remain.
- `model`: the names of the landmarks, and which to join by lines.
- `provenance`: the licence, and the digest of the weights.

```python
from ear_teacher import EarDetector

detector = EarDetector.from_pretrained("THIS FOLDER, OR ITS NAME ON THE HUB")
ears = detector.predict([photograph])[0]  # of uint8 (H, W, 3), any size: boxes, scores, labels, keypoints
```

As ONNX, of any batch size: `detector.onnx` takes `squares` (B, C, size, size) and gives the detections, best first,
with zeros behind them: `boxes` (B, M, 4), x1 y1 x2 y2 in pixels of the square, and `scores` (B, M) in [0, 1].
`boxes.onnx` takes `images` and gives both of every place, before suppression: (B, N, 4) and (B, N).
`landmarks.onnx`, if there are landmarks, takes `crops` (B, C, crop_size, crop_size) and gives `points` (B, K, 2),
x y in pixels of the crop, and `visibility` (B, K), probabilities.
"""


def image_contract(config: EarDetectorConfig) -> dict[str, Any]:
    """The images that the networks take; pixels in [0, 1], minus mean, divided by std, are in range."""
    channels = config.in_channels
    crop = {"crop_size": config.crop_size, "crop": CROP, "margin": MARGIN} if config.num_landmarks else {}
    return {
        "size": config.image_size,
        "channels": "RGB" if channels == 3 else "grey",
        "resize": RESIZE,
        "pad": PAD,
        **crop,
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
        "range": [-1.0, 1.0],
    }


LIMITS = """Ears that are small in the square image, or hidden by hair, are found less often than others. A score is no
probability: choose the threshold on photographs such as yours.
"""

FORMAT = PretrainedFormat(
    model="EarDetector",
    title="ear detector",
    config=EarDetectorConfig,
    needed="encoder",
    contract=image_contract,
    limits=LIMITS,
)


def provenance(digest: str, score_threshold: float, suppression: Suppression) -> dict[str, Any]:
    """Beside the shape: digest and licence of the weights, and the rules that select detections."""
    rules = {"candidates": CANDIDATES, "score_threshold": score_threshold, **asdict(suppression)}
    return {
        "digest": digest,
        "licence": LICENCE,
        "detections": rules | {"max_detections": MAX_DETECTIONS},
    }


def read_rules(folder: Path) -> tuple[float, Suppression]:
    """Score threshold and suppression from a folder that FORMAT reads. Raises InputError if they are damaged."""
    stored = FORMAT.read_provenance(folder).get("detections")
    rules = stored if isinstance(stored, dict) else {}
    names = ("score_threshold", "iou", "containment")
    values = [float(each) for name in names if isinstance(each := rules.get(name), (int, float)) and 0 <= each <= 1]
    if len(values) != len(names):
        raise InputError(f"{folder / CONFIG}: {PROVENANCE} lacks the rules of detections, or they are damaged")
    return values[0], Suppression(*values[1:])
