"""One scene: heads with ears of every size before a backdrop, photographed, with each ear's annotations."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.data.affine import clipped_boxes, hide_outside
from earface.data.annotations import HIDDEN, VISIBLE, Floats
from earface.synthetic.backdrops import Random, backdrop, clutter, hand, skin_like
from earface.synthetic.canvas import Canvas, Frame
from earface.synthetic.curves import Array
from earface.synthetic.ear_anatomy import EAR_LANDMARKS
from earface.synthetic.ear_factors import sample_shape, sample_view
from earface.synthetic.heads import PaintedEar, Person, paint_face, paint_profile
from earface.synthetic.noise import TILE, noise_tile

SCENES_PER_GROUP = 8  # scenes in a row that share the group's people, so that their ears are modelled once
PEOPLE_PER_GROUP = 2
MIN_EAR = 9.0  # pixels of height
MIN_VISIBLE = 0.3  # of the auricle; less of an ear is not annotated


@dataclass(frozen=True)
class DrawnScene:
    """image: (H, W, 3) uint8 RGB. boxes: (N, 4) of the visible extent; keypoints: (N, 17, 3); as in `Photograph`."""

    image: NDArray[np.uint8]
    boxes: Floats
    keypoints: Floats
    sides: tuple[str, ...]
    quality: int  # of the JPEG that the camera writes


def draw_scene(seed: int, index: int, width: int, height: int) -> DrawnScene:
    """Scene number `index` of the population `seed`, independent of all others."""
    rng = np.random.default_rng([seed, index, 2])
    group = index // SCENES_PER_GROUP
    canvas = Canvas(backdrop(rng, width, height))
    ears: list[PaintedEar] = []
    heads = int(rng.choice(3, p=(0.06, 0.6, 0.34)))
    people = rng.permutation(PEOPLE_PER_GROUP)[:heads]
    # the far ones first, and they are small
    sizes = np.sort([_ear_height(rng, width, height, alone=heads == 1) for _ in people])
    for person, ear_height in zip(people.tolist(), sizes, strict=True):
        subject = group * PEOPLE_PER_GROUP + person + 1
        ears += _paint_head(canvas, rng, seed, subject, index, float(ear_height), len(ears) + 1)
    _occlude(canvas, rng, ears)
    boxes, keypoints, sides = visible_ears(canvas, ears)
    return DrawnScene(photographed(canvas.image, rng), boxes, keypoints, sides, int(rng.integers(60, 96)))


def _ear_height(rng: Random, width: int, height: int, alone: bool) -> float:
    """Pixels: even on a logarithmic scale, up to a picture filled by the ear where there is but one head."""
    low, high = np.log(MIN_EAR), np.log(min(width, height) * (0.85 if alone and rng.random() < 0.3 else 0.35))
    return float(np.exp(rng.uniform(min(low, high), high)))


def _paint_head(
    canvas: Canvas, rng: Random, seed: int, subject: int, index: int, ear_height: float, number: int
) -> list[PaintedEar]:
    height, width = canvas.owner.shape
    frontal = rng.random() < 0.35 and ear_height < 0.3 * height
    shape = sample_shape(seed, subject)
    person = Person(rng, shape, sample_view(seed, subject, index), ear_height, frontal)
    # the ear's middle: anywhere, cut by the border now and then
    margin = ear_height * rng.uniform(-0.25, 0.8)
    centre = [rng.uniform(min(margin, side / 2), max(side - margin, side / 2)) for side in (width, height)]
    if frontal:
        centre[0] = rng.uniform(0, width)
    else:
        centre[1] = min(centre[1], height - 0.3 * ear_height)
    turn = np.radians(rng.normal(0, 10))
    stretch = 1.0 if frontal else rng.uniform(0.6, 1.0)  # turned to or from the camera
    frame = Frame((centre[0], centre[1]), ear_height, turn, stretch * rng.uniform(0.9, 1.1), bool(rng.random() < 0.5))
    return (paint_face if frontal else paint_profile)(canvas, rng, frame, person, number)


def _occlude(canvas: Canvas, rng: Random, ears: list[PaintedEar]) -> None:
    """A hand, a cable, a board in front: somewhere, or across an ear."""
    if rng.random() < 0.15:
        clutter(rng, canvas, skin_like(rng), float(canvas.owner.shape[1] * rng.uniform(0.05, 0.25)))
    for ear in ears:
        if rng.random() < 0.07:
            size = float(np.ptp(ear.outline[:, 1]))
            at = ear.landmarks[int(rng.integers(len(ear.landmarks)))] + size * rng.normal(0, 0.2, 2)
            frame = Frame((float(at[0]), float(at[1])), size * rng.uniform(0.6, 1.6), rng.uniform(-3.2, 3.2))
            hand(rng, canvas, frame, skin_like(rng))


def visible_ears(canvas: Canvas, ears: list[PaintedEar]) -> tuple[Floats, Floats, tuple[str, ...]]:
    """Boxes, keypoints and sides of the ears that are visible enough."""
    height, width = canvas.owner.shape
    boxes, keypoints, sides = [], [], []
    for ear in ears:
        shown = canvas.owner == ear.number
        area = cv2.contourArea(ear.outline)
        if shown.sum() < max(MIN_VISIBLE * area, 4):
            continue
        boxes.append(_visible_box(ear.outline, shown))
        column, row = np.rint(ear.landmarks).astype(int).T.clip(0, [[width - 1], [height - 1]])
        near = cv2.dilate(shown.astype(np.uint8), np.ones((3, 3), np.uint8))[row, column] > 0
        hidden = ~near | (ear.visibility < VISIBLE)
        points = np.column_stack([ear.landmarks, np.where(hidden, HIDDEN, VISIBLE)]).astype(np.float32)
        keypoints.append(hide_outside(points, width, height))
        sides.append(ear.side)
    stacked = np.stack(keypoints) if keypoints else np.zeros((0, len(EAR_LANDMARKS), 3), np.float32)
    return np.array(boxes, np.float32).reshape(-1, 4), stacked, tuple(sides)


def _visible_box(outline: Array, shown: NDArray[np.bool_]) -> Floats:
    """(4,) around the outline, cut to the picture; a side that hides more than two pixels is where the ear is seen."""
    height, width = shown.shape
    whole = np.concatenate([outline.min(axis=0) + 0.5, np.ptp(outline, axis=0)])[None]
    x, y, w, h = clipped_boxes(whole.astype(np.float32), width, height)[0][0]
    columns, rows = np.flatnonzero(shown.any(axis=0)), np.flatnonzero(shown.any(axis=1))
    edges = np.array([x, y, x + w, y + h])
    seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    edges = np.where(np.abs(edges - seen) > 2, seen, edges)
    return np.concatenate([edges[:2], edges[2:] - edges[:2]]).astype(np.float32)


def photographed(image: Array, rng: Random) -> NDArray[np.uint8]:
    """Exposure, tint, blur and noise: (H, W, 3) float32 -> uint8."""
    height, width = image.shape[:2]
    gain = np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.05, 3))
    image = image * gain.astype(np.float32)
    if rng.random() < 0.08:
        image[:] = image.mean(axis=2, keepdims=True)
    sigma = rng.exponential(0.4) * width / 480
    if sigma > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    strength = rng.exponential(3.0)
    tile = noise_tile(1e-3, 1e-3)
    rows = -(-height // TILE), -(-width // TILE)
    dx, dy = rng.integers(0, TILE, 2)
    noise = np.roll(tile[:TILE, :TILE], (dy, dx), (0, 1))
    noise = np.tile(noise, rows)[:height, :width] if max(rows) > 1 else noise[:height, :width]
    image += np.float32(strength) * noise[..., None]
    return image.clip(0, 255).astype(np.uint8)
