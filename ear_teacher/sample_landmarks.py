"""Landmarks of sampled ears, placed by a landmarker: what another one can be trained on beside annotated ears."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from earface.core.errors import InputError
from earface.core.notices import warn
from earface.core.tool_options import next_step
from earface.data.annotations import HIDDEN, VISIBLE, Annotations, Photograph, enclosing_box
from earface.data.coco import write_coco
from earface.data.ear_alignment import unwidened
from earface.data.ear_contract import EarAligner, EarContract
from earface.data.ear_networks import EarLandmarker
from earface.data.images import Pixels
from earface.synthetic.ear_anatomy import EAR_LANDMARKS
from earface.synthetic.ear_set import EAR_SKELETON


class Labeller:
    """Places landmarks on pictures, one after another, and writes those of the pictures where they form an ear."""

    def __init__(self, contract: str, landmarker: str | None) -> None:
        """contract: of the pictures. landmarker: landmarks.onnx of an export, or None. Raises InputError."""
        self.fit = EarContract.parse(contract).fit
        self.aligner = EarAligner("canonical", EarLandmarker(Path(landmarker) if landmarker else None))
        self.photographs: list[Photograph] = []
        self.left_out: Counter[str] = Counter()
        if self.fit == "stretch":
            warn("the model's ears are stretched: landmarks of its samples do not have the proportions of ears")

    def __call__(self, path: Path, pixels: Pixels) -> Pixels:
        """(S, S, C) -> (S, W, C): what is to be written as `path`, canonical ears in their own proportions."""
        picture = unwidened(pixels) if self.fit == "canonical" else pixels
        ear = self.aligner.locate(picture)
        if ear.problem or ear.fit is None or ear.landmarks is None:
            self.left_out[ear.problem] += 1
            return picture
        seen = np.where(ear.landmarks.visibility >= 0.5, VISIBLE, HIDDEN)
        points = np.column_stack([ear.landmarks.points, seen]).astype(np.float32)
        size = picture.shape[1], picture.shape[0]
        box = enclosing_box(points, size)[None]
        self.photographs.append(Photograph(path, size, box, points[None], False, (ear.fit.side,), path.stem))
        return picture

    def write(self, path: Path) -> list[str]:
        """COCO keypoints, and lines that say what was left out and what comes next. Raises InputError if nothing is."""
        left_out = sum(self.left_out.values())
        if not self.photographs:
            raise InputError(f"in none of {left_out} pictures the landmarks form an ear: they would teach nothing")
        count = self.aligner.landmarker.num_landmarks if self.aligner.landmarker else 0
        names = EAR_LANDMARKS if count == len(EAR_LANDMARKS) else tuple(f"point_{k:02d}" for k in range(1, count + 1))
        skeleton = tuple(EAR_SKELETON) if count == len(EAR_LANDMARKS) else ()
        write_coco(path, Annotations(path, self.photographs, names, skeleton))
        return [
            f"{count} landmarks of {len(self.photographs)} ears, COCO keypoints: {path}",
            f"{left_out} ears left out, whose landmarks are not sure",
            next_step("ears detector train", train_json=path, train_boxes="false"),
        ]
