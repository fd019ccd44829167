"""Faces in photographs by YuNet (Wu et al. 2023), OpenCV's detector: a box, five points and a score for each.

The network is a file of 227 kB, MIT: https://huggingface.co/opencv/face_detection_yunet, which OpenCV's own model zoo
names as its place.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.core.downloads import check_sha256, hub_file
from earface.core.errors import InputError
from earface.data.affine import crop_around
from earface.data.face_alignment import Points
from earface.data.images import Pixels

REPOSITORY, FILE = "opencv/face_detection_yunet", "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
LONG_SIDES = (640, 1280, 256)  # pixels, tried in turn: YuNet finds faces of 10 to 300 pixels (its model card)
NMS_OVERLAP = 0.3
# The points of one look move by 3 % of the face when the picture is mirrored or resized. Averaged over these looks, 90
# photographs of 30 people of LFW are aligned so that EdgeFace-XXS / XS finds pictures of one person more alike: mean
# cosine .645 / .642 instead of .622 / .628, and further apart from others: d' 6.5 / 6.5 instead of 6.2 / 6.4.
LOOKS = (192, 288)  # pixels of a square around the face, each also mirrored
LOOK_MARGIN = 1.0  # of the square: twice the box
# Of those photographs, shrunk until an aligned face has 8 to 16 pixels a side, 160 pixels show 98 to 100 % of the faces
# (96 pixels 97 to 100 %, 320 pixels 70 to 100 %), and without enlarging 0 to 7 % are found. Enlarged more than that,
# pictures of ears become faces; in photographs of 640x480 twice and three times shows what is 14 and 10 pixels wide.
ENLARGED_SIDE, ENLARGEMENTS, MAX_ENLARGED_SIDE = 160, (2, 4), 1920
ENLARGED_LOOKS = (96, 144)  # closer looks make faces of 8 to 12 pixels 9 to 15 % too large, these 5 to 8 %
MIRRORED_ORDER = [1, 0, 2, 4, 3]  # of the five points


@dataclass(frozen=True)
class DetectedFace:
    """One face in a photograph."""

    box: NDArray[np.float64]  # (4,) x y width height, pixels from the top left corner; it may leave the photograph
    points: Points  # (5, 2), as in earface/data/face_alignment.py
    score: float  # in [0, 1]

    @property
    def side(self) -> float:
        """The shorter side of the box, pixels."""
        return float(self.box[2:].min())


class FaceDetector:
    """`photograph -> faces`; any number of threads may call it."""

    def __init__(self, path: str | os.PathLike[str], min_score: float = 0.7) -> None:
        """path: YuNet's ONNX file. Raises InputError for any other file."""
        self.path, self.min_score = Path(path), min_score
        self._of_thread = threading.local()  # a network holds the state of one call
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it reports refused files itself, at length
        try:
            content = self.path.read_bytes()
            self(np.zeros((64, 64, 3), np.uint8))
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        except (cv2.error, InputError):
            pointer = b"git-lfs" in content[:64]
            what = "a Git LFS pointer, not the file that it points to" if pointer else "not YuNet's ONNX file"
            raise InputError(f"{path}: {what} ({FILE}, of https://huggingface.co/{REPOSITORY})") from None
        self.digest = hashlib.sha256(content).hexdigest()

    def __call__(self, photograph: Pixels) -> list[DetectedFace]:
        """The faces of (H, W, 3) uint8 RGB from `min_score` on, at the first of LONG_SIDES that shows any.

        No photograph is enlarged for it.
        """
        height, width = photograph.shape[:2]
        tried = set()
        for long_side in LONG_SIDES:
            scale = min(1.0, long_side / max(height, width))
            size = max(1, round(width * scale)), max(1, round(height * scale))
            if size not in tried and (faces := self._detect(photograph, size)):
                return faces
            tried.add(size)
        return []

    def enlarged(self, photograph: Pixels) -> list[DetectedFace]:
        """The faces that only the photograph enlarged shows, in its own pixels: where calling finds none."""
        height, width = photograph.shape[:2]
        tried = longest = max(height, width)
        for wanted in (ENLARGED_SIDE, *(factor * longest for factor in ENLARGEMENTS)):
            side = min(wanted, MAX_ENLARGED_SIDE)
            if side > tried:
                size = max(1, round(width * side / longest)), max(1, round(height * side / longest))
                if faces := self._detect(photograph, size):
                    return faces
                tried = side
        return []

    def refined(self, photograph: Pixels, face: DetectedFace, sizes: tuple[int, ...] = LOOKS) -> DetectedFace:
        """`face` with its points averaged over several looks at it, at these sizes and mirrored."""
        height, width = photograph.shape[:2]
        looks = []
        for size, mirrored in itertools.product(sizes, (False, True)):
            view = crop_around(face.box.astype(np.float32), (width, height), size, LOOK_MARGIN, mirrored=mirrored)
            found = self._detect(view.image(photograph), (size, size))
            if found:
                points = view.points_back(subject_face(found, (size, size)).points.astype(np.float32))
                looks.append(points[MIRRORED_ORDER] if mirrored else points)
        return dataclasses.replace(face, points=np.mean(looks, axis=0, dtype=np.float64)) if looks else face

    def _detect(self, photograph: Pixels, size: tuple[int, int]) -> list[DetectedFace]:
        height, width = photograph.shape[:2]
        network = getattr(self._of_thread, "network", None)
        if network is None:
            network = cv2.FaceDetectorYN.create(str(self.path), "", size, self.min_score, NMS_OVERLAP)
            self._of_thread.network = network
        network.setInputSize(size)
        method = cv2.INTER_AREA if size[0] <= width else cv2.INTER_CUBIC
        resized = photograph if size == (width, height) else cv2.resize(photograph, size, interpolation=method)
        found = network.detect(cv2.cvtColor(resized, cv2.COLOR_RGB2BGR))[1]
        if found is None:
            return []
        rows = np.asarray(found, np.float64)
        if rows.ndim != 2 or rows.shape[1] != 15 or not np.isfinite(rows).all():
            raise InputError(f"{self.path}: gives something else than boxes, points and scores")
        scale = np.array([width / size[0], height / size[1]])
        return [
            DetectedFace(row[:4] * np.tile(scale, 2), (row[4:14].reshape(5, 2) + 0.5) * scale - 0.5, float(row[14]))
            for row in rows
        ]


def subject_face(faces: Sequence[DetectedFace], photograph: tuple[int, int]) -> DetectedFace:
    """Whose photograph (width, height) it is: the face whose size times nearness to the middle is largest.

    Size is the root of the box's area; nearness falls from 1 in the middle of the photograph to 0 in its corners. So a
    large face stands back only for one that is nearly as large and nearer the middle.
    """
    middle = np.array(photograph) / 2

    def prominence(face: DetectedFace) -> float:
        away = np.linalg.norm(face.box[:2] + face.box[2:] / 2 - middle) / np.linalg.norm(middle)
        return float(np.sqrt(face.box[2:].prod()) * (1 - away))

    return max(faces, key=prominence)


def detector_file(path: Path | None) -> Path:
    """The file named, or else OpenCV's: from huggingface_hub's cache, where it is put at the first call.

    Raises InputError if that cannot be had, within seconds when there is no network, or is not the file of SHA256.
    """
    if path is not None:
        return path
    cached = Path(hub_file(REPOSITORY, [FILE], what="YuNet", advice="put the file somewhere and name it by `detector`"))
    check_sha256(cached, SHA256)
    return cached
