"""The networks of a trained ear detector, run by OpenCV: the ears of a photograph, and the landmarks of an ear.

Both are files that `earface export detector` writes. EAR_LANDMARKS, trained on synthetic ears alone, comes with the
package.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from earface.core.errors import InputError
from earface.data.affine import crop_around, letterbox
from earface.data.annotations import Floats
from earface.data.images import Pixels
from earface.data.onnx_metadata import read_onnx_metadata

EAR_LANDMARKS = Path(__file__).with_name("ear_landmarks.onnx")
CHECK = 0.02  # of an output's mean and deviation: half precision's weights move them by less
REFINED_MARGIN = 1.1  # of the box around first landmarks, which lie inside the ear: to the ear's own box


class _Network:
    """An ONNX file with the metadata of its export; any number of threads may call it."""

    def __init__(self, path: Path, file: str, given: str, side: str) -> None:
        """file, given: what the export calls it and its input; side: the key of the input's size.

        Raises InputError for any other file.
        """
        metadata = read_onnx_metadata(path)
        properties = metadata.properties
        try:
            _ = metadata.inputs[given]
            self.image: Mapping[str, Any] = json.loads(properties["image"])
            self.side, self.channels = int(self.image[side]), {"RGB": 3, "grey": 1}[self.image["channels"]]
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}: not the {file} that earface export detector writes") from None
        self.path, self.properties = path, properties
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self._of_thread = threading.local()  # a network holds the state of one call
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it reports what it refuses at length
        try:
            found = self(check_picture(self.side, self.channels))
        except cv2.error:
            raise InputError(f"{path}: OpenCV {cv2.__version__} cannot run this network; OpenCV 5 can") from None
        self._check(found, file)
        self.outputs = [output.shape for output in found]

    def _check(self, found: list[Floats], file: str) -> None:
        """OpenCV before 5 computes some networks wrongly, without a word."""
        try:
            wanted = np.array(json.loads(self.properties["check"])[file], np.float64)
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{self.path}: an export of an earlier version; export the detector again") from None
        given = np.array([[output.mean(), output.std()] for output in found])
        if given.shape != wanted.shape or not np.allclose(given, wanted, rtol=CHECK, atol=CHECK):
            raise InputError(f"{self.path}: OpenCV {cv2.__version__} computes this network wrongly; use OpenCV 5")

    def __call__(self, square: Pixels) -> list[Floats]:
        """(S, S, C) uint8 RGB or grey to the outputs, without their first axis."""
        network = getattr(self._of_thread, "network", None)
        if network is None:
            network = cv2.dnn.readNetFromONNX(str(self.path))
            self._of_thread.network = network
            self._of_thread.names = network.getUnconnectedOutLayersNames()
        values = with_channels(square, self.channels).transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - 1
        network.setInput(np.ascontiguousarray(values)[None])
        return [np.asarray(output[0], np.float32) for output in network.forward(self._of_thread.names)]


@dataclass(frozen=True, eq=False)
class EarLandmarks:
    """points: (K, 2) x y in pixels of the picture, whole numbers at pixel centres. visibility: (K,) in [0, 1], small of
    hidden landmarks, and of all where there is no ear.

    disagreement: median distance between the landmarks of the picture and those of its mirror image, as a share of
    the ear's height: small on ears, large on anything else.
    """

    points: Floats
    visibility: Floats
    disagreement: float


class EarLandmarker:
    """`(picture, box) -> EarLandmarks`."""

    def __init__(self, path: Path | None = None) -> None:
        """path: landmarks.onnx of an export; None: EAR_LANDMARKS. Raises InputError for any other file."""
        self.network = _Network(path or EAR_LANDMARKS, "landmarks.onnx", "crops", "crop_size")
        shapes = self.network.outputs
        if len(shapes) != 2 or len(shapes[0]) != 2 or shapes[0] != (*shapes[1], 2):
            raise InputError(f"{self.network.path}: gives something else than points and their visibility")
        self.num_landmarks = shapes[1][0]
        self.margin = float(self.network.image["margin"])

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self.network.digest

    def __call__(self, picture: Pixels, box: Floats | None = None) -> EarLandmarks:
        """picture: (H, W, C) uint8. box: (4,) x y width height of the ear; None: the whole picture is the ear.

        The landmarks are placed twice, the second time in the box that the first ones suggest, each time in the picture
        and in its mirror image.
        """
        height, width = picture.shape[:2]
        whole = np.array([0, 0, width, height], np.float32)
        first = self._placed(picture, whole if box is None else np.asarray(box, np.float32))
        return self._placed(picture, box_around(first.points))

    def _placed(self, picture: Pixels, box: Floats) -> EarLandmarks:
        height, width = picture.shape[:2]
        looks = []
        for mirrored in (False, True):
            crop = crop_around(box, (width, height), self.network.side, self.margin, mirrored=mirrored)
            points, visibility = self.network(crop.image(picture))
            looks.append((crop.points_back(points), visibility))
        points, visibility = (np.asarray(np.mean(each, axis=0), np.float32) for each in zip(*looks, strict=True))
        extent = max(float(np.ptp(points, axis=0).max()), 1e-6)
        apart = float(np.median(np.linalg.norm(looks[0][0] - looks[1][0], axis=1))) / extent
        return EarLandmarks(points, visibility, apart)


class EarBoxes:
    """`photograph -> boxes (N, 4) x y width height, scores (N,)`, best first: the detector of an export."""

    def __init__(self, path: Path, min_score: float = 0.5) -> None:
        """path: boxes.onnx of an export. Raises InputError for any other file."""
        self.network, self.min_score = _Network(path, "boxes.onnx", "images", "size"), min_score
        try:
            rules = json.loads(self.network.properties["detections"])
            self.iou, self.containment = float(rules["iou"]), float(rules["containment"])
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}: not the boxes.onnx that earface export detector writes") from None
        shapes = self.network.outputs
        if len(shapes) != 2 or shapes[0] != (*shapes[1], 4):
            raise InputError(f"{path}: gives something else than boxes and scores")

    def __call__(self, photograph: Pixels) -> tuple[Floats, Floats]:
        height, width = photograph.shape[:2]
        placement = letterbox((width, height), self.network.side)
        corners, scores = self.network(placement.image(with_channels(photograph, self.network.channels)))
        kept = np.flatnonzero(scores >= self.min_score)
        kept = kept[np.argsort(-scores[kept], kind="stable")]
        corners, scores = corners[kept], scores[kept]
        rows = remaining(corners, self.iou, self.containment)
        sides = np.concatenate([corners[rows, :2], corners[rows, 2:] - corners[rows, :2]], axis=1)
        boxes = placement.boxes_back(sides)
        low = boxes[:, :2].clip(0, [width, height])
        high = (boxes[:, :2] + boxes[:, 2:]).clip(0, [width, height])
        inside = (high - low >= 1).all(axis=1)
        return np.concatenate([low, high - low], axis=1)[inside].astype(np.float32), scores[rows][inside]


def remaining(corners: Floats, iou: float, containment: float) -> list[int]:
    """Which of (N, 4) x1 y1 x2 y2, best first, are left: the rule of the detector.

    A box is dropped if a better one overlaps it by more than `iou`, or if more than `containment` of the smaller of the
    two lies inside the other.
    """
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    kept: list[int] = []
    for row, corner in enumerate(corners):
        low, high = np.maximum(corners[kept, :2], corner[:2]), np.minimum(corners[kept, 2:], corner[2:])
        shared = (high - low).clip(0).prod(axis=1)
        overlap = shared / np.maximum(areas[kept] + areas[row] - shared, 1e-9)
        inside = shared / np.maximum(np.minimum(areas[kept], areas[row]), 1e-9)
        if not ((overlap > iou) | (inside > containment)).any():
            kept.append(row)
    return kept


def check_picture(side: int, channels: int) -> Pixels:
    """(side, side, channels) uint8 blocks of chance, the same everywhere."""
    blocks = np.random.default_rng(7).integers(0, 256, (8, 8, channels), dtype=np.uint8)
    rows = np.arange(side) * 8 // side
    return np.ascontiguousarray(blocks[rows][:, rows])


def box_around(points: Floats) -> Floats:
    """(4,) x y width height: the box of the ear whose landmarks (K, 2) these are."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.maximum(high - low, 1.0) * REFINED_MARGIN
    return np.concatenate([(low + high - extent) / 2 + 0.5, extent]).astype(np.float32)


def with_channels(picture: Pixels, channels: int) -> Pixels:
    """(H, W, 1 or 3) uint8 -> (H, W, channels)."""
    if picture.shape[2] == channels:
        return picture
    if channels == 3:
        return np.repeat(picture, 3, axis=2)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], np.uint8)
