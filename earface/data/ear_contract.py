"""The ear contract: the one form that ears are brought into before anything looks at them."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from earface.core.errors import InputError
from earface.data.affine import AffineMap, letterbox
from earface.data.annotations import Floats
from earface.data.ear_alignment import (
    EAR_HEIGHT,
    FRAME_WIDTH,
    RESIDUAL_SIDE,
    EarFit,
    Side,
    align_ear,
    ear_placement,
    fit_ear,
    mean_ear,
)
from earface.data.ear_networks import EAR_LANDMARKS, EarLandmarker, EarLandmarks
from earface.data.image_cache import crop_to_box
from earface.data.images import Pixels, resize_image

Fit = Literal["canonical", "letterbox", "stretch"]
STRETCH = "stretch"  # the id of pictures in no form, as all were before there was a contract
MAX_RESIDUAL = 7.0  # pixels of a frame RESIDUAL_SIDE high; 95 % of EarVN's ears are below 6.4
MAX_DISAGREEMENT = 0.1  # between a picture and its mirror image, of the ear's height; 99 % are below .08
MIN_VISIBILITY = 0.5  # mean over the landmarks; 99 % of the ears are above, and of crops of faces 40 %
MIN_INSIDE = 0.6  # of the mean shape's landmarks that lie in the picture


@dataclass(frozen=True)
class EarContract:
    """How a picture of an ear becomes the square that a model takes.

    fit: `canonical`: mirrored to a right ear, upright, 86 % of the height, by a robust similarity of its landmarks to a
        mean shape, the frame of 5:8 widened to the square, border replicated. `letterbox`: the whole picture, its
        proportions kept. `stretch`: the whole picture, each axis by itself.
    landmarks: of `canonical`: their number, and the first digits of the SHA-256 of the network that places them.
    """

    fit: Fit = "stretch"
    landmarks: str = ""

    @classmethod
    def canonical(cls, landmarker: EarLandmarker) -> EarContract:
        return cls("canonical", f"{landmarker.num_landmarks}-{landmarker.digest[:12]}")

    @classmethod
    def parse(cls, written: str) -> EarContract:
        """The contract of an id; '' is `stretch`. Raises InputError for the id of another version, or for no id."""
        fit, _, rest = (written or STRETCH).partition(":")
        landmarks = rest.rpartition("-shape-")[0]
        if fit in get_args(Fit):
            contract = cls(fit, landmarks)  # type: ignore[arg-type]
            if (fit == "canonical") == bool(landmarks) and contract.id == (written or STRETCH):
                return contract
        raise InputError(f"ear contract {written!r}: not of this version; prepare the ears again")

    @property
    def id(self) -> str:
        """What is learned from ears of different ids must not be compared; stored in data, checkpoints and exports."""
        if self.fit != "canonical":
            return self.fit
        return f"canonical:{self.landmarks}-shape-{shape_digest(int(self.landmarks.partition('-')[0]))}"


def shape_digest(num_landmarks: int) -> str:
    """Of all that decides where a canonical ear lies, beside its landmarks."""
    content = f"{EAR_HEIGHT} {FRAME_WIDTH} widened ".encode() + np.round(mean_ear(num_landmarks) * 1000).tobytes()
    return hashlib.sha256(content).hexdigest()[:8]


def landmarker_of(contract: str, given: str | None = None) -> EarLandmarker | None:
    """The landmarker that ears of a contract are aligned by; None for ears that are not aligned.

    contract: its id. given: landmarks.onnx of an export; None: earface's own. Raises InputError for any other file.
    """
    if given is None and EarContract.parse(contract).fit != "canonical":
        return None
    path = EAR_LANDMARKS if given is None else Path(given)
    if not path.is_file():
        raise InputError(f"`landmarker` {path}: no such file")
    landmarker = EarLandmarker(path)
    if EarContract.canonical(landmarker).id != contract:
        raise InputError(f"`landmarker` {path}: not the one that the model's ears were aligned by ({contract})")
    return landmarker


@dataclass(frozen=True, eq=False)
class LocatedEar:
    """Where an ear lies in its picture, and why it should not be used: '' if it should.

    box: x y width height; None: the whole picture. fit: of canonical ears; landmarks: what it was found by.
    """

    box: Floats | None
    fit: EarFit | None = None
    problem: str = ""
    landmarks: EarLandmarks | None = None


class EarAligner:
    """Brings the ears of pictures into the form of one contract; any number of threads may use it."""

    def __init__(self, fit: Fit, landmarker: EarLandmarker | None = None, max_residual: float = MAX_RESIDUAL) -> None:
        """landmarker: needed for `canonical`."""
        self.landmarker, self.max_residual = landmarker, max_residual
        self.contract = EarContract(fit)
        if fit == "canonical":
            assert landmarker is not None, "canonical ears need landmarks"
            self.contract = EarContract.canonical(landmarker)

    def locate(self, picture: Pixels, box: Floats | None = None, side: Side | None = None) -> LocatedEar:
        """picture: (H, W, C) uint8. box: of the ear, x y width height; None: all of it. side: if it is known."""
        if self.landmarker is None:
            return LocatedEar(box)
        found = self.landmarker(picture, box)
        try:
            fit = fit_ear(found.points, side)
        except InputError as error:
            return LocatedEar(box, problem=str(error), landmarks=found)
        return LocatedEar(box, fit, self._problem(picture, found, fit), found)

    def image(self, picture: Pixels, ear: LocatedEar, size: int) -> Pixels:
        """(size, size, C): the ear in its form; one without a fit is letterboxed, as `letterbox` does."""
        if ear.fit is not None:
            return align_ear(picture, self.placement(picture, ear, size))
        part = picture if ear.box is None else crop_to_box(picture, ear.box)
        if self.contract.fit == "stretch":
            return resize_image(part, size)
        return letterbox((part.shape[1], part.shape[0]), size).image(part)

    def placement(self, picture: Pixels, ear: LocatedEar, size: int) -> AffineMap:
        """Of an ear with a fit: the map from the picture to its form, whose inverse leads back."""
        assert ear.fit is not None, "letterboxed and stretched ears have boxes, not placements"
        return ear_placement(ear.fit, (picture.shape[1], picture.shape[0]), size)

    def _problem(self, picture: Pixels, found: EarLandmarks, fit: EarFit) -> str:
        disagreement, visibility = found.disagreement, float(found.visibility.mean())
        if visibility < MIN_VISIBILITY:
            return "no ear, or one that is hidden"
        if fit.residual > self.max_residual:
            return f"residual {fit.residual:.1f}: its landmarks form no ear"
        if disagreement > MAX_DISAGREEMENT:
            return f"its landmarks move by {disagreement:.0%} of the ear when it is mirrored"
        if (inside := share_inside(picture, fit)) < MIN_INSIDE:
            return f"{1 - inside:.0%} of the ear lies outside the picture"
        return ""


def share_inside(picture: Pixels, fit: EarFit) -> float:
    """Of the mean shape, as it lies in the picture (H, W, C): the share of its landmarks inside."""
    placement = ear_placement(fit, (picture.shape[1], picture.shape[0]), RESIDUAL_SIDE, widen=False)
    shape = (mean_ear(55) * RESIDUAL_SIDE + RESIDUAL_SIDE / 2 - 0.5).astype(np.float32)
    points = placement.points_back(shape)
    limit = np.array([picture.shape[1], picture.shape[0]], np.float32)
    return float(((points >= -0.5) & (points <= limit - 0.5)).all(axis=1).mean())


def letterboxed(ear: LocatedEar) -> LocatedEar:
    """The same, kept although its landmarks are of no use."""
    return dataclasses.replace(ear, fit=None, problem="")
